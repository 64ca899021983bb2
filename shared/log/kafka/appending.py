"""The way into Kafka: one idempotent producer, and a lane for each partition that sends one batch after the other."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from shared.errors import TooLarge, Unavailable, ZdmError
from shared.log import Record, Topic
from shared.log.kafka.address import Access
from shared.log.kafka.cluster import ANSWER_S, MESSAGE_LIMIT, Cluster
from shared.log.kafka.errors import translated

_DEADLINE_S = 4.8
_CLOSE_S = 5.0
# Below what a broker takes by default, whatever the topic was made with.
_BATCH_BYTES = 512 * 1024
_GROUP_RECORDS = 1000
_RECORD_LIMIT = MESSAGE_LIMIT - 64 * 1024  # room for its key and for what surrounds it
_KEYS_LIMIT = 100_000


class Appending:
    """Appends of all topics."""

    def __init__(self, access: Access, cluster: Cluster) -> None:
        self._cluster = cluster
        self._producers = _Producers(access)
        self._lanes: dict[tuple[str, int], _Lane] = {}
        # Where keys lie, by the number of partitions: hashing one in Python costs more than all else.
        self._known: defaultdict[int, dict[str, int]] = defaultdict(dict)

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        """Durable when this returns; raise `TooLarge`, `Unavailable`."""
        if not records:
            return
        accepted: list[tuple[_Lane, asyncio.Future[None]]] = []
        try:
            async with asyncio.timeout(_DEADLINE_S):
                count = len((await self._cluster.made(topic)).leaders)
                for partition, part in self._parted(records, count).items():
                    lane = self._lane(topic, partition)
                    accepted.append((lane, lane.put(part)))
                await asyncio.wait([each for _, each in accepted])
        except TimeoutError:
            self._cluster.forget(topic)
            raise Unavailable("Kafka took no records in time") from None
        finally:
            for lane, each in accepted:
                lane.forget(each)
        if errors := [error for _, each in accepted if (error := each.exception()) is not None]:
            self._cluster.forget(topic)
            raise errors[0]

    async def close(self) -> None:
        """End; what is not durable by now has been promised to nobody."""
        for lane in self._lanes.values():
            lane.close()
        await self._producers.close()

    def _parted(self, records: Sequence[Record], count: int) -> Mapping[int, Sequence[Record]]:
        if (largest := max((len(record.value) for record in records if record.value), default=0)) > _RECORD_LIMIT:
            raise TooLarge(f"A record of {largest} bytes is more than the log takes")
        if count == 1:
            return {0: records}
        known = self._known[count]
        parts: defaultdict[int, list[Record]] = defaultdict(list)
        for record in records:
            if (partition := known.get(record.key)) is None:
                if len(known) >= _KEYS_LIMIT:
                    known.clear()
                partition = known[record.key] = partition_of(record.key, count)
            parts[partition].append(record)
        return parts

    def _lane(self, topic: Topic, partition: int) -> "_Lane":
        if (lane := self._lanes.get((topic.name, partition))) is None:

            async def send(records: Sequence[Record]) -> None:
                await self._producers.send(topic.name, partition, records)

            lane = self._lanes[topic.name, partition] = _Lane(f"{topic.name}-{partition}", send)
        return lane


def partition_of(key: str, count: int) -> int:
    """Where Kafka's other clients would put it too."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % count)


class _Lane:
    """What waits goes together; the next is sent when that is done, so that nothing overtakes what came before it."""

    def __init__(self, name: str, send: Callable[[Sequence[Record]], Awaitable[None]]) -> None:
        self._name = name
        self._send = send
        self._waiting: dict[asyncio.Future[None], Sequence[Record]] = {}
        self._sending: asyncio.Task[None] | None = None

    def put(self, records: Sequence[Record]) -> "asyncio.Future[None]":
        """Done when they are durable."""
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[accepted] = records
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name=f"append {self._name}")
        return accepted

    def forget(self, accepted: "asyncio.Future[None]") -> None:
        """Its owner waits no longer. What has been sent may be kept; what has not will never be sent."""
        self._waiting.pop(accepted, None)
        accepted.cancel()

    def close(self) -> None:
        """Send no more."""
        if self._sending is not None:
            self._sending.cancel()

    async def _send_all(self) -> None:
        while self._waiting:
            group = self._next_group()
            error = await self._outcome([record for _, records in group for record in records])
            for accepted, _ in group:
                if accepted.done():
                    continue
                if error is None:
                    accepted.set_result(None)
                else:
                    accepted.set_exception(error)

    def _next_group(self) -> list[tuple["asyncio.Future[None]", Sequence[Record]]]:
        group, count = [], 0
        while self._waiting and count < _GROUP_RECORDS:
            accepted = next(iter(self._waiting))
            group.append((accepted, self._waiting.pop(accepted)))
            count += len(group[-1][1])
        return group

    async def _outcome(self, records: Sequence[Record]) -> Exception | None:
        try:
            await self._send(records)
        except ZdmError as error:
            return error
        except Exception as error:  # noqa: BLE001 (whatever it is, those who wait for it are told)
            return error
        return None


class _Producers:
    """One producer at a time; replaced once a batch failed for good, since the numbers of its batches have a gap then.

    A batch that fails in passing is sent again by the driver, under its number: the broker takes each once, in order.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._retired: set[asyncio.Task[None]] = set()

    async def send(self, topic: str, partition: int, records: Sequence[Record]) -> None:
        """In order and as few batches; each is acknowledged before the next goes. However long Kafka is away."""
        producer = await self._started()
        try:
            with translated():
                for batch in _batches(producer, records):
                    await (await producer.send_batch(batch, topic, partition=partition))
        except Exception:
            self._retire(producer)
            raise

    async def close(self) -> None:
        """Hang up, without waiting for what nobody waits for."""
        if self._producer is not None:
            self._retire(self._producer)
        if self._retired:
            _, late = await asyncio.wait(self._retired, timeout=_CLOSE_S)
            for task in late:
                task.cancel()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = _new_producer(self._access)
                try:
                    with translated():
                        async with asyncio.timeout(ANSWER_S):
                            await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
        return self._producer

    def _retire(self, producer: AIOKafkaProducer) -> None:
        if self._producer is producer:
            self._producer = None
            # Other lanes may have batches on their way with it.
            task = asyncio.create_task(_stopped(producer), name="retired producer")
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)


async def _stopped(producer: AIOKafkaProducer) -> None:
    with suppress(Exception):
        await producer.stop()


def _new_producer(access: Access) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=list(access.servers),
        client_id="zdm",
        enable_idempotence=True,
        acks="all",
        max_batch_size=_BATCH_BYTES,
        request_timeout_ms=int(ANSWER_S * 1000),
        retry_backoff_ms=250,
        metadata_max_age_ms=30_000,
        **access.options,
    )


def _batches(producer: AIOKafkaProducer, records: Sequence[Record]) -> Iterator[Any]:
    now = int(time.time() * 1000)
    batch = producer.create_batch()
    append = batch.append
    for key, value in records:
        encoded = key.encode()
        if append(timestamp=now, key=encoded, value=value) is None:
            yield batch
            batch = producer.create_batch()
            append = batch.append
            append(timestamp=now, key=encoded, value=value)
    yield batch
