"""Operations on integrations (spec: rest-v3 8.11, integrations 1 and 2)."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Failure, Queues
from services.integrations.domain.queue import Lane
from services.integrations.domain.use_cases.manage import Manage, Wanted
from services.integrations.domain.use_cases.sweep import waiting_in
from shared.clock import NEVER, rfc3339_ms
from shared.errors import Refused
from shared.http.raw_json import RawJson
from shared.http.routes import Answer, Nothing, Request, Route
from shared.security.tenancy import Tenancy

# What is shown in place of a secret, and taken for it unchanged when it comes back.
_MASK = "********"

Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Tags = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=256)]], Field(max_length=1000)]
Fleets = Annotated[list[str], Field(max_length=1000)]
Period = Annotated[float, Field(ge=0, le=3600, description="Seconds to gather before sending; 0: at once")]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
# The characters that a header carries as they are.
Token = Annotated[
    str,
    StringConstraints(max_length=4096, pattern=r"^([!-~]([ -~]*[!-~])?)?$"),
    Field(description="Sent as X-Auth-Token; empty: none"),
]


class Stream(BaseModel):
    """What is sent. Empty lists match all."""

    tags: Tags = Field(default_factory=list)
    fleets: Fleets = Field(default_factory=list)
    period: Period = 0


class StreamChange(BaseModel):
    """What is sent, from now on."""

    tags: Tags | None = None
    fleets: Fleets | None = None
    period: Period | None = None


class Target(BaseModel):
    """Where it goes."""

    url: Url
    token: Token | None = None


class TargetChange(BaseModel):
    """Where it goes, from now on."""

    url: Url | None = None
    token: Token | None = None


class IntegrationBody(BaseModel):
    """A new integration."""

    name: Name
    type: str = "data_stream"
    subtype: str = "webhook"
    status: Literal["active", "disabled"] = "active"
    type_configuration: Stream = Field(default_factory=Stream)
    subtype_configuration: Target


class IntegrationChange(BaseModel):
    """What to change; what is absent stays."""

    name: Name | None = None
    type: str | None = None
    subtype: str | None = None
    status: Literal["active", "disabled"] | None = None
    type_configuration: StreamChange | None = None
    subtype_configuration: TargetChange | None = None


class ListQuery(BaseModel):
    """Which ones."""

    type: str | None = None
    subtype: str | None = None
    status: str | None = None


class LogsQuery(BaseModel):
    """How much of it."""

    limit: int = Field(100, ge=1, le=1000)


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
        await self._check(request)
        integration = await self._manage.create(request.path["workspace_id"], _wanted(request.body))
        view = await self._view(integration)
        view.subtype_configuration.secret = integration.secret
        return IntegrationAnswer(integration=view)

    async def change_integration(self, request: Request[IntegrationChange, Nothing]) -> Answer:
        """Partly."""
        await self._check(request)
        return await self._answer(await self._manage.change(*_ids(request), _wanted(request.body)))

    async def delete_integration(self, request: Request[Nothing, Nothing]) -> Answer:
        """With its queue."""
        answer = await self._answer(await self._manage.get(*_ids(request)))
        await self._manage.delete(*_ids(request))
        return answer

    async def logs(self, request: Request[Nothing, LogsQuery]) -> Answer:
        """Newest first."""
        found = await self._manage.failures(*_ids(request), request.query.limit)
        return LogsAnswer(logs=[_failure(one) for one in found])

    async def _check(self, request: Request[IntegrationBody, Nothing] | Request[IntegrationChange, Nothing]) -> None:
        body = request.body
        if body.type not in (None, "data_stream"):
            raise Refused("type: data_stream is the only one in this version", field="type")
        if body.subtype not in (None, "webhook"):
            raise Refused("subtype: webhook is the only one in this version", field="subtype")
        for fleet in (body.type_configuration and body.type_configuration.fleets) or ():
            await self._tenancy.fleet(request.principal, fleet, request.path["workspace_id"])

    async def _answer(self, integration: Integration) -> Answer:
        return IntegrationAnswer(integration=await self._view(integration))

    async def _view(self, one: Integration) -> IntegrationView:
        lanes = await self._queues.lanes_of(one.id)
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

    async def _statistics(self, lanes: Sequence[Lane]) -> Statistics:
        oldest = [chunk.oldest for lane in lanes for chunk in await self._queues.waiting(lane.id, lane.done, 1)]
        tries = [lane.next_try_at for lane in lanes if lane.next_try_at is not None]
        return Statistics(
            delivered=sum(lane.delivered for lane in lanes),
            waiting=sum([await waiting_in(lane, self._queues) for lane in lanes]),
            parked=sum(lane.parked for lane in lanes),
            dropped=sum(lane.dropped for lane in lanes),
            oldest_waiting=rfc3339_ms(min(oldest)) if oldest else None,
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
        Route("GET", logs, h.logs, "Read an integration's error log", LogsAnswer, query=LogsQuery),
    ]


def _ids(
    request: Request[IntegrationChange, Nothing] | Request[Nothing, Nothing] | Request[Nothing, LogsQuery],
) -> tuple[str, str]:
    return request.path["workspace_id"], request.path["integration_id"]


def _wanted(body: IntegrationBody | IntegrationChange) -> Wanted:
    stream = body.type_configuration or StreamChange()
    target = body.subtype_configuration or TargetChange()
    return Wanted(
        name=body.name,
        status=body.status,
        url=target.url,
        token=None if target.token == _MASK else target.token,
        tags=None if stream.tags is None else tuple(stream.tags),
        fleets=None if stream.fleets is None else tuple(stream.fleets),
        period_s=stream.period,
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
