"""What may happen to a server in a container."""

import asyncio
from typing import Any

from testcontainers.core.container import DockerContainer


class Contained:
    """One server; its addresses stay the same whatever happens to it."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container

    async def pause(self) -> None:
        """As a host that hangs: connections stay open, and nobody answers."""
        await self._do("pause")

    async def unpause(self) -> None:
        """Goes on."""
        await self._do("unpause")

    async def stop(self) -> None:
        """As an orderly end."""
        await self._do("stop")

    async def kill(self) -> None:
        """As `kill -9`."""
        await self._do("kill")

    async def start(self) -> None:
        """After `stop` or `kill`; it takes a while until it answers."""
        await self._do("start")

    async def _do(self, what: str) -> None:
        container: Any = self._container.get_wrapped_container()
        await asyncio.to_thread(getattr(container, what))
