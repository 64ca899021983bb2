"""The worker that reads the spool."""

from collections import Counter

from services.ingestion import metrics
from services.ingestion.adapters.spool import SpoolFolder
from services.ingestion.domain.intake import Intake
from services.ingestion.domain.records import KINDS, Batch
from services.ingestion.domain.use_cases.take_in import TakeIn
from shared.registry import Registry


class Up:
    """Takes in for ever, while no other process does."""

    def __init__(self, spool: SpoolFolder, take_in: TakeIn, registry: Registry) -> None:
        self._spool = spool
        self._take_in = take_in
        self._registry = registry

    async def run(self) -> None:
        """On a failure the place is where the log had everything: what follows is read again."""
        await self._registry.ready.wait()
        async with self._spool.held():
            while True:
                batch = await self._spool.read()
                _count(batch, await self._take_in(batch))


def _count(batch: Batch, intake: Intake) -> None:
    metrics.BATCHES.inc()
    metrics.SEQUENCE.set(batch.place.sequence)
    metrics.MISSING.inc(batch.missing)
    for kind, number in Counter(record.kind for record in batch.records).items():
        metrics.RECORDS.labels(KINDS[kind]).inc(number)
    for topic, records in intake.appends.items():
        if not topic.name.endswith(".rejected"):
            metrics.APPENDED.labels(topic.name).inc(len(records))
    for (name, fault), number in intake.rejected.items():
        metrics.REJECTED.labels(name, fault).inc(number)
