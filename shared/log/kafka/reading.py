"""The ways out of Kafka: a member of a group, and a replay of one's own."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import IllegalStateError
from prometheus_client import Counter

from shared.errors import Unavailable
from shared.log import FETCH_BYTES, Places, StoredRecord, Topic
from shared.log.kafka.address import Access
from shared.log.kafka.cluster import ANSWER_S, Cluster
from shared.log.kafka.errors import in_time, translated

logger = structlog.get_logger()

_STALLED = Counter("zdm_log_readings_stalled_total", "Readings that stood still while their lag grew", ["topic"])
_LATE = Counter("zdm_log_hand_overs_late_total", "Partitions given away before their batch was committed", ["topic"])

_SLICE_S = 1.0
_COMMIT_S = 4.0

# One that is killed is missed after a session; six seconds are the least that a broker allows by default.
_SESSION_S = 6.0
_HEARTBEAT_S = 1.5
# A partition waits this long for the batch in hand, then goes to its new owner all the same.
_HAND_OVER_S = 10.0
_REBALANCE_S = _HAND_OVER_S + _COMMIT_S + 2
# Joining takes as long as the slowest member needs for its hand-over.
_REQUEST_S = _REBALANCE_S + 4

# What a consumer holds before it is asked for it: about a partition's share for each partition.
_PARTITION_BYTES = 1024 * 1024

_WATCH_EVERY_S = 10.0
_JOIN_S = 60.0


class Reading:
    """What a member and a replay have in common. Connected with the first fetch."""

    def __init__(self, access: Access, cluster: Cluster, topic: Topic) -> None:
        self._access = access
        self._cluster = cluster
        self._topic = topic
        self._consumer: AIOKafkaConsumer | None = None
        self._watch = Watch(cluster, topic)

    async def fetch(self, limit: int = 1000, wait_s: float = 1.0) -> Sequence[StoredRecord]:
        """See the port."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_s
        while True:
            left = max(0.0, deadline - loop.time())
            if records := await self._poll(limit, min(left, _SLICE_S)):
                self._watch.moved()
                return records
            # An empty answer of the driver's may mean that there is nothing, or nobody.
            await self._cluster.alive()
            await self._look()
            if loop.time() >= deadline:
                return []

    async def close(self) -> None:
        """Hang up."""
        if self._consumer is not None:
            with suppress(Exception):
                await self._consumer.stop()

    async def _poll(self, limit: int, wait_s: float) -> list[StoredRecord]:
        """What the driver has, or gets within `wait_s`."""
        consumer = await self._connected()
        try:
            with translated():
                # It has no deadline of its own while partitions change hands; cancelled, it has handed out nothing.
                async with asyncio.timeout(wait_s + _SLICE_S):
                    found = await consumer.getmany(timeout_ms=int(wait_s * 1000), max_records=limit)
        except Unavailable as error:
            if isinstance(error.__cause__, TimeoutError):
                return []
            raise
        return _taken(consumer, found)

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = self._new_consumer()
            try:
                with translated():
                    async with asyncio.timeout(ANSWER_S):
                        await consumer.start()
            except BaseException:
                await consumer.stop()
                raise
            self._begin(consumer)
            self._consumer = consumer
        return self._consumer

    async def _look(self) -> None:
        if self._consumer is not None:
            await self._watch.look(self._consumer)

    def _new_consumer(self) -> AIOKafkaConsumer:
        return _new_consumer(self._access)

    def _begin(self, consumer: AIOKafkaConsumer) -> None:
        raise NotImplementedError


