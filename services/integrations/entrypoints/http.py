"""Operations on integrations (spec: rest-v3 8.11, integrations 1 and 2)."""

from typing import Literal

from pydantic import BaseModel, Field

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Failure, Queues
from services.integrations.domain.queue import Lane
from services.integrations.domain.use_cases.manage import Manage, Wanted
from shared.clock import NEVER, rfc3339_ms
from shared.errors import Refused
from shared.http.raw_json import RawJson
from shared.http.routes import Answer, Nothing, Request, Route
from shared.security.tenancy import Tenancy

_LOG_LINES = 100
_CHUNKS_COUNTED = 100_000
_MASK = "********"


class Stream(BaseModel):
    """What is sent. Empty lists match all."""

    tags: list[str] = Field(default_factory=list, max_length=1000)
    fleets: list[str] = Field(default_factory=list, max_length=1000)
    period: float = Field(0, ge=0, le=3600, description="Seconds to gather before sending; 0: at once")


class Target(BaseModel):
    """Where it goes."""

    url: str | None = Field(None, min_length=1, max_length=2048)
    token: str | None = Field(None, max_length=4096, description="Sent as X-Auth-Token")


class IntegrationBody(BaseModel):
    """A new integration."""

    name: str = Field(min_length=1, max_length=64)
    type: str = "data_stream"
    subtype: str = "webhook"
    status: Literal["active", "disabled"] = "active"
    type_configuration: Stream = Field(default_factory=Stream)
    subtype_configuration: Target


class IntegrationChange(BaseModel):
    """What to change; what is absent stays."""

    name: str | None = Field(None, min_length=1, max_length=64)
    status: Literal["active", "disabled"] | None = None
    type_configuration: Stream | None = None
    subtype_configuration: Target | None = None


class ListQuery(BaseModel):
    """Which ones."""

    type: str | None = None
    subtype: str | None = None
    status: str | None = None


class TargetView(BaseModel):
    """Where it goes. Of token and secret only that they are set."""

    url: str
    token: str
    secret: str


class Statistics(BaseModel):
    """How its queue stands."""

    delivered: int
    waiting: int
    parked: int
    dropped: int
    oldest_waiting: str | None
    last_error: str
    next_try_at: str | None


class IntegrationView(BaseModel):
    """An integration."""

    id: str
    name: str
    workspace_id: str
    status: str
    type: str
    type_configuration: Stream
    subtype: str
    subtype_configuration: TargetView
    last_time_schedule: str
    created_at: str
    deleted_at: str
    statistics: Statistics


class IntegrationAnswer(BaseModel):
    """One integration."""

    integration: IntegrationView


class IntegrationsAnswer(BaseModel):
    """Integrations."""

    integrations: list[IntegrationView]


class FailureView(BaseModel):
    """A line of the error log. `point`: what was parked."""

    at: str
    kind: str
    message: str
    status: int | None
    batch_id: str
    point: RawJson


class LogsAnswer(BaseModel):
    """The newest lines."""

    logs: list[FailureView]


