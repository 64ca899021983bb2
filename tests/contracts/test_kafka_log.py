"""The Kafka log keeps the promises of its port, and some of its own."""

import asyncio
import gc
import os
import secrets
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import count

import pytest
from aiokafka.partitioner import DefaultPartitioner
from structlog.testing import capture_logs

from shared.errors import TooLarge, Unavailable
from shared.log import FETCH_BYTES, Log, Record, StoredRecord, Topic
from shared.log.kafka import kafka_log, reading
from shared.log.kafka.address import parse
from shared.log.kafka.cluster import Cluster
from shared.log.kafka.wire import ChangeSettings
from shared.log.open import open_log
from tests.bench.processes import rss_mb
from tests.contracts.child import Child, child
from tests.contracts.log_promises import LogPromises, by_key, kept, numbered, take
from tests.support.kafka import Kafka, running_kafka
from tests.support.waiting import eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(240)]

_KEYS = [f"device-{number}" for number in range(24)]
_BACK_S = 180
# What the port allows is 5 s; the rest is for a busy machine.
_DEADLINE_S = 10


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with running_kafka(tmp_path_factory.mktemp("kafka")) as kafka:
        yield kafka


@pytest.fixture
def address(kafka: Kafka) -> str:
    return kafka.address


@pytest.fixture
async def log(address: str) -> AsyncIterator[Log]:
    async with open_log(address) as log:
        yield log


@pytest.fixture
def topic() -> Topic:
    return Topic(f"kafka.{secrets.token_hex(6)}.v1")


