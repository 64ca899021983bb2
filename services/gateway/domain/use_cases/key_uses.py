"""When each API key was used last: noted with every request, written once a minute at most."""

import asyncio

from services.gateway.domain.ports import Keys
from shared.clock import Clock

_WRITTEN_EVERY_MS = 60_000
_LOOK_EVERY_S = 1.0


class KeyUses:
    """Apart from the requests: a store that cannot write now must not keep anybody from reading."""

    def __init__(self, keys: Keys, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._noted: dict[str, int] = {}
        self._written: dict[str, int] = {}

    def note(self, key_id: str) -> None:
        """Used now."""
        self._noted[key_id] = self._clock.ms()

    async def run(self) -> None:
        """Write for ever what is due."""
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            await self.write_due()

    async def write_due(self) -> None:
        """Write the uses of keys whose last written use is a minute old."""
        for key_id, at in list(self._noted.items()):
            written = self._written.get(key_id)
            if written is None or at - written >= _WRITTEN_EVERY_MS:
                await self._keys.used(key_id, at)
                self._written[key_id] = at
                if self._noted[key_id] == at:
                    del self._noted[key_id]