class Handlers:
    """Parse, call, render."""

    def __init__(self, manage: Manage, queues: Queues, tenancy: Tenancy) -> None:
        self._manage = manage
        self._queues = queues
        self._tenancy = tenancy

    async def list_integrations(self, request: Request[Nothing, ListQuery]) -> Answer:
        """Of a workspace."""
        asked = request.query
        if asked.type not in (None, "data_stream") or asked.subtype not in (None, "webhook"):
            return IntegrationsAnswer(integrations=[])
        found = await self._manage.of_workspace(request.path["workspace_id"])
        chosen = [one for one in found if asked.status in (None, one.status)]
        return IntegrationsAnswer(integrations=[await self._view(one) for one in chosen])

    async def get_integration(self, request: Request[Nothing, Nothing]) -> Answer:
        """One."""
        return await self._answer(await self._manage.get(*_ids(request)))

    async def create_integration(self, request: Request[IntegrationBody, Nothing]) -> Answer:
        """The secret that signs is shown this once."""
        body, workspace_id = request.body, request.path["workspace_id"]
        if body.type != "data_stream":
            raise Refused("type: data_stream is the only one in this version", field="type")
        if body.subtype != "webhook":
            raise Refused("subtype: webhook is the only one in this version", field="subtype")
        await self._own_fleets(request, body.type_configuration)
        wanted = _wanted(body.name, body.status, body.type_configuration, body.subtype_configuration)
        integration = await self._manage.create(workspace_id, wanted)
        view = await self._view(integration)
        view.subtype_configuration.secret = integration.secret
        return IntegrationAnswer(integration=view)

    async def change_integration(self, request: Request[IntegrationChange, Nothing]) -> Answer:
        """Partly."""
        body = request.body
        if body.type_configuration is not None:
            await self._own_fleets(request, body.type_configuration)
        wanted = _wanted(body.name, body.status, body.type_configuration, body.subtype_configuration)
        return await self._answer(await self._manage.change(*_ids(request), wanted))

    async def delete_integration(self, request: Request[Nothing, Nothing]) -> Answer:
        """With its queue."""
        answer = await self._answer(await self._manage.get(*_ids(request)))
        await self._manage.delete(*_ids(request))
        return answer

    async def logs(self, request: Request[Nothing, Nothing]) -> Answer:
        """Newest first."""
        found = await self._manage.failures(*_ids(request), _LOG_LINES)
        return LogsAnswer(logs=[_failure(one) for one in found])

    async def _own_fleets(
        self, request: Request[IntegrationBody, Nothing] | Request[IntegrationChange, Nothing], stream: Stream
    ) -> None:
        for fleet in stream.fleets:
            await self._tenancy.fleet(request.principal, fleet, request.path["workspace_id"])

    async def _answer(self, integration: Integration) -> Answer:
        return IntegrationAnswer(integration=await self._view(integration))

    async def _view(self, one: Integration) -> IntegrationView:
        lanes = [lane for lane in await self._queues.lanes() if lane.integration_id == one.id]
        lanes = lanes or [await self._queues.lane(one, 0)]
        sent = [lane.last_sent_at for lane in lanes if lane.last_sent_at is not None]
        return IntegrationView(
            id=one.id,
            name=one.name,
            workspace_id=one.workspace_id,
            status=one.status,
            type="data_stream",
            type_configuration=Stream(tags=list(one.tags), fleets=list(one.fleets), period=one.period_s),
            subtype="webhook",
            subtype_configuration=TargetView(url=one.url, token=_MASK if one.token else "", secret=_MASK),
            last_time_schedule=rfc3339_ms(max(sent)) if sent else NEVER,
            created_at=one.created_at,
            deleted_at=NEVER,
            statistics=await self._statistics(lanes),
        )

    async def _statistics(self, lanes: list[Lane]) -> Statistics:
        chunks = [chunk for lane in lanes for chunk in await self._queues.waiting(lane.id, lane.done, _CHUNKS_COUNTED)]
        tries = [lane.next_try_at for lane in lanes if lane.next_try_at is not None]
        return Statistics(
            delivered=sum(lane.delivered for lane in lanes),
            waiting=sum(chunk.count for chunk in chunks),
            parked=sum(lane.parked for lane in lanes),
            dropped=sum(lane.dropped for lane in lanes),
            oldest_waiting=rfc3339_ms(min(chunk.oldest for chunk in chunks)) if chunks else None,
            last_error=next((lane.last_error for lane in lanes if lane.last_error), ""),
            next_try_at=rfc3339_ms(min(tries)) if tries else None,
        )


def routes(handlers: Handlers) -> list[Route]:
    """All for members."""
    every = "/v3/workspaces/{workspace_id}/integrations"
    one, logs = every + "/{integration_id}", every + "/{integration_id}/logs"
    h, single = handlers, IntegrationAnswer
    return [
        Route("GET", every, h.list_integrations, "List the integrations", IntegrationsAnswer, query=ListQuery),
        Route("POST", every, h.create_integration, "Make an integration", single, IntegrationBody),
        Route("GET", one, h.get_integration, "Get an integration", single),
        Route("PUT", one, h.change_integration, "Change or switch an integration", single, IntegrationChange),
        Route("DELETE", one, h.delete_integration, "Delete an integration and its queue", single),
        Route("GET", logs, h.logs, "Read an integration's error log", LogsAnswer),
    ]


def _ids(request: Request[IntegrationChange, Nothing] | Request[Nothing, Nothing]) -> tuple[str, str]:
    return request.path["workspace_id"], request.path["integration_id"]


def _wanted(
    name: str | None, status: Literal["active", "disabled"] | None, stream: Stream | None, target: Target | None
) -> Wanted:
    return Wanted(
        name=name,
        status=status,
        url=target.url if target else None,
        token=target.token if target else None,
        tags=tuple(stream.tags) if stream else None,
        fleets=tuple(stream.fleets) if stream else None,
        period_s=stream.period if stream else None,
    )


def _failure(one: Failure) -> FailureView:
    return FailureView(
        at=rfc3339_ms(one.at),
        kind=one.kind,
        message=one.message,
        status=one.status,
        batch_id=one.batch_id,
        point=one.point or "null",
    )
