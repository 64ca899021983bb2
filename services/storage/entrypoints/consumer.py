"""Data points from the log into the store."""

from collections.abc import Sequence

import structlog

from services.storage.domain.ports import Points
from services.storage.metrics import REFUSED, REPEATED, STORED
from shared.errors import Refused
from shared.log import Log, StoredRecord
from shared.messages.devices import DataReceived
from shared.messages.topics import DATA

logger = structlog.get_logger()

GROUP = "storage"
_BATCH = 2000


async def consume_data(log: Log, points: Points) -> None:
    """Store, then commit. For ever."""
    async with log.subscribe(DATA, GROUP) as records:
        while True:
            batch = await records.fetch(_BATCH)
            received = _received(batch)
            if received:
                new = await points.add(received)
                STORED.inc(new)
                REPEATED.inc(len(received) - new)
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
