"""What every `Log` keeps, however many partitions it has: order is compared per key only."""

import asyncio
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest

from shared.log import FETCH_BYTES, START, Log, Places, Record, Replay, StoredRecord, Subscription, Topic, after
from shared.log.open import open_log
from tests.contracts.child import child
from tests.support.waiting import eventually

_LARGE = 900_000  # what a broker of Kafka's takes by default is a little more


def numbered(key: str, numbers: range) -> list[Record]:
    return [Record(key, b"%d" % number) for number in numbers]


def by_key(records: Sequence[StoredRecord]) -> dict[str, list[int]]:
    """The numbers under each key, in the order of reading."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for record in records:
        found[record.key].append(int(record.value or b"-1"))
    return dict(found)


async def take(reading: Subscription | Replay, count: int, limit: int = 1000) -> list[StoredRecord]:
    """The next `count` records, or a few more if the last batch brings them."""
    found: list[StoredRecord] = []

    async def enough() -> bool:
        found.extend(await reading.fetch(limit, wait_s=0.2))
        return len(found) >= count

    await eventually(enough, within_s=30, every_s=0)
    return found


async def nothing_comes(reading: Subscription | Replay) -> bool:
    """Whether a while without any record passes; a stand-by needs that long to hear that it has become a holder."""
    return not await reading.fetch(wait_s=0.6)


async def kept(log: Log, topic: Topic, after_: Places = START) -> list[StoredRecord]:
    """All that is in `topic` now, after `after_`."""
    places, end = after([], after_), await log.end(topic)
    found: list[StoredRecord] = []
    async with log.replay(topic, after_) as replay:
        while any(places.get(partition, -1) < offset for partition, offset in end.items()):
            records = await take(replay, 1)
            places = after(records, places)
            found += records
    return found


class LogPromises:
    """A subclass gives the address of a log."""

    @pytest.fixture
    def address(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def log(self, address: str) -> AsyncIterator[Log]:
        async with open_log(address) as log:
            yield log

    @pytest.fixture
    def topic(self) -> Topic:
        return Topic(f"contract.{secrets.token_hex(6)}.v1")

    @pytest.fixture
    def compacted(self) -> Topic:
        return Topic(f"contract.{secrets.token_hex(6)}.v1", compacted=True)

    # Appending

    async def test_records_of_one_key_are_read_in_the_order_of_appending(self, log: Log, topic: Topic) -> None:
        for start in range(0, 30, 3):
            await log.append(
                topic, [Record(key, b"%d" % number) for number in range(start, start + 3) for key in ("a", "b", "é")]
            )
        assert by_key(await kept(log, topic)) == {key: list(range(30)) for key in ("a", "b", "é")}

    @pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256)), b"\xff" * _LARGE], ids=len)
    async def test_a_record_comes_back_byte_for_byte(self, log: Log, topic: Topic, value: bytes) -> None:
        await log.append(topic, [Record("a key\0 of 'any' \U0001f9ea text", value)])
        assert [record[2:] for record in await kept(log, topic)] == [("a key\0 of 'any' \U0001f9ea text", value)]

    async def test_appending_nothing_does_nothing(self, log: Log, topic: Topic) -> None:
        await log.append(topic, [])
        assert await log.end(topic) == {}

    async def test_topics_are_apart(self, log: Log, topic: Topic) -> None:
        other = topic._replace(name=f"{topic.name}.rejected")
        await log.append(topic, numbered("a", range(3)))
        await log.append(other, numbered("a", range(3, 5)))
        assert by_key(await kept(log, topic)) == {"a": [0, 1, 2]}
        assert by_key(await kept(log, other)) == {"a": [3, 4]}

    async def test_concurrent_appenders_keep_the_order_of_each_key(self, address: str, log: Log, topic: Topic) -> None:
        async def appending(to: Log, key: str) -> None:
            for start in range(0, 100, 10):
                await to.append(topic, numbered(key, range(start, start + 10)))

        async with open_log(address) as other:
            await asyncio.gather(*(appending(to, f"{id(to)}-{number}") for to in (log, other) for number in range(10)))
        found = by_key(await kept(log, topic))
        assert len(found) == 20
        assert all(numbers == list(range(100)) for numbers in found.values())

    async def test_offsets_rise_and_are_not_used_twice_also_after_reopening(self, address: str, topic: Topic) -> None:
        for start in (0, 10):
            async with open_log(address) as log:
                await log.append(topic, numbered("a", range(start, start + 10)) + numbered("b", range(10)))
                found = await kept(log, topic)
        places = [record[:2] for record in found]
        assert len(set(places)) == len(places) == 40
        for partition in {record.partition for record in found}:
            offsets = [record.offset for record in found if record.partition == partition]
            assert offsets == sorted(offsets)

    async def test_what_is_appended_is_there_after_a_kill(self, address: str, topic: Topic) -> None:
        async with child("append", address, topic.name, "a") as appender:
            for _ in range(20):
                last = int(await appender.line())
            unread = await appender.kill()
        last = int(unread[-1]) if unread else last
        async with open_log(address) as log:
            numbers = by_key(await kept(log, topic))["a"]
            await log.append(topic, numbered("a", range(len(numbers), len(numbers) + 1)))
            assert by_key(await kept(log, topic))["a"] == list(range(len(numbers) + 1))
        assert len(numbers) > last

    async def test_two_processes_append_at_once(self, address: str, log: Log, topic: Topic) -> None:
        async with child("append", address, topic.name, "child") as appender:
            await appender.line()
            for number in range(30):
                await log.append(topic, numbered("parent", range(number, number + 1)))
            await appender.line()
            await appender.kill()
        found = by_key(await kept(log, topic))
        assert found["parent"] == list(range(30))
        assert found["child"] == list(range(len(found["child"])))

    # Fetching

    async def test_large_records_come_few_at_a_time_and_all_of_them_come(self, log: Log, topic: Topic) -> None:
        for number in range(12):
            await log.append(topic, [Record("a", b"%d" % number + bytes(_LARGE)), Record("b", bytes(_LARGE))])
        found: list[StoredRecord] = []
        async with log.replay(topic) as replay:
            while len(found) < 24:
                batch = await replay.fetch()
                assert sum(len(record.value or b"") for record in batch) < FETCH_BYTES + 2 * _LARGE
                found += batch
        numbers = [int((record.value or b"").rstrip(bytes(1))) for record in found if record.key == "a"]
        assert numbers == list(range(12))

    async def test_no_fetch_brings_more_than_its_limit_and_all_of_them_everything(self, log: Log, topic: Topic) -> None:
        await log.append(topic, numbered("a", range(2500)))
        async with log.replay(topic) as replay:
            found: list[StoredRecord] = []
            while len(found) < 2500:
                records = await replay.fetch(700)
                assert 0 < len(records) <= 700
                found += records
        assert by_key(found) == {"a": list(range(2500))}

    async def test_a_fetch_with_nothing_to_bring_is_empty(self, log: Log, topic: Topic) -> None:
        async with log.replay(topic) as replay, log.subscribe(topic, "group") as member:
            assert await replay.fetch(wait_s=0) == []
            assert await member.fetch(wait_s=0) == []
            assert await replay.fetch(wait_s=0.05) == []

    async def test_a_waiting_fetch_hears_of_an_append_also_by_another_process(self, address: str, topic: Topic) -> None:
        async with open_log(address) as log, open_log(address) as other, log.replay(topic) as replay:
            for number, appender in enumerate((log, other)):
                waiting = asyncio.create_task(replay.fetch(wait_s=30))
                await asyncio.sleep(0)
                await appender.append(topic, numbered("a", range(number, number + 1)))
                assert by_key(await waiting) == {"a": [number]}

    async def test_a_cancelled_fetch_loses_nothing(self, log: Log, topic: Topic) -> None:
        async with log.subscribe(topic, "group") as member:
            for number in range(5):
                fetching = asyncio.create_task(member.fetch(wait_s=30))
                await log.append(topic, numbered("a", range(number, number + 1)))
                fetching.cancel()
                await asyncio.gather(fetching, return_exceptions=True)
                if fetching.cancelled():
                    assert by_key(await take(member, 1)) == {"a": [number]}

    # Groups

    async def test_each_group_reads_everything_from_the_beginning(self, log: Log, topic: Topic) -> None:
        await log.append(topic, numbered("a", range(5)))
        async with log.subscribe(topic, "one") as one:
            records = await take(one, 5)
            assert by_key(records) == {"a": [0, 1, 2, 3, 4]}
            await one.commit(records)
            await log.append(topic, numbered("a", range(5, 7)))
            async with log.subscribe(topic, "two") as two:
                assert by_key(await take(two, 7)) == {"a": list(range(7))}
            assert by_key(await take(one, 2)) == {"a": [5, 6]}

    async def test_what_is_committed_does_not_come_again_and_what_is_not_does(self, address: str, topic: Topic) -> None:
        async with open_log(address) as log:
            await log.append(topic, numbered("a", range(10)))
            async with log.subscribe(topic, "group") as member:
                await member.commit(await take(member, 4, limit=4))
                assert by_key(await take(member, 3, limit=3)) == {"a": [4, 5, 6]}
            async with log.subscribe(topic, "group") as member:
                assert by_key(await take(member, 6)) == {"a": list(range(4, 10))}
        async with open_log(address) as log, log.subscribe(topic, "group") as member:
            await member.commit(await take(member, 6))
        async with open_log(address) as log, log.subscribe(topic, "group") as member:
            assert await nothing_comes(member)

    async def test_a_commit_covers_all_before_it(self, log: Log, topic: Topic) -> None:
        await log.append(topic, numbered("a", range(10)))
        async with log.subscribe(topic, "group") as member:
            records = await take(member, 10)
            await member.commit(records[6:7])
        async with log.subscribe(topic, "group") as member:
            assert by_key(await take(member, 3)) == {"a": [7, 8, 9]}

    async def test_a_late_commit_of_earlier_records_takes_nothing_back(self, log: Log, topic: Topic) -> None:
        await log.append(topic, numbered("a", range(10)))
        async with log.subscribe(topic, "group") as member:
            first, second = await take(member, 4, limit=4), await take(member, 4, limit=4)
            await member.commit(second)
            await member.commit(first)
            await member.commit([])
        async with log.subscribe(topic, "group") as member:
            assert by_key(await take(member, 2)) == {"a": [8, 9]}

    async def test_places_are_kept_by_group_and_topic_also_where_names_run_together(self, log: Log) -> None:
        name = f"contract.{secrets.token_hex(6)}"
        inner, outer = Topic(f"{name}.v1"), Topic(f"a.{name}.v1")
        for topic in (inner, outer):
            await log.append(topic, numbered("a", range(4)))
        pairs = [(inner, "group.a"), (outer, "group"), (inner, "group")]
        async with AsyncExitStack() as stack:
            members = [await stack.enter_async_context(log.subscribe(*pair)) for pair in pairs]
            for number, member in enumerate(members):
                await member.commit(await take(member, number + 1, limit=number + 1))
        for number, (topic, group) in enumerate(pairs):
            async with log.subscribe(topic, group) as member:
                assert by_key(await take(member, 3 - number)) == {"a": list(range(number + 1, 4))}

    async def test_only_one_member_holds_a_partition(self, address: str, topic: Topic) -> None:
        single = topic._replace(partitions=1)
        got: list[StoredRecord] = []

        async def working(member: Subscription) -> None:
            while True:
                records = await member.fetch(3, wait_s=0.2)
                await member.commit(records)
                got.extend(records)

        async with AsyncExitStack() as stack:
            logs = [await stack.enter_async_context(open_log(address)) for _ in range(2)]
            members = [await stack.enter_async_context(log.subscribe(single, "group")) for log in (*logs, logs[0])]
            tasks = [asyncio.create_task(working(member)) for member in members]
            for start in range(0, 100, 5):
                await logs[0].append(single, numbered("a", range(start, start + 5)))

            async def all_read() -> bool:
                return len(got) >= 100

            await eventually(all_read, within_s=30)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert by_key(got) == {"a": list(range(100))}

    async def test_a_stand_by_takes_over_from_one_that_leaves(self, log: Log, topic: Topic) -> None:
        single = topic._replace(partitions=1)
        await log.append(single, numbered("a", range(6)))
        async with log.subscribe(single, "group") as stand_by:
            async with log.subscribe(single, "group") as holder:
                await holder.commit(await take(holder, 2, limit=2))
                assert by_key(await take(holder, 2, limit=2)) == {"a": [2, 3]}
                assert await nothing_comes(stand_by)
            assert by_key(await take(stand_by, 4)) == {"a": [2, 3, 4, 5]}

    async def test_a_stand_by_takes_over_from_one_whose_process_is_killed(
        self, address: str, log: Log, topic: Topic
    ) -> None:
        await log.append(topic, numbered("a", range(8)))
        async with child("consume", address, topic.name, "group", "1") as holder:
            assert [await holder.line() for _ in range(4)] == ["0", "1", "2", "3"]
            async with log.subscribe(topic, "group") as stand_by:
                await holder.kill()
                # The first two were committed; the next two had been handed out, and no more.
                assert by_key(await take(stand_by, 6)) == {"a": list(range(2, 8))}

    # Replaying

    async def test_a_replay_reads_what_comes_after_a_place(self, log: Log, topic: Topic) -> None:
        await log.append(topic, numbered("a", range(10)) + numbered("b", range(10)))
        async with log.replay(topic) as replay:
            first = await take(replay, 8, limit=4)
            rest = await take(replay, 20 - len(first))
        again = await kept(log, topic, after(first))
        assert by_key(again) == by_key(rest)
        assert await kept(log, topic, after(rest, after(first))) == []

    async def test_a_replay_takes_nothing_from_groups_and_other_replays(self, log: Log, topic: Topic) -> None:
        await log.append(topic, numbered("a", range(4)))
        async with log.replay(topic) as one, log.replay(topic) as two, log.subscribe(topic, "group") as member:
            for reading in (one, two, member):
                assert by_key(await take(reading, 4)) == {"a": [0, 1, 2, 3]}

    async def test_the_end_is_the_place_of_the_newest_record(self, log: Log, topic: Topic) -> None:
        for number in range(3):
            await log.append(topic, numbered("a", range(number, number + 1)) + numbered("b", range(1)))
            assert await log.end(topic) == after(await kept(log, topic))
        async with log.replay(topic, await log.end(topic)) as replay:
            assert await replay.fetch(wait_s=0.05) == []
            await log.append(topic, numbered("a", range(3, 4)))
            assert by_key(await take(replay, 1)) == {"a": [3]}

    async def test_a_topic_keeps_its_identity(self, address: str, topic: Topic) -> None:
        identities = []
        for _ in range(2):
            async with open_log(address) as log:
                identities.append(await log.identity(topic))
                await log.append(topic, numbered("a", range(3)))
        assert identities[0] == identities[1] != ""

    # Compacted topics

    async def test_a_compacted_topic_keeps_the_last_record_of_each_key(self, log: Log, compacted: Topic) -> None:
        await log.append(compacted, [Record("a", b"1"), Record("b", b"1"), Record("a", b"2"), Record("gone", b"1")])
        await log.append(compacted, [Record("b", b"2"), Record("gone", None), Record("c", b"1")])
        await log.append(compacted, [Record("c", b"2")])
        last = {record.key: record.value for record in await kept(log, compacted)}
        assert {key: value for key, value in last.items() if value is not None} == {"a": b"2", "b": b"2", "c": b"2"}

    async def test_a_reader_of_a_compacted_topic_hears_that_a_key_is_forgotten(
        self, log: Log, compacted: Topic
    ) -> None:
        await log.append(compacted, [Record("a", b"1"), Record("b", b"1")])
        async with log.replay(compacted) as replay:
            await take(replay, 2)
            await log.append(compacted, [Record("a", None)])
            assert [record[2:] for record in await take(replay, 1)] == [("a", None)]
        await log.append(compacted, [Record("a", b"2")])
        assert {record.key: record.value for record in await kept(log, compacted)} == {"a": b"2", "b": b"1"}

    async def test_offsets_of_forgotten_records_are_not_used_again(self, address: str, compacted: Topic) -> None:
        async with open_log(address) as log:
            await log.append(compacted, [Record("a", b"1"), Record("a", b"2")])
            before = await log.end(compacted)
        async with open_log(address) as log:
            await log.append(compacted, [Record("a", None)])
            assert [record[2:] for record in await kept(log, compacted, before)] == [("a", None)]

    async def test_a_log_in_order_answers_a_ping(self, log: Log) -> None:
        await log.ping()
