"""Waiting on conditions instead of sleeping."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T]], *, within_s: float = 10.0, every_s: float = 0.05) -> T:
    """The first truthy answer of `look`; an `AssertionError` with the last one when there was none in time."""
    deadline = asyncio.get_running_loop().time() + within_s
    while not (found := await look()):
        assert asyncio.get_running_loop().time() < deadline, f"still {found!r} after {within_s} s"
        await asyncio.sleep(every_s)
    return found
