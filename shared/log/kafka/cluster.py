"""What is asked of the cluster as a whole: whether it is there, its topics, where they begin and end."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from typing import Any, NamedTuple

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest
from aiokafka.protocol.api import Request
from aiokafka.protocol.offset import OffsetRequest

from shared.errors import Unavailable
from shared.log import Topic
from shared.log.kafka.address import Access
from shared.log.kafka.errors import check, translated
from shared.log.kafka.wire import TOPIC, ChangeSettings, DescribeTopics

logger = structlog.get_logger()

ANSWER_S = 3.0
# The driver gives up first, since it tidies up less well when it is interrupted.
_REQUEST_S = 2.5
_HEARD_S = 2.0
_LOOK_S = 0.05
_DAY_S = 24 * 3600

_LATEST, _EARLIEST = -1, -2
_NO_LEADER = -1

# The largest message a device may send, as it grows in a `Rejected`, is less than half of this.
MESSAGE_LIMIT = 4 * 1024 * 1024


class Layout(NamedTuple):
    """A topic as it is: `identity` is another one when it was deleted and made anew."""

    identity: str
    leaders: dict[int, int]


class Cluster:
    """Asks, each time within `ANSWER_S`; what takes several questions has no deadline of its own."""

    def __init__(self, access: Access, partitions: int, replication: int) -> None:
        self._access = access
        self._partitions = partitions
        self._replication = replication
        self._client: AIOKafkaClient | None = None
        self._starting = asyncio.Lock()
        self._making = asyncio.Lock()
        self._kept: dict[str, Layout] = {}
        self._heard_at = float("-inf")

    async def alive(self) -> None:
        """Raise `Unavailable` when Kafka does not answer now."""
        if asyncio.get_running_loop().time() - self._heard_at > _HEARD_S:
            await self._ask(DescribeTopics())

    async def made(self, topic: Topic) -> Layout:
        """`topic`, made when it is missing, its keeping brought into step with what `topic` says."""
        if (layout := self._kept.get(topic.name)) is not None:
            return layout
        async with self._making:
            if (layout := self._kept.get(topic.name)) is None:
                layout = await self._made(topic)
                self._kept[topic.name] = layout
        return layout

    def forget(self, topic: Topic) -> None:
        """Look again how it is when it is next asked for: it may have been deleted."""
        self._kept.pop(topic.name, None)

    async def now(self, topic: Topic) -> Layout:
        """`topic` as it is this moment."""
        await self.made(topic)
        if (layout := await self._described(topic)) is None:
            self.forget(topic)
            layout = await self.made(topic)
        return layout

    async def bounds(self, topic: Topic) -> dict[int, tuple[int, int]]:
        """Of each partition the first offset that is kept, and the one that comes next."""
        while True:
            leaders = (await self.now(topic)).leaders
            try:
                with translated():
                    first = await self._offsets(topic, leaders, _EARLIEST)
                    following = await self._offsets(topic, leaders, _LATEST)
            except Unavailable as error:
                # A leader that has just become one does not know it yet.
                if not isinstance(error.__cause__, NotLeaderForPartitionError):
                    raise
                await asyncio.sleep(_LOOK_S)
            else:
                return {partition: (first[partition], following[partition]) for partition in leaders}

    async def close(self) -> None:
        """Hang up."""
        if self._client is not None:
            client, self._client = self._client, None
            with suppress(KafkaError, OSError, TimeoutError):
                async with asyncio.timeout(ANSWER_S):
                    await client.close()

    async def _ask(self, request: Request, node: int | None = None) -> Any:
        try:
            with translated():
                async with asyncio.timeout(ANSWER_S):
                    client = await self._started()
                    answer = await client.send(client.get_random_node() if node is None else node, request)
        except Unavailable:
            # The next one finds its way from the addresses anew.
            await self.close()
            raise
        self._heard_at = asyncio.get_running_loop().time()
        return answer

    async def _started(self) -> AIOKafkaClient:
        async with self._starting:
            if self._client is None:
                client = new_client(self._access)
                try:
                    await client.bootstrap()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
        return self._client

    async def _made(self, topic: Topic) -> Layout:
        if (layout := await self._described(topic)) is not None:
            await self._bring_into_step(topic)
            return layout
        await self._create(topic)
        while True:
            if (layout := await self._described(topic)) is not None:
                return layout
            await asyncio.sleep(_LOOK_S)

    async def _described(self, topic: Topic) -> Layout | None:
        """None when there is no such topic, or when not all of it is there yet."""
        answer = await self._ask(DescribeTopics(topic.name))
        [(code, _name, identity, _internal, partitions, *_)] = answer.topics
        if code == UnknownTopicOrPartitionError.errno:
            return None
        with translated():
            check(code)
        leaders = {partition: leader for _code, partition, leader, *_ in partitions}
        return None if _NO_LEADER in leaders.values() else Layout(identity.hex(), dict(sorted(leaders.items())))

    async def _create(self, topic: Topic) -> None:
        partitions = topic.partitions or self._partitions
        settings = _keeping(topic) | _shape(topic, self._replication)
        wanted: tuple[Any, ...] = (topic.name, partitions, self._replication, [], list(settings.items()))
        answer = await self._ask(CreateTopicsRequest([wanted], int(ANSWER_S * 1000), False))
        [(_name, code, message)] = answer.topic_errors
        if code == TopicAlreadyExistsError.errno:
            return
        if code:
            raise Unavailable(f"Kafka does not make the topic {topic.name}: {message}")
        logger.info("topic_made", topic=topic.name, partitions=partitions, replication=self._replication)

    async def _bring_into_step(self, topic: Topic) -> None:
        """How long it keeps records, when this version or its settings say something else than the last."""
        wanted = _keeping(topic)
        answer = await self._ask(DescribeConfigsRequest([(TOPIC, topic.name, list(wanted))], False))
        [(code, _message, _kind, _name, entries)] = answer.resources
        present = {} if code else {name: value for name, value, *_ in entries}
        if differing := {name: value for name, value in wanted.items() if _differs(name, present.get(name), value)}:
            answer = await self._ask(ChangeSettings(topic.name, differing))
            code = answer.resources[0][0]
            logger.info("topic_changed", topic=topic.name, refused=bool(code), **_named(differing))

    async def _offsets(self, topic: Topic, leaders: dict[int, int], which: int) -> dict[int, int]:
        by_leader = defaultdict(list)
        for partition, leader in leaders.items():
            by_leader[leader].append((partition, which))
        answers = await asyncio.gather(
            *(self._ask(OffsetRequest(-1, 0, [(topic.name, asked)]), leader) for leader, asked in by_leader.items())
        )
        found = {}
        for answer in answers:
            for partition, code, _time, offset in answer.topics[0][1]:
                check(code)
                found[partition] = offset
        return found


def new_client(access: Access) -> AIOKafkaClient:
    """Not connected yet."""
    return AIOKafkaClient(
        bootstrap_servers=list(access.servers),
        client_id="zdm",
        request_timeout_ms=int(_REQUEST_S * 1000),
        **access.options,
    )


def _keeping(topic: Topic) -> dict[str, str]:
    """What is kept in step for topics that are there already."""
    if topic.compacted:
        return {"cleanup.policy": "compact", "max.message.bytes": str(MESSAGE_LIMIT)}
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(topic.retention_s * 1000),
        "max.message.bytes": str(MESSAGE_LIMIT),
    }


def _shape(topic: Topic, replication: int) -> dict[str, str]:
    """What a topic is made with, and its operators may change."""
    # Kafka forgets and compacts whole segments, and never the one it is writing.
    segment_s = _DAY_S if topic.compacted else min(_DAY_S, max(600, topic.retention_s // 10))
    shape = {
        "segment.ms": str(segment_s * 1000),
        # How long a record is kept goes by the broker's clock: one of ours that is wrong must not matter.
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": "2" if replication > 2 else "1",
    }
    if topic.compacted:
        shape |= {
            "segment.bytes": str(32 * 1024 * 1024),
            "min.cleanable.dirty.ratio": "0.2",
            "delete.retention.ms": str(_DAY_S * 1000),
        }
    return shape


def _differs(name: str, present: str | None, wanted: str) -> bool:
    if present is None:
        return False
    # Whoever allows more may.
    return int(present) < int(wanted) if name == "max.message.bytes" else present != wanted


def _named(settings: dict[str, str]) -> dict[str, str]:
    return {name.replace(".", "_"): value for name, value in settings.items()}
