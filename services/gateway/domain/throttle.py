"""How often a login may be tried before it has to wait."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping

from shared.clock import Clock
from shared.errors import TooMany

_WINDOW_MS = 60_000
_PER_ACCOUNT_AND_ADDRESS = 5
# One address may try many accounts, but not very many: offices share one.
_PER_ADDRESS = 30
_REMEMBERED = 20_000


class Throttle:
    """Attempts of the last minute, for an account from an address and for an address; successes do not count.

    An account is not limited over all addresses: then anybody could keep its owner out.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._attempts: OrderedDict[Hashable, list[int]] = OrderedDict()

    def attempt(self, email: str, address: str) -> None:
        """Note an attempt before it is judged, so that many at once do not slip through; raise `TooMany`."""
        now, limits = self._clock.ms(), _limits(email, address)
        for one, limit in limits.items():
            recent = self._recent(one, now)
            if len(recent) >= limit:
                wait_s = (recent[-limit] + _WINDOW_MS - now) / 1000
                raise TooMany("Too many failed logins; wait a minute", retry_after=wait_s)
        for one in limits:
            self._attempts[one] = [*self._recent(one, now), now]
            self._attempts.move_to_end(one)
        while len(self._attempts) > _REMEMBERED:
            self._attempts.popitem(last=False)

    def succeeded(self, email: str, address: str) -> None:
        """The attempt was right: the account's failures from there are forgiven, and it counts nowhere."""
        pair, host = _limits(email, address)
        self._attempts.pop(pair, None)
        if attempts := self._attempts.get(host):
            attempts.pop()

    def _recent(self, one: Hashable, now: int) -> list[int]:
        return [at for at in self._attempts.get(one, ()) if now - _WINDOW_MS < at <= now]


def _limits(email: str, address: str) -> Mapping[Hashable, int]:
    return {(email, address): _PER_ACCOUNT_AND_ADDRESS, address: _PER_ADDRESS}
