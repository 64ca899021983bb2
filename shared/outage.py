"""Something that is away for a while: said once going and once coming."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import structlog

from shared.errors import Unavailable

logger = structlog.get_logger()

T = TypeVar("T")


class Outage:
    """Of `what`, a word for the log and for whoever asks what is being waited for."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._reason = ""

    def waiting_for(self) -> str:
        """Why it is away; empty when it is not."""
        return self._reason

    def goes_on(self, reason: str) -> None:
        """It does not answer."""
        if not self._reason:
            logger.warning("outage_began", of=self._what, reason=reason)
        self._reason = reason

    def is_over(self) -> None:
        """It answers."""
        if self._reason:
            logger.info("outage_ended", of=self._what)
        self._reason = ""

    async def outlast(
        self, attempt: Callable[[], Awaitable[T]], pauses: Iterator[float], failed: Callable[[], object] = lambda: None
    ) -> T:
        """What `attempt` gives, tried until it is no longer `Unavailable`; `failed` is called before each pause."""
        while True:
            try:
                result = await attempt()
            except Unavailable as error:
                self.goes_on(error.message)
                failed()
                await asyncio.sleep(next(pauses))
            else:
                self.is_over()
                return result
