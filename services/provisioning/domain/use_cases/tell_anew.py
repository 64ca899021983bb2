"""Telling all there is to a log that was made anew."""

from collections.abc import AsyncIterator
from typing import TypeVar

from services.provisioning.domain.ports import Devices, Fleets, Things, Workspaces
from services.provisioning.domain.things import Thing
from services.provisioning.domain.use_cases.tell import Tell
from shared.log import Log
from shared.messages.registry import WHOLE, RegistryWhole
from shared.messages.topics import ACCESS, REGISTRY
from shared.registry import Registry

T = TypeVar("T", bound=Thing)

_STEP = 500


class TellAnew:
    """Tells everything where the topics do not say that everything was told: when the log is new, also when lost."""

    def __init__(
        self, registry: Registry, workspaces: Workspaces, fleets: Fleets, devices: Devices, tell: Tell, log: Log
    ) -> None:
        self._registry = registry
        self._workspaces = workspaces
        self._fleets = fleets
        self._devices = devices
        self._tell = tell
        self._log = log

    async def __call__(self) -> bool:
        """Whether there was need for it. Until it is done, nobody takes what is missing for deleted."""
        await self._registry.read.wait()
        access = await self._log.identity(ACCESS)
        if self._registry.access == access:
            return False
        async for some in _steps(self._workspaces):
            await self._tell(workspaces=some)
        async for some in _steps(self._fleets):
            await self._tell(fleets=some)
        async for some in _steps(self._devices):
            await self._tell(devices=some)
        await self._log.append(REGISTRY, [RegistryWhole(access=access).record(WHOLE)])
        return True


async def _steps(things: Things[T]) -> AsyncIterator[list[str]]:
    some: list[str] = []
    async for identifier in things.identifiers():
        some.append(identifier)
        if len(some) == _STEP:
            yield some
            some = []
    if some:
        yield some
