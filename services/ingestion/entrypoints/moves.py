"""The worker that hears of sessions at other brokers."""

from collections.abc import Iterator, Sequence

import structlog

from services.ingestion import metrics
from services.ingestion.adapters.spool import SpoolFolder
from services.ingestion.domain.use_cases.follow_moves import FollowMoves
from shared.errors import Refused
from shared.log import Log, StoredRecord, Subscription
from shared.messages.devices import PresenceChanged
from shared.messages.topics import PRESENCE

logger = structlog.get_logger()

# With the longest ids these still fit one publish on the control topic.
_BATCH = 2000


class Moves:
    """Follows for ever, while this process is the one that reads the broker's spool."""

    def __init__(self, log: Log, group: str, spool: SpoolFolder, follow: FollowMoves) -> None:
        self._log = log
        self._group = group
        self._spool = spool
        self._follow = follow

    async def run(self) -> None:
        """A batch is committed after the broker's answer."""
        while True:
            await self._spool.holding.wait()
            async with self._log.subscribe(PRESENCE, self._group) as records:
                while self._spool.holding.is_set():
                    await self._step(records)

    async def _step(self, records: Subscription) -> None:
        if not (batch := await records.fetch(_BATCH)):
            return
        metrics.MOVED.inc(await self._follow(list(_said(batch)), self._spool.identity()))
        await records.commit(batch)


def _said(batch: Sequence[StoredRecord]) -> Iterator[PresenceChanged]:
    for record in batch:
        try:
            yield PresenceChanged.decode(record.value or b"")
        except Refused as refusal:
            metrics.PRESENCE_REFUSED.inc()
            logger.error("record_refused", topic=PRESENCE.name, key=record.key, reason=refusal.message)
