"""Operations (spec: rest-v3 8.8)."""

from pydantic import BaseModel

from services.jobs.domain.ports import Statuses
from services.jobs.domain.requests import as_json
from shared.http.raw_json import RawJson
from shared.http.routes import Answer, Nothing, Request, Route


class StatusAnswer(BaseModel):
    """By key: `t`, ms of the last change, and `v`, the value as it was written."""

    current: RawJson
    expected: RawJson


class Handlers:
    """Parse, call, render."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses

    async def status(self, request: Request[Nothing, Nothing]) -> Answer:
        """All of it, strong-private values too."""
        device_id = request.path["device_id"]
        status = (await self._statuses.load([device_id]))[device_id]
        return StatusAnswer(current=as_json(status.current), expected=as_json(status.expected))


def routes(handlers: Handlers) -> list[Route]:
    """All of them, by audience."""
    return [
        Route(
            "GET",
            "/v3/devices/{device_id}/status",
            handlers.status,
            "What a device reported, and is to do",
            StatusAnswer,
        ),
    ]
