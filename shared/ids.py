"""Identifiers: a prefix and twelve characters that sort by age (spec: glossary 2)."""

import secrets

from shared.clock import Clock, SystemClock

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_LENGTH = 12
# 2015-06-23T00:00:00Z, the origin of the ids that the original made.
_ORIGIN_MS = 1_435_017_600_000
_LOW_BITS = 22


class Ids:
    """Makes ids that are unique within this process and, by 22 random bits a millisecond, practically so elsewhere."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0

    def new(self, prefix: str) -> str:
        """`prefix` and twelve of `0-9a-z`; later ids sort after earlier ones of this process."""
        stamped = (self._clock.ms() - _ORIGIN_MS) << _LOW_BITS | secrets.randbits(_LOW_BITS)
        self._last = max(stamped, self._last + 1)
        return prefix + _base36(self._last)


def _base36(number: int) -> str:
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def system_ids() -> Ids:
    """Ids stamped by the machine's clock."""
    return Ids(SystemClock())
