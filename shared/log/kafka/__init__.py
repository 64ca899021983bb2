"""The log in Apache Kafka.

A topic's partitions share its keys by the hash that Kafka's own clients use; their number stays what it was when the
topic was made, or keys would change their partition and lose their order. Each pair of group and topic is a group of
Kafka's.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from aiokafka.errors import KafkaError

from shared.log import START, Places, Record, Replay, Subscription, Topic
from shared.log.kafka.address import Access, parse
from shared.log.kafka.appending import Appending
from shared.log.kafka.cluster import Cluster
from shared.log.kafka.errors import in_time
from shared.log.kafka.reading import MemberReading, Reading, ReplayReading

logger = structlog.get_logger()

_DEADLINE_S = 4.8
_LEAVE_S = 3.0
_CLOSE_S = 5.0
_PING = Topic("zdm.ping.v1", partitions=1, retention_s=3600)


class KafkaLog:
    """See `shared.log.Log`. Nothing connects before it is needed; what failed is tried anew when it is needed again."""

    def __init__(self, access: Access, cluster: Cluster, appending: Appending) -> None:
        self._access = access
        self._cluster = cluster
        self._appending = appending
        self._leaving: set[asyncio.Task[None]] = set()

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        """See the port."""
        await self._appending.append(topic, records)

    @asynccontextmanager
    async def subscribe(self, topic: Topic, group: str) -> AsyncIterator[Subscription]:
        """See the port."""
        async with in_time(_DEADLINE_S):
            await self._cluster.made(topic)
        member = MemberReading(self._access, self._cluster, topic, group)
        try:
            yield member
        finally:
            await self._left(member)

    @asynccontextmanager
    async def replay(self, topic: Topic, after: Places = START) -> AsyncIterator[Replay]:
        """See the port."""
        async with in_time(_DEADLINE_S):
            layout = await self._cluster.now(topic)
        reading = ReplayReading(self._access, self._cluster, topic, list(layout.leaders), after)
        try:
            yield reading
        finally:
            await self._left(reading)

    async def end(self, topic: Topic) -> Places:
        """See the port."""
        async with in_time(_DEADLINE_S):
            bounds = await self._cluster.bounds(topic)
        # The newest record is never compacted away: it lies in the segment that is being written.
        return {partition: following - 1 for partition, (first, following) in bounds.items() if first < following}

    async def identity(self, topic: Topic) -> str:
        """See the port."""
        async with in_time(_DEADLINE_S):
            return (await self._cluster.now(topic)).identity

    async def ping(self) -> None:
        """See the port."""
        await self._appending.append(_PING, [Record("ping", b"")])

    async def close(self) -> None:
        """Hang up everywhere."""
        await self._appending.close()
        if self._leaving:
            _, late = await asyncio.wait(self._leaving, timeout=_CLOSE_S)
            for task in late:
                task.cancel()
        await self._cluster.close()

    async def _left(self, reading: Reading) -> None:
        # While Kafka is away, or another member is slow to hand over, the driver takes longer than anyone should wait.
        task = asyncio.create_task(reading.close(), name="reading closes")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
        await asyncio.wait([task], timeout=_LEAVE_S)


@asynccontextmanager
async def kafka_log(address: str, partitions: int = 6, replication: int = 1) -> AsyncIterator[KafkaLog]:
    """The log at `address` (see `shared.log.kafka.address`); raise `WrongSetting` when it makes no sense.

    Topics that are missing are made with so many partitions, unless they say a number, and copies.
    """
    access = parse(address)
    _quieten()
    cluster = Cluster(access, partitions, replication)
    log = KafkaLog(access, cluster, Appending(access, cluster))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(log.close)
        yield log


class _Details(logging.Handler):
    """The driver says the same many times a second while Kafka is away. Its words are for debugging."""

    def emit(self, record: logging.LogRecord) -> None:
        logger.debug("kafka_driver", said=record.getMessage(), by=record.name)


class _Heard(logging.Filter):
    """The driver's own tasks and connections complain on asyncio's channel when nobody waits for them any longer."""

    def filter(self, record: logging.LogRecord) -> bool:
        unheard = record.exc_info is not None and isinstance(record.exc_info[1], KafkaError)
        return not (unheard or record.getMessage().startswith("Unclosed AIOKafka"))


def _quieten() -> None:
    driver = logging.getLogger("aiokafka")
    if not any(isinstance(handler, _Details) for handler in driver.handlers):
        driver.addHandler(_Details())
        driver.setLevel(logging.WARNING)
        driver.propagate = False
        logging.getLogger("asyncio").addFilter(_Heard())
