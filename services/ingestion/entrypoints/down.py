"""The worker that hands messages down to the broker."""

from collections import Counter

from services.ingestion import metrics
from services.ingestion.adapters.broker import DownLink
from services.ingestion.adapters.spool import SpoolFolder
from services.ingestion.domain.use_cases.hand_down import HandDown
from shared.log import Log, Subscription
from shared.messages.topics import DOWN

_BATCH = 500


class Down:
    """Hands down for ever, while this process is the one that reads the broker's spool."""

    def __init__(self, log: Log, group: str, spool: SpoolFolder, link: DownLink, hand_down: HandDown) -> None:
        self._log = log
        self._group = group
        self._spool = spool
        self._link = link
        self._hand_down = hand_down

    async def run(self) -> None:
        """A batch is committed after the broker's answer."""
        while True:
            # A second connection under the same name would throw the first one out.
            await self._spool.holding.wait()
            try:
                async with self._log.subscribe(DOWN, self._group) as records:
                    while self._spool.holding.is_set():
                        await self._step(records)
            finally:
                await self._link.close()

    async def _step(self, records: Subscription) -> None:
        await self._link.reach()
        if not (batch := await records.fetch(_BATCH)):
            return
        refused = await self._hand_down(batch)
        await records.commit(batch)
        metrics.SENT.inc(len(batch) - len(refused))
        for reason, number in Counter(refused).items():
            metrics.DOWN_REJECTED.labels(reason).inc(number)
