"""What drives storage: data points from the log into the store, and deletions that the registry tells of."""

from collections.abc import Sequence

import structlog

from services.storage.domain.ports import Points
from services.storage.domain.use_cases.keep_points import KeepPoints
from services.storage.metrics import FORGOTTEN, REFUSED, REPEATED, STORED
from shared.errors import Refused
from shared.log import Log, StoredRecord
from shared.messages.devices import DataReceived
from shared.messages.topics import DATA, REGISTRY

logger = structlog.get_logger()

GROUP = "storage"
_BATCH = 2000


async def consume_data(log: Log, keep: KeepPoints) -> None:
    """Store, then commit. For ever."""
    async with log.subscribe(DATA, GROUP) as records:
        while True:
            batch = await records.fetch(_BATCH)
            received = _received(batch)
            if received:
                kept = await keep(received)
                STORED.inc(kept.new)
                REPEATED.inc(len(received) - kept.new)
                FORGOTTEN.inc(kept.forgotten)
            await records.commit(batch)


async def consume_registry(log: Log, points: Points) -> None:
    """Forget what deleted devices and workspaces had, then commit. For ever."""
    async with log.subscribe(REGISTRY, GROUP) as records:
        while True:
            batch = await records.fetch(_BATCH)
            for record in batch:
                if record.value is None:
                    FORGOTTEN.inc(await points.forget(record.key))
            await records.commit(batch)


def _received(batch: Sequence[StoredRecord]) -> list[DataReceived]:
    received: list[DataReceived] = []
    for record in batch:
        try:
            received.append(DataReceived.decode(record.value or b""))
        except Refused as refusal:
            REFUSED.inc()
            logger.error("data_record_refused", partition=record.partition, offset=record.offset, reason=str(refusal))
    return received
