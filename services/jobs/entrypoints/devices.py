"""The workers: one hears the devices, one forgets those that are gone."""

from base64 import b64encode
from collections import Counter
from collections.abc import Sequence

import structlog

from services.jobs import metrics
from services.jobs.domain.ports import Statuses
from services.jobs.domain.use_cases.hear_devices import HearDevices
from shared.clock import Clock
from shared.errors import Refused
from shared.log import Log, StoredRecord, Subscription
from shared.messages.devices import Rejected, UpReceived
from shared.messages.topics import REGISTRY, UP, rejected
from shared.registry import Registry

logger = structlog.get_logger()

GROUP = "jobs"
MALFORMED = "malformed"
_BATCH = 500


class Hearing:
    """Reads what devices say. A batch is committed once its statuses are kept and its answers are in the log."""

    def __init__(self, log: Log, registry: Registry, hear: HearDevices, clock: Clock) -> None:
        self._log = log
        self._registry = registry
        self._hear = hear
        self._clock = clock

    async def run(self) -> None:
        """For ever; what fails is read again."""
        await self._registry.ready.wait()
        async with self._log.subscribe(UP, GROUP) as records:
            while True:
                await self._step(records)

    async def _step(self, records: Subscription) -> None:
        if not (batch := await records.fetch(_BATCH)):
            return
        ups, refusals = self._decoded(batch)
        await self._log.append(rejected(UP), [refusal.record(refusal.device_id) for refusal in refusals])
        kinds = await self._hear(ups)
        await records.commit(batch)
        _count(kinds + Counter({MALFORMED: len(refusals)}))

    def _decoded(self, batch: Sequence[StoredRecord]) -> tuple[list[UpReceived], list[Rejected]]:
        ups, refusals = [], []
        for record in batch:
            try:
                ups.append(UpReceived.decode(record.value or b""))
            except Refused as refusal:
                refusals.append(self._refusal(record, refusal))
        return ups, refusals

    def _refusal(self, record: StoredRecord, refusal: Refused) -> Rejected:
        return Rejected(
            id=f"{UP.name}-{record.partition}-{record.offset}",
            device_id=record.key,
            reason=MALFORMED,
            message=refusal.message,
            topic=UP.name,
            at=self._clock.ms(),
            payload_base64=b64encode(record.value or b"").decode(),
        )


def _count(kinds: Counter[str]) -> None:
    for kind, number in kinds.items():
        metrics.UPS.labels(kind).inc(number)
    if kinds["unknown_request"]:
        logger.info("unknown_requests_ignored", count=kinds["unknown_request"])


class Forgetting:
    """Deletes the status of devices that were deleted."""

    def __init__(self, log: Log, registry: Registry, statuses: Statuses) -> None:
        self._log = log
        self._registry = registry
        self._statuses = statuses

    async def run(self) -> None:
        """For ever; what fails is read again."""
        async with self._log.subscribe(REGISTRY, GROUP) as records:
            while True:
                await self._step(records)

    async def _step(self, records: Subscription) -> None:
        batch = await records.fetch(_BATCH)
        if gone := [record.key for record in batch if record.value is None]:
            # First let `Hearing` know that they are gone, so that a late message does not bring them back.
            await self._registry.settled()
            await self._statuses.forget(gone)
            metrics.FORGOTTEN.inc(len(gone))
        await records.commit(batch)
