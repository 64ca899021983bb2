"""A lost race: read and decide again."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from services.provisioning.domain.ports import Moved

T = TypeVar("T")

_ATTEMPTS = 10


async def again(attempt: Callable[[], Awaitable[T]]) -> T:
    """The outcome of `attempt`, which reads, decides and saves; raise `Moved` when it never wins."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(Moved):
            return await attempt()
    return await attempt()