class ReplayReading(Reading):
    """All partitions, from given places."""

    def __init__(
        self, access: Access, cluster: Cluster, topic: Topic, partitions: Sequence[int], after: Places
    ) -> None:
        super().__init__(access, cluster, topic)
        self._partitions = partitions
        self._after = after

    def _begin(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign([TopicPartition(self._topic.name, partition) for partition in self._partitions])
        for partition, offset in self._after.items():
            if partition in self._partitions:
                consumer.seek(TopicPartition(self._topic.name, partition), offset + 1)


class MemberReading(Reading):
    """A member of a group, which joins with the first fetch.

    `_fetched` and `_done` are the places, in the partitions it holds, of what it has handed out since it got them and
    of what is committed. What lies beyond was handed out in an earlier holding, and is no longer its to commit.
    """

    def __init__(self, access: Access, cluster: Cluster, topic: Topic, group: str) -> None:
        super().__init__(access, cluster, topic)
        # No topic's name has an @: two pairs of topic and group never share a place. Members of other topics' readings
        # would be in each other's rebalances for nothing.
        self._group = f"{group}@{topic.name}"
        self._holding = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self._committing = asyncio.Lock()
        self._fetched: dict[int, int] = {}
        self._done: dict[int, int] = {}

    async def fetch(self, limit: int = 1000, wait_s: float = 1.0) -> Sequence[StoredRecord]:
        """See the port."""
        # Who asks for more has no batch in hand, committed or not.
        self._free.set()
        records = await super().fetch(limit, wait_s)
        for record in records:
            self._done.setdefault(record.partition, record.offset - 1)
            self._fetched[record.partition] = record.offset
        if records:
            self._free.clear()
        return records

    async def commit(self, records: Sequence[StoredRecord]) -> None:
        """See the port."""
        places: dict[int, int] = {}
        for record in records:
            places[record.partition] = max(record.offset, places.get(record.partition, -1))
        async with self._committing:
            if any(offset > self._fetched.get(partition, -1) for partition, offset in places.items()):
                raise Unavailable("Another member has got the partition meanwhile, and these records with it")
            await self._commit({p: offset for p, offset in places.items() if offset > self._done[p]})
        if self._done == self._fetched:
            self._free.set()

    async def close(self) -> None:
        """Let others have the partitions, at once."""
        self._free.set()
        await super().close()

    async def _commit(self, places: dict[int, int]) -> None:
        if not places:
            return
        offsets = {TopicPartition(self._topic.name, partition): offset + 1 for partition, offset in places.items()}
        with translated():
            async with asyncio.timeout(_COMMIT_S):
                consumer = await self._connected()
                await consumer.commit(offsets)
        self._done |= places

    async def _poll(self, limit: int, wait_s: float) -> list[StoredRecord]:
        await self._connected()
        if not self._holding.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._holding.wait()
            if not self._holding.is_set():
                return []
        return await super()._poll(limit, wait_s)

    async def _look(self) -> None:
        if self._holding.is_set():
            await super()._look()
        else:
            self._watch.joining()

    def _new_consumer(self) -> AIOKafkaConsumer:
        return _new_consumer(
            self._access,
            group_id=self._group,
            session_timeout_ms=int(_SESSION_S * 1000),
            heartbeat_interval_ms=int(_HEARTBEAT_S * 1000),
            rebalance_timeout_ms=int(_REBALANCE_S * 1000),
            # The driver's assignor remembers in its class what it holds: one class for each member.
            partition_assignment_strategy=[type("Sticky", (StickyPartitionAssignor,), {})],
        )

    def _begin(self, consumer: AIOKafkaConsumer) -> None:
        consumer.subscribe([self._topic.name], listener=_Listener(self))

    async def give_up(self) -> None:
        """Hand out no more; wait for the batch in hand, and let no later commit pass."""
        self._holding.clear()
        self._watch.moved()
        try:
            async with asyncio.timeout(_HAND_OVER_S):
                await self._free.wait()
        except TimeoutError:
            _LATE.labels(self._topic.name).inc()
            logger.warning("hand_over_late", topic=self._topic.name, group=self._group)
        async with self._committing:
            self._fetched.clear()
            self._done.clear()

    def hold(self, partitions: int) -> None:
        """Hand out what is in the partitions it has now."""
        logger.debug("partitions_held", topic=self._topic.name, group=self._group, partitions=partitions)
        self._holding.set()
        self._watch.moved()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, member: MemberReading) -> None:
        self._member = member

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await self._member.give_up()

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self._member.hold(len(assigned))


class Watch:
    """Notices a consumer that has gone silent: records come, and it stands still while it is asked for them."""

    def __init__(self, cluster: Cluster, topic: Topic) -> None:
        self._cluster = cluster
        self._topic = topic
        self._suspect: dict[TopicPartition, int] = {}
        self.moved()

    def moved(self) -> None:
        """All is well."""
        self._suspect = {}
        self._moved_at = self._looked_at = asyncio.get_running_loop().time()

    async def look(self, consumer: AIOKafkaConsumer) -> None:
        """Raise `Unavailable` when it has stood still between two looks while there was something to read."""
        now = asyncio.get_running_loop().time()
        if now - self._looked_at < _WATCH_EVERY_S:
            return
        self._looked_at = now
        before, self._suspect = self._suspect, await self._behind(consumer)
        if any(before.get(partition) == place for partition, place in self._suspect.items()):
            raise self._stalled("stands still although there are records to read")

    def joining(self) -> None:
        """Raise `Unavailable` when it has been finding its place in the group for too long."""
        if asyncio.get_running_loop().time() - self._moved_at > _JOIN_S:
            raise self._stalled("does not get into its group")

    def _stalled(self, how: str) -> Unavailable:
        _STALLED.labels(self._topic.name).inc()
        return Unavailable(f"A reading of {self._topic.name} {how}")

    async def _behind(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        async with in_time(ANSWER_S):
            bounds = await self._cluster.bounds(self._topic)
        behind = {}
        for partition in consumer.assignment():
            place = await _position(consumer, partition)
            if place < bounds.get(partition.partition, (0, 0))[1]:
                behind[partition] = place
        return behind


def _taken(consumer: AIOKafkaConsumer, found: dict[TopicPartition, list[ConsumerRecord]]) -> list[StoredRecord]:
    """What makes a batch; what would be too much comes again."""
    taken, size = [], 0
    for partition, records in found.items():
        for record in records:
            if size >= FETCH_BYTES:
                consumer.seek(partition, record.offset)
                break
            size += len(record.value or b"")
            taken.append(StoredRecord(record.partition, record.offset, _text(record.key), record.value))
    return taken


def _text(key: bytes | None) -> str:
    # We write a key always; others might not.
    return key.decode("utf-8", "replace") if key is not None else ""


async def _position(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int:
    """Where the consumer is; -1 while it does not know."""
    try:
        async with asyncio.timeout(_SLICE_S):
            return int(await consumer.position(partition))
    except (TimeoutError, IllegalStateError):
        return -1


def _new_consumer(access: Access, **membership: Any) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        bootstrap_servers=list(access.servers),
        client_id="zdm",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=_PARTITION_BYTES,
        fetch_max_bytes=FETCH_BYTES,
        request_timeout_ms=int(_REQUEST_S * 1000),
        metadata_max_age_ms=30_000,
        **membership,
        **access.options,
    )
