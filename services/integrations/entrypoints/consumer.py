"""Data points from the log into the queues."""

from collections.abc import Sequence

import structlog

from services.integrations.domain.queue import number_of, source_of
from services.integrations.domain.use_cases.enqueue import Enqueue, Placed
from services.integrations.entrypoints.dispatcher import Dispatcher
from services.integrations.metrics import REFUSED
from shared.errors import Refused
from shared.log import Log, StoredRecord, after
from shared.messages.devices import DataReceived
from shared.messages.topics import DATA

logger = structlog.get_logger()

GROUP = "integrations"
_BATCH = 2000
_TYPES = (str, str, str, str, str, str, int, int, str)


async def consume_data(log: Log, enqueue: Enqueue, dispatcher: Dispatcher) -> None:
    """Enqueue, commit, wake who has something to send. For ever."""
    await dispatcher.loaded.wait()
    identity, places = await log.identity(DATA), dict[int, int]()
    async with log.subscribe(DATA, GROUP) as records:
        while True:
            batch = await records.fetch(_BATCH)
            # Going back, they come once more, or from a log made anew.
            if any(record.offset <= places.get(record.partition, record.offset) for record in batch):
                identity = await log.identity(DATA)
            places = after(batch, places)
            grown = await enqueue(_placed(identity, batch))
            await records.commit(batch)
            for lane in grown:
                dispatcher.wake(lane)


def _placed(log: str, batch: Sequence[StoredRecord]) -> list[Placed]:
    sources = {partition: source_of(log, partition) for partition in {record.partition for record in batch}}
    placed: list[Placed] = []
    for record in batch:
        try:
            placed.append(_point(sources[record.partition], record.offset, record.value or b""))
        except Refused as refusal:
            REFUSED.inc()
            logger.error("data_record_refused", partition=record.partition, offset=record.offset, reason=str(refusal))
    return placed


def _point(source: str, offset: int, value: bytes) -> Placed:
    """Raise `Refused` for what could not be queued, so that it holds up nothing that comes after it."""
    point = DataReceived.decode(value)
    if not all(map(isinstance, point, _TYPES)):
        raise Refused("not a DataReceived: a member is of the wrong type")
    return Placed(source, offset, *number_of(point.id), point)
