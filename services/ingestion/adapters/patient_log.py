"""Appends that are tried again until the log takes them: what the spool holds can wait there, and nowhere else."""

import asyncio

from services.ingestion import metrics
from services.ingestion.domain.ports import Appends
from shared.errors import Unavailable
from shared.log import Log
from shared.outage import Outage
from shared.tasks import pauses

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0


class PatientAppends:
    """See `PatientLog`. Holds no more than the one batch it was given."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._outage = Outage("log")

    def waiting_for(self) -> str:
        """Empty unless an append is being tried again."""
        return self._outage.waiting_for()

    async def append(self, appends: Appends) -> None:
        """See the port; topics that took theirs are not asked again."""
        waiting = pauses(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        while appends := await self._refused(appends):
            metrics.LOG_WAITS.inc()
            await asyncio.sleep(next(waiting))
        self._outage.is_over()

    async def _refused(self, appends: Appends) -> Appends:
        """What is still to be appended."""
        outcomes = await asyncio.gather(
            *(self._log.append(topic, records) for topic, records in appends.items()), return_exceptions=True
        )
        left = {}
        for topic, outcome in zip(appends, outcomes, strict=True):
            if isinstance(outcome, Unavailable):
                self._outage.goes_on(outcome.message)
                left[topic] = appends[topic]
            elif isinstance(outcome, BaseException):
                raise outcome
        return left
