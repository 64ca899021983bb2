"""Whether log and documents answer, asked now and then: what `/readyz` and `zdm_dependency_up` say of them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import Gauge

from shared.errors import Unavailable
from shared.outage import Outage

_EVERY_S = 5.0
_DEADLINE_S = 5.0

_UP = Gauge("zdm_dependency_up", "1 when it answered last", ["of"])

Ping = Callable[[], Awaitable[object]]  # raises Unavailable


class Watch:
    """Asks each of `pings`, by name, for ever. An outage is logged once going and once coming."""

    def __init__(
        self, pings: Mapping[str, Ping], *, every_s: float = _EVERY_S, deadline_s: float = _DEADLINE_S
    ) -> None:
        self._pings = pings
        self._every_s = every_s
        self._deadline_s = deadline_s
        self._outages = {name: Outage(name) for name in pings}

    def checks(self) -> dict[str, Callable[[], str]]:
        """By name: why it is away, empty when it is not."""
        return {name: outage.waiting_for for name, outage in self._outages.items()}

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.gather(*(self._ask(name, ping) for name, ping in self._pings.items()))
            await asyncio.sleep(self._every_s)

    async def _ask(self, name: str, ping: Ping) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await ping()
        except Unavailable as error:
            self._goes_on(name, error.message)
        except TimeoutError:
            self._goes_on(name, f"no answer within {self._deadline_s:.0f} s")
        else:
            _UP.labels(name).set(1)
            self._outages[name].is_over()

    def _goes_on(self, name: str, reason: str) -> None:
        _UP.labels(name).set(0)
        self._outages[name].goes_on(reason)
