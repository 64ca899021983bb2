"""Tasks that must not end: run again when they fail, pausing longer each time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic
from typing import NoReturn

import structlog
from prometheus_client import Counter

from shared.errors import ZdmError

logger = structlog.get_logger()

_FAILURES = Counter("zdm_worker_failures_total", "Workers that failed and were started again", ["worker"])

# A run this long counts as a recovery: the next failure starts again with the shortest pause.
_RECOVERED_S = 30.0


def pauses(first_s: float = 0.5, longest_s: float = 30.0) -> Iterator[float]:
    """Doubling pauses, each shortened by up to a quarter at random so that many do not move in step."""
    pause = first_s
    while True:
        yield pause * random.uniform(0.75, 1.0)
        pause = min(pause * 2, longest_s)


async def keep_running(name: str, run: Callable[[], Awaitable[None]]) -> NoReturn:
    """Run for ever; only cancellation ends it. Failures are logged, counted and followed by a pause."""
    waiting = pauses()
    while True:
        began = monotonic()
        try:
            await run()
            logger.error("worker_ended", worker=name)
        except ZdmError as error:
            # Expected ones: something that it needs is away. One line, no traceback.
            logger.warning("worker_waits", worker=name, reason=error.message)
        except Exception:
            logger.exception("worker_failed", worker=name)
        _FAILURES.labels(name).inc()
        if monotonic() - began > _RECOVERED_S:
            waiting = pauses()
        await asyncio.sleep(next(waiting))
