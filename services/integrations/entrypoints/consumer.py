"""Data points from the log into the queues."""

from collections.abc import Sequence

import structlog

from services.integrations.domain.use_cases.enqueue import Enqueue, Placed
from services.integrations.entrypoints.dispatcher import Dispatcher
from services.integrations.metrics import REFUSED
from shared.errors import Refused
from shared.log import Log, StoredRecord
from shared.messages.devices import DataReceived
from shared.messages.topics import DATA

logger = structlog.get_logger()

GROUP = "integrations"
_BATCH = 2000


async def consume_data(log: Log, enqueue: Enqueue, dispatcher: Dispatcher) -> None:
    """Enqueue, commit, wake who has something to send. For ever."""
    await dispatcher.loaded.wait()
    async with log.subscribe(DATA, GROUP) as records:
        while True:
            batch = await records.fetch(_BATCH)
            grown = await enqueue(_placed(batch))
            await records.commit(batch)
            for lane in grown:
                dispatcher.wake(lane)


def _placed(batch: Sequence[StoredRecord]) -> list[Placed]:
    placed: list[Placed] = []
    for record in batch:
        try:
            point = DataReceived.decode(record.value or b"")
        except Refused as refusal:
            REFUSED.inc()
            logger.error("data_record_refused", partition=record.partition, offset=record.offset, reason=str(refusal))
        else:
            placed.append(Placed(record.partition, record.offset, point))
    return placed
