"""Devices' messages, presence and hand-overs: from the spool into the log, at least once and in order."""

from services.ingestion.domain.intake import Intake, sort_out, strangers
from services.ingestion.domain.ports import PatientLog, Spool
from services.ingestion.domain.records import Batch
from shared.clock import Clock
from shared.registry import Registry


class TakeIn:
    """Takes one batch after the other; the place is saved only once the log has it."""

    def __init__(self, spool: Spool, log: PatientLog, registry: Registry, clock: Clock) -> None:
        self._spool = spool
        self._log = log
        self._registry = registry
        self._clock = clock

    async def __call__(self, batch: Batch) -> Intake:
        """Raise `Unavailable` when the registry does not answer; then the batch is to be read again."""
        if strangers(batch, self._registry.devices):
            # Perhaps made a moment ago.
            await self._registry.settled()
        intake = sort_out(batch, self._registry.devices, self._clock.ms())
        await self._log.append(intake.appends)
        self._spool.done(batch.place)
        return intake