@asynccontextmanager
async def working(*runs: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """While the block runs; what fails in them fails here."""
    tasks = [asyncio.ensure_future(run()) for run in runs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


class TestKafkaLog(LogPromises):
    @pytest.fixture
    def address(self, kafka: Kafka) -> str:
        return kafka.address


# Partitions


async def test_keys_lie_where_the_other_clients_of_kafka_look_for_them(log: Log, topic: Topic) -> None:
    await log.append(topic, [record for key in _KEYS for record in numbered(key, range(3))])
    found = await kept(log, topic)
    assert by_key(found) == {key: [0, 1, 2] for key in _KEYS}
    partitioner = DefaultPartitioner()
    assert {record.key: record.partition for record in found} == {
        key: partitioner(key.encode(), list(range(6)), list(range(6))) for key in _KEYS
    }


async def test_a_topic_has_the_partitions_it_names_else_those_of_the_installation(address: str, topic: Topic) -> None:
    async with kafka_log(address, partitions=3) as log:
        for each, count in ((topic, 3), (Topic(f"{topic.name}.one", partitions=1), 1)):
            await log.append(each, [Record(key, b"1") for key in _KEYS])
            assert set(await log.end(each)) == set(range(count))


async def test_many_make_a_topic_at_once(address: str, topic: Topic) -> None:
    async with AsyncExitStack() as stack:
        logs = [await stack.enter_async_context(open_log(address)) for _ in range(5)]
        await asyncio.gather(*(one.append(topic, numbered(str(id(one)), range(3))) for one in logs))
        assert len(by_key(await kept(logs[0], topic))) == 5


# Topics


async def settings(kafka: Kafka, topic: Topic) -> dict[str, str]:
    said = await kafka.run(
        "/opt/kafka/bin/kafka-configs.sh", "--bootstrap-server", f"127.0.0.1:{kafka.port}",
        "--describe", "--topic", topic.name,
    )  # fmt: skip
    lines = [line.strip().split(" ")[0] for line in said.splitlines() if "sensitive=" in line]
    return dict(line.split("=", 1) for line in lines)


async def test_a_topic_is_kept_as_long_as_it_says_also_when_that_changes(kafka: Kafka, log: Log, topic: Topic) -> None:
    await log.end(topic)
    made = await settings(kafka, topic)
    assert (made["cleanup.policy"], made["retention.ms"]) == ("delete", str(7 * 24 * 3600 * 1000))
    async with open_log(kafka.address) as later:
        await later.end(topic._replace(retention_s=3600))
    assert await settings(kafka, topic) == made | {"retention.ms": "3600000"}


async def test_a_compacted_topic_is_told_so(kafka: Kafka, log: Log, topic: Topic) -> None:
    compacted = topic._replace(compacted=True)
    await log.end(compacted)
    made = await settings(kafka, compacted)
    assert (made["cleanup.policy"], made["delete.retention.ms"]) == ("compact", "86400000")


async def test_a_topic_that_was_deleted_and_made_anew_is_another(kafka: Kafka, log: Log, topic: Topic) -> None:
    await eventually(partial(appended, log, topic), within_s=30)
    identity = await log.identity(topic)
    await kafka.run(
        "/opt/kafka/bin/kafka-topics.sh", "--bootstrap-server", f"127.0.0.1:{kafka.port}",
        "--delete", "--topic", topic.name,
    )  # fmt: skip

    async def another() -> bool:
        with suppress(Unavailable):
            return await log.identity(topic) != identity
        return False

    await eventually(another, within_s=30)

    await eventually(partial(appended, log, topic), within_s=30)
    assert set(by_key(await kept(log, topic))["a"]) == {0}


# Sizes


async def test_the_largest_message_of_a_device_fits_also_among_others(log: Log, topic: Topic) -> None:
    large = b"\xff" * 1_800_000
    await log.append(topic, [Record("a", b"1"), Record("a", large), Record("a", b"2"), *numbered("b", range(2000))])
    async with log.subscribe(topic, "group") as member:
        found = await take(member, 2003)
    assert [record.value for record in found if record.key == "a"] == [b"1", large, b"2"]


async def test_a_batch_of_large_records_is_bounded_over_all_partitions(address: str, topic: Topic) -> None:
    async with kafka_log(address, partitions=24) as log:
        await log.append(topic, [Record(key, bytes(1_500_000)) for key in _KEYS])
        found: list[StoredRecord] = []
        async with log.replay(topic) as replay:
            await asyncio.sleep(1)  # for more to have come than may be handed out
            while len(found) < len(_KEYS):
                records = await replay.fetch()
                assert sum(len(record.value or b"") for record in records[:-1]) < FETCH_BYTES
                found += records
    assert sorted(record.key for record in found) == sorted(_KEYS)


async def test_what_is_too_large_is_refused_and_stops_nobody(log: Log, topic: Topic) -> None:
    with pytest.raises(TooLarge):
        await log.append(topic, [Record("a", b"1"), Record("a", bytes(5_000_000))])
    await log.append(topic, numbered("a", range(2)))
    assert by_key(await kept(log, topic)) == {"a": [0, 1]}


async def test_a_broker_that_takes_less_is_heard(address: str, log: Log, topic: Topic) -> None:
    await log.append(topic, numbered("a", range(1)))
    cluster = Cluster(parse(address), 6, 1)
    await cluster._ask(ChangeSettings(topic.name, {"max.message.bytes": "2000"}))
    await cluster.close()
    outcomes = await asyncio.gather(
        log.append(topic, [Record("a", bytes(100_000))]),
        *(log.append(topic, numbered("b", range(number, number + 1))) for number in range(5)),
        return_exceptions=True,
    )
    assert isinstance(outcomes[0], TooLarge)
    await log.append(topic, numbered("a", range(1, 3)))
    assert by_key(await kept(log, topic))["a"] == [0, 1, 2]


async def test_a_reader_holds_no_more_than_it_is_about_to_be_asked_for(log: Log, topic: Topic) -> None:
    for _ in range(12):
        await log.append(topic, [Record(key, secrets.token_bytes(400_000)) for key in _KEYS])
    before = rss_mb(os.getpid())
    async with log.subscribe(topic, "group") as member:
        await take(member, 1, limit=1)
        for _ in range(20):
            await member.fetch(1, wait_s=0.1)
            await asyncio.sleep(0.05)
        assert rss_mb(os.getpid()) - before < 60


# Groups


_CREW_BATCH = 200


class Crew:
    """Members that work with overlapping lives; notes what was done, and who was at it at the same time."""

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.done: list[StoredRecord] = []
        self.overlaps: list[int] = []
        self.by_member: Counter[int] = Counter()
        self._busy: set[int] = set()

    async def work(self, log: Log, number: int) -> None:
        async with log.subscribe(self.topic, "crew") as member:
            while True:
                records = await member.fetch(_CREW_BATCH, wait_s=0.2)
                partitions = {record.partition for record in records}
                self.overlaps += self._busy & partitions
                self._busy |= partitions
                try:
                    await asyncio.sleep(0.3)  # long enough for another to come for the partitions meanwhile
                    self.done += records
                    await member.commit(records)
                finally:
                    self._busy -= partitions
                self.by_member[number] += len(records)


async def test_members_come_and_go_and_no_partition_is_worked_on_twice(address: str, log: Log, topic: Topic) -> None:
    crew, appended = Crew(topic), Counter[str]()

    async def append() -> None:
        while True:
            for key in _KEYS:
                await log.append(topic, numbered(key, range(appended[key], appended[key] + 3)))
                appended[key] += 3

    async with AsyncExitStack() as stack:
        logs = [await stack.enter_async_context(open_log(address)) for _ in range(3)]

        async def more(number: int, count: int = 200) -> None:
            target = crew.by_member[number] + count
            await eventually(lambda: _true(crew.by_member[number] >= target), within_s=30)

        async with working(lambda: crew.work(logs[0], 0)):
            async with working(append):
                await more(0)
                async with working(lambda: crew.work(logs[1], 1)):
                    await more(1)
                    async with working(lambda: crew.work(logs[2], 2)):
                        await more(2)
                    await more(1)
                await more(0)
            total = sum(appended.values())
            await eventually(lambda: _true(len({record[:2] for record in crew.done}) >= total), within_s=30)
    assert crew.overlaps == []
    numbers = by_key(crew.done)
    assert nothing_missing(numbers, appended)
    assert all(map(in_order, numbers.values()))
    # One that was told to end between its work and its commit leaves a batch to be done again.
    assert len(crew.done) <= sum(appended.values()) + 2 * _CREW_BATCH


async def _true(what: bool) -> bool:
    return what


async def test_two_processes_share_a_topic_and_one_takes_over_from_the_other(
    address: str, log: Log, topic: Topic
) -> None:
    appended = Counter[str]()
    said: defaultdict[int, Counter[str]] = defaultdict(Counter)

    async def listen(number: int, member: Child) -> None:
        while line := await member.line():
            said[number][line] += 1

    async def append() -> None:
        for number in count():
            await log.append(topic, [Record(key, b"%d" % number) for key in _KEYS[:12]])
            appended[str(number)] += 12
            await asyncio.sleep(0.05)  # they say each record, and commit every second one

    async with (
        child("consume", address, topic.name, "group", "1000000") as one,
        child("consume", address, topic.name, "group", "1000000") as two,
        working(partial(listen, 1, one), partial(listen, 2, two)),
    ):
        async with working(append):
            await eventually(lambda: _true(min(said[1].total(), said[2].total()) > 50), within_s=30)
            one.end()
            before = said[2].total()
            await eventually(lambda: _true(said[2].total() > before + 50), within_s=30)
        await eventually(lambda: _true(said[1] + said[2] >= appended), within_s=30)
    # What the killed one had said and not committed came twice: a batch of two. The last append was not waited for.
    assert (said[1] + said[2] - appended).total() <= 2 + 12


async def test_partitions_change_hands_after_the_batch_in_hand_is_committed(
    address: str, log: Log, topic: Topic
) -> None:
    first, second = numbered("", range(1)), numbered("", range(1, 2))
    await log.append(topic, [record._replace(key=key) for key in _KEYS for record in first])
    async with open_log(address) as other, log.subscribe(topic, "group") as holder:
        batch = await take(holder, len(_KEYS))
        async with other.subscribe(topic, "group") as successor:
            waiting = asyncio.create_task(take(successor, 1))
            assert not (await asyncio.wait([waiting], timeout=4))[0]
            await holder.commit(batch)
            await log.append(topic, [record._replace(key=key) for key in _KEYS for record in second])
            got = await waiting + await take(holder, 1)
    assert {record.value for record in got} == {b"1"}


async def test_a_batch_that_takes_too_long_is_anothers_and_cannot_be_committed_any_more(
    address: str, log: Log, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_HAND_OVER_S", 1.0)
    await log.append(topic, [record for key in _KEYS for record in numbered(key, range(4))])
    async with open_log(address) as other, log.subscribe(topic, "group") as slow:
        batch = await take(slow, len(_KEYS) * 4)
        async with other.subscribe(topic, "group") as successor:
            got = await take(successor, 1)
            await successor.commit(got)
            with pytest.raises(Unavailable, match="Another member"):
                await slow.commit(batch)
            # It may go on with what it has now.
            rest = await take(
                successor, len([r for r in batch if r.partition in {g.partition for g in got}]) - len(got)
            )
            await successor.commit(rest)
        assert {r.partition for r in got + rest} < {r.partition for r in batch}


async def test_a_killed_member_is_replaced_within_seconds(address: str, log: Log, topic: Topic) -> None:
    await log.append(topic, numbered("a", range(8)))
    async with (
        child("consume", address, topic.name, "group", "1") as holder,
        log.subscribe(topic, "group") as successor,
    ):
        await holder.line()
        loop = asyncio.get_running_loop()
        await holder.kill()
        began = loop.time()
        await take(successor, 6)
    assert loop.time() - began < 15


async def test_one_that_leaves_is_replaced_at_once(log: Log, topic: Topic) -> None:
    single = topic._replace(partitions=1)
    await log.append(single, numbered("a", range(3)))
    loop = asyncio.get_running_loop()
    async with log.subscribe(single, "group") as successor:
        async with log.subscribe(single, "group") as holder:
            await take(holder, 3)
        began = loop.time()
        await take(successor, 3)
    assert loop.time() - began < 5


async def test_a_reading_that_has_gone_silent_ends_with_an_error(
    log: Log, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_WATCH_EVERY_S", 0.2)
    await log.append(topic, numbered("a", range(3)))
    async with log.subscribe(topic, "group") as member:
        await member.commit(await take(member, 3))
        # While nothing comes, all is well.
        assert await member.fetch(wait_s=1.5) == []
        assert isinstance(member, reading.MemberReading)
        assert member._consumer is not None
        member._consumer.pause(*member._consumer.assignment())
        await log.append(topic, numbered("a", range(3, 5)))
        with pytest.raises(Unavailable, match="stands still"):
            await take(member, 1)
    async with log.subscribe(topic, "group") as member:
        assert by_key(await take(member, 2)) == {"a": [3, 4]}


# Outages


async def in_time(action: Awaitable[object]) -> None:
    """It says that the log cannot be reached, and does so within its deadline."""
    async with asyncio.timeout(_DEADLINE_S):
        with pytest.raises(Unavailable):
            await action


async def refused_in_time(log: Log, topic: Topic) -> None:
    """Whatever is asked."""

    async def join() -> None:
        async with log.subscribe(topic, "another") as member:
            await member.fetch(wait_s=1)

    async def replay() -> None:
        async with log.replay(topic) as replay:
            await replay.fetch(wait_s=1)

    await asyncio.gather(
        in_time(log.append(topic, numbered("lost", range(1)))),
        in_time(log.end(topic)),
        in_time(log.identity(topic)),
        in_time(log.ping()),
        in_time(log.append(Topic(f"{topic.name}.new"), numbered("lost", range(1)))),
        in_time(join()),
        in_time(replay()),
    )


async def appended(log: Log, topic: Topic) -> bool:
    """Whether it takes a record now."""
    with suppress(Unavailable):
        await log.append(topic, numbered("a", range(1)))
        return True
    return False


async def append_on(log: Log, topic: Topic, appended: Counter[str]) -> None:
    """For ever, each batch until it is taken."""
    while True:
        for key in _KEYS[:4]:
            batch = numbered(key, range(appended[key], appended[key] + 5))
            while True:
                with suppress(Unavailable):
                    await log.append(topic, batch)
                    break
            appended[key] += 5


async def read_on(log: Log, topic: Topic, found: list[StoredRecord]) -> None:
    """For ever, as a worker does that is started again when it fails."""
    while True:
        with suppress(Unavailable):
            async with log.subscribe(topic, "worker") as member:
                while True:
                    records = await member.fetch()
                    # First the work: a commit that was not answered may have been heard.
                    found += records
                    await member.commit(records)
        await asyncio.sleep(0.2)


def nothing_missing(numbers: dict[str, list[int]], appended: Counter[str]) -> bool:
    """What was appended is there; more may be, of an append that was not waited for."""
    return all(set(range(count)) <= set(numbers[key]) for key, count in appended.items())


def in_order(numbers: list[int]) -> bool:
    """Whether each was read after its predecessors; repeats may come."""
    highest = -1
    for number in numbers:
        if number > highest + 1:
            return False
        highest = max(highest, number)
    return True


async def survives(
    kafka: Kafka, topic: Topic, caplog: pytest.LogCaptureFixture, outage: Callable[[Log], Awaitable[None]]
) -> None:
    """Nothing is lost by it nor out of order, and nobody shouts: who watches the log says that it is away."""
    appended, found = Counter[str](), list[StoredRecord]()
    with capture_logs() as said:
        async with open_log(kafka.address) as log, working(lambda: read_on(log, topic, found)):
            async with working(lambda: append_on(log, topic, appended)):
                await eventually(lambda: _true(len(found) > 100), within_s=30)
                await outage(log)
                seen = len(found)
                await eventually(lambda: _true(len(found) > seen + 100), within_s=_BACK_S)
            await eventually(
                lambda: _true(all(by_key(found)[k][-1] >= n - 1 for k, n in appended.items())), within_s=30
            )
    numbers = by_key(found)
    assert nothing_missing(numbers, appended)
    assert all(in_order(each) for key, each in numbers.items() if key != "lost")
    assert [one for one in said if one["log_level"] in ("warning", "error")] == []
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.mark.timeout(400)
async def test_a_kafka_that_hangs_for_a_while_costs_nothing(
    kafka: Kafka, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    async def hangs(log: Log) -> None:
        await kafka.pause()
        try:
            began = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() - began < 20:
                await refused_in_time(log, topic)
        finally:
            await kafka.unpause()

    await survives(kafka, topic, caplog, hangs)


@pytest.mark.timeout(400)
async def test_a_kafka_that_is_killed_and_started_again_costs_nothing(
    kafka: Kafka, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    async def killed(log: Log) -> None:
        await kafka.kill()
        try:
            await refused_in_time(log, topic)
            before = rss_mb(os.getpid())
            await refused_in_time(log, topic)
            assert rss_mb(os.getpid()) - before < 20
        finally:
            await kafka.start()

    await survives(kafka, topic, caplog, killed)


@pytest.mark.timeout(400)
async def test_a_kafka_that_is_away_at_the_start_is_found_when_it_comes(kafka: Kafka, topic: Topic) -> None:
    await kafka.stop()
    try:
        async with open_log(kafka.address) as log:
            await refused_in_time(log, topic)
            await kafka.start()

            await eventually(partial(appended, log, topic), within_s=_BACK_S)
            async with log.subscribe(topic, "group") as member:
                assert "a" in by_key(await take(member, 1))
    finally:
        await kafka.start()


# Access


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_kafka_is_reached_with_tls_and_credentials(kafka: Kafka, topic: Topic, mechanism: str) -> None:
    if mechanism != "PLAIN":
        await kafka.run(
            "/opt/kafka/bin/kafka-configs.sh", "--bootstrap-server", f"127.0.0.1:{kafka.port}", "--alter",
            "--add-config", f"{mechanism}=[password={kafka.SECRET}]", "--entity-type", "users",
            "--entity-name", kafka.USER,
        )  # fmt: skip
    async with open_log(kafka.secure_address(mechanism)) as log:
        await log.append(topic, numbered("a", range(3)))
        async with log.subscribe(topic, "group") as member:
            assert by_key(await take(member, 3)) == {"a": [0, 1, 2]}


async def test_wrong_credentials_and_unknown_certificates_are_told_without_the_secret(
    kafka: Kafka, topic: Topic, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = kafka.secure_address("PLAIN").replace(":s%40", ":wrongsecret%40")
    for address in (wrong, kafka.secure_address("PLAIN").replace("&ca=", "&sasl=PLAIN#").partition("#")[0]):
        async with open_log(address) as log:
            with pytest.raises(Unavailable) as told:
                await log.append(topic, numbered("a", range(1)))
        assert "secret" not in str(told.value) + repr(told.value.__cause__)
    assert "secret" not in "".join(capfd.readouterr())
