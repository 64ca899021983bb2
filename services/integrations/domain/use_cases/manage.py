"""Making, changing and deleting integrations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.integrations.domain.integrations import Integration, Status
from services.integrations.domain.ports import Failure, Failures, Integrations
from services.integrations.domain.queue import source_of
from services.integrations.domain.use_cases.directory import Directory
from shared.clock import Clock, rfc3339_us
from shared.errors import NotFound, Refused
from shared.ids import Ids
from shared.log import Log
from shared.messages.topics import DATA
from shared.outbound.policy import OutboundPolicy

URL_FIELD = "subtype_configuration.url"
# Each of them gets a copy of what it matches.
_MOST = 100


@dataclass(frozen=True)
class Wanted:
    """What a caller asks of an integration; None: not said."""

    name: str | None = None
    status: Status | None = None
    url: str | None = None
    token: str | None = None
    tags: tuple[str, ...] | None = None
    fleets: tuple[str, ...] | None = None
    period_s: float | None = None


class Manage:
    """The integrations of workspaces."""

    def __init__(
        self,
        integrations: Integrations,
        failures: Failures,
        directory: Directory,
        policy: OutboundPolicy,
        log: Log,
        clock: Clock,
        ids: Ids,
        new_secret: Callable[[], str],
    ) -> None:
        self._integrations = integrations
        self._failures = failures
        self._directory = directory
        self._policy = policy
        self._log = log
        self._clock = clock
        self._ids = ids
        self._new_secret = new_secret

    async def create(self, workspace_id: str, wanted: Wanted) -> Integration:
        """It gets what is received from now on. Raise `Refused`, also beyond 100 of a workspace."""
        if wanted.url is None:
            raise Refused(f"{URL_FIELD}: is needed", field=URL_FIELD)
        self._policy.check_url(wanted.url, URL_FIELD)
        if len(await self._integrations.of_workspace(workspace_id)) >= _MOST:
            raise Refused(f"A workspace has {_MOST} integrations at most")
        log, ends = await self._log.identity(DATA), await self._log.end(DATA)
        integration = Integration(
            id=self._ids.new("int-"),
            workspace_id=workspace_id,
            name=wanted.name or "",
            status=wanted.status or "active",
            url=wanted.url,
            token=wanted.token or "",
            secret=self._new_secret(),
            tags=wanted.tags or (),
            fleets=wanted.fleets or (),
            period_s=wanted.period_s or 0.0,
            created_at=rfc3339_us(self._clock.now()),
            since={source_of(log, partition): offset for partition, offset in ends.items()},
        )
        await self._integrations.add(integration)
        self._directory.put(integration)
        return integration

    async def get(self, workspace_id: str, identifier: str) -> Integration:
        """Raise `NotFound`."""
        return _there(await self._integrations.get(workspace_id, identifier), identifier)

    async def of_workspace(self, workspace_id: str) -> Sequence[Integration]:
        """Oldest first."""
        return await self._integrations.of_workspace(workspace_id)

    async def change(self, workspace_id: str, identifier: str, wanted: Wanted) -> Integration:
        """Filters count for what arrives afterwards. Raise `NotFound`, `Refused`."""
        if wanted.url is not None:
            self._policy.check_url(wanted.url, URL_FIELD)
        changes: dict[str, Any] = {name: value for name, value in vars(wanted).items() if value is not None}
        if not changes:
            raise Refused("Nothing to change was named")
        changed = _there(await self._integrations.change(workspace_id, identifier, changes), identifier)
        self._directory.put(changed)
        return changed

    async def delete(self, workspace_id: str, identifier: str) -> Integration:
        """Nothing more is sent; its queue goes a little later. Raise `NotFound`."""
        integration = await self.get(workspace_id, identifier)
        if not await self._integrations.remove(identifier, self._clock.ms()):
            raise NotFound.of("integration", identifier)
        self._directory.remove(identifier)
        return integration

    async def failures(self, workspace_id: str, identifier: str, limit: int) -> Sequence[Failure]:
        """Newest first. Raise `NotFound`."""
        integration = await self.get(workspace_id, identifier)
        return await self._failures.of(integration.id, limit)


def _there(integration: Integration | None, identifier: str) -> Integration:
    if integration is None:
        raise NotFound.of("integration", identifier)
    return integration
