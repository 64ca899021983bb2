"""What an answer of a receiver means for the batch (docs/protocols.md 5)."""

import random
from enum import Enum

# A refusal of who is asking or of the address, not of what is sent: to be mended by people, so it is tried again.
_NOT_ABOUT_CONTENT = frozenset({401, 403, 404, 405, 407, 408, 410, 421, 425, 429})
# How often the same batch is refused for its content before it counts as poisoned (spec: integrations 6).
POISONED_AFTER = 10
_RETRY_AFTER_LIMIT_S = 3600.0


class Verdict(Enum):
    """What to do next."""

    DELIVERED = "delivered"
    AGAIN = "again"
    REFUSED = "refused"


def verdict(status: int) -> Verdict:
    """2xx is success; a 4xx that speaks of the content is a refusal; all else is tried again, redirects included."""
    if 200 <= status < 300:
        return Verdict.DELIVERED
    if 400 <= status < 500 and status not in _NOT_ABOUT_CONTENT:
        return Verdict.REFUSED
    return Verdict.AGAIN


class BackOff:
    """Pauses that double from `first_s` to `longest_s`, each shortened at random by up to a quarter."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s

    @property
    def most_s(self) -> float:
        """No pause is longer."""
        return max(self._longest_s, _RETRY_AFTER_LIMIT_S)

    def pause(self, tries: int, asked_s: float | None) -> float:
        """Before the next try after `tries` failures; at least what the receiver asked for, an hour at most."""
        doubled = self._first_s * float(1 << min(tries - 1, 20))
        pause = min(doubled, self._longest_s) * random.uniform(0.75, 1.0)
        return max(pause, min(asked_s or 0.0, _RETRY_AFTER_LIMIT_S))
