"""Storage's operations (spec: rest-v3 8.9 and 9)."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from services.storage.domain.points import SIZE_LIMIT, PointsQuery
from services.storage.domain.ports import Points
from shared.clock import parse_rfc3339, to_ms_up
from shared.http.dispatch import json_list
from shared.http.routes import Answer, Nothing, Request, Route, Stream
from shared.security.tenancy import Tenancy

_LOST_PLUS = re.compile(r" (?=[0-9]{2}:[0-9]{2}$)")


def _moment(text: object) -> object:
    if not isinstance(text, str):
        return text
    # A plus sign that was not encoded arrives as a space.
    return to_ms_up(parse_rfc3339(_LOST_PLUS.sub("+", text)))


Moment = Annotated[int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]


class DataQuery(BaseModel):
    """Which points, and in which order."""

    start: Moment | None = Field(None, description="RFC 3339, inclusive")
    end: Moment | None = Field(None, description="RFC 3339, exclusive")
    from_: int = Field(0, alias="from", ge=0, le=1_000_000_000, description="Page, from 0")
    size: int = Field(100, ge=0, le=SIZE_LIMIT, description="Points a page")
    sort: Literal["timestamp_device", "-timestamp_device"] = Field("-timestamp_device", description="-: newest first")
    tag: list[str] = Field(default_factory=list, max_length=100)
    device: list[str] = Field(default_factory=list, max_length=100)
    fleet: list[str] = Field(default_factory=list, max_length=100)


class TagsQuery(BaseModel):
    """Of which device."""

    device: str | None = None


class PointView(BaseModel):
    """A data point."""

    timestamp_device: str
    timestamp_in: str
    fleet_id: str
    device_id: str
    tag: str
    payload: Any


class PointsAnswer(BaseModel):
    """Data points."""

    result: list[PointView]


class TagsAnswer(BaseModel):
    """Tags."""

    tags: list[str]


class Handlers:
    """Parse, call, render."""

    def __init__(self, points: Points, tenancy: Tenancy) -> None:
        self._points = points
        self._tenancy = tenancy

    async def data(self, request: Request[Nothing, DataQuery]) -> Answer:
        """A stream of points."""
        asked, workspace_id = request.query, request.path["workspace_id"]
        for device in asked.device:
            await self._tenancy.device(request.principal, device, workspace_id)
        for fleet in asked.fleet:
            await self._tenancy.fleet(request.principal, fleet, workspace_id)
        query = PointsQuery(
            workspace_id,
            asked.start,
            asked.end,
            tuple(asked.tag),
            tuple(asked.device),
            tuple(asked.fleet),
            asked.from_,
            asked.size,
            oldest_first=asked.sort == "timestamp_device",
        )
        return Stream(json_list(b'{"result":[', self._points.find(query), b"]}"))

    async def tags(self, request: Request[Nothing, TagsQuery]) -> Answer:
        """In order."""
        workspace_id, device_id = request.path["workspace_id"], request.query.device
        if device_id is not None:
            await self._tenancy.device(request.principal, device_id, workspace_id)
        return TagsAnswer(tags=list(await self._points.tags(workspace_id, device_id)))


def routes(handlers: Handlers) -> list[Route]:
    """All for members."""
    series, data = "/v3/timeseries/{workspace_id}/data", "/v3/workspaces/{workspace_id}/data"
    tags = "/v3/workspaces/{workspace_id}/tags"
    return [
        Route("GET", series, handlers.data, "Read the time series", PointsAnswer, query=DataQuery),
        Route("GET", data, handlers.data, "Read the newest data", PointsAnswer, query=DataQuery),
        Route("GET", tags, handlers.tags, "List the tags", TagsAnswer, query=TagsQuery),
    ]
