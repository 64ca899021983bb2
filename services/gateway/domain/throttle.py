"""How often a login may fail before it has to wait."""

from collections import OrderedDict
from collections.abc import Hashable

from shared.clock import Clock
from shared.errors import TooMany

_FAILURES = 5
_WINDOW_MS = 60_000
_REMEMBERED = 10_000


class Throttle:
    """Five failures a minute for each e-mail and for each address; the oldest are forgotten beyond ten thousand."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[Hashable, list[int]] = OrderedDict()

    def check(self, *who: Hashable) -> None:
        """Raise `TooMany` when one of `who` has failed too often lately."""
        now = self._clock.ms()
        for one in who:
            recent = [at for at in self._failures.get(one, ()) if at > now - _WINDOW_MS]
            if len(recent) >= _FAILURES:
                raise TooMany(
                    "Too many failed logins; wait a minute", retry_after=(recent[0] + _WINDOW_MS - now) / 1000
                )

    def failed(self, *who: Hashable) -> None:
        """Note a failure of each of `who`."""
        now = self._clock.ms()
        for one in who:
            recent = [at for at in self._failures.pop(one, ()) if at > now - _WINDOW_MS]
            self._failures[one] = [*recent, now][-_FAILURES:]
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)
