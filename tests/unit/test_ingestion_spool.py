"""The reader of the spool: what comes out of a folder, whatever accidents happened to it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.ingestion import metrics
from services.ingestion.adapters.spool import SpoolFolder
from services.ingestion.domain.records import BROKER_STARTED, MALFORMED, Batch
from shared.frames import frame
from tests.support.spool import SPOOL_ID, SpoolWriter, Written, body, header


@asynccontextmanager
async def reading(folder: Path, block: int = 4096) -> AsyncIterator[SpoolFolder]:
    reader = SpoolFolder(folder, block)
    async with asyncio.timeout(10), reader.held():
        yield reader


async def take(reader: SpoolFolder, count: int) -> list[int]:
    """The sequence numbers of the next `count` records, each batch done with."""
    numbers: list[int] = []
    while len(numbers) < count:
        batch = await reader.read()
        numbers += [record.sequence for record in batch.records]
        reader.done(batch.place)
    return numbers


async def comes_nothing(reader: SpoolFolder) -> bool:
    try:
        async with asyncio.timeout(0.1):
            await reader.read()
    except TimeoutError:
        return True
    return False


async def one_batch(folder: Path) -> Batch:
    async with reading(folder) as reader:
        return await reader.read()


@pytest.fixture
def spool(tmp_path: Path) -> SpoolWriter:
    return SpoolWriter(tmp_path / "spool")


async def test_records_come_out_as_they_were_written(spool: SpoolWriter) -> None:
    spool.write(Written(flags=5, time=123, boot=7, session=8, payload=b"\x00\xff", detail="j/data/dev/é"))
    batch = await one_batch(spool.folder)
    record = batch.records[0]
    assert batch.spool == SPOOL_ID
    assert record == (1, 5, 1, 123, 7, 8, "dev-000000000001", "j/data/dev/é", b"\x00\xff")


async def test_records_larger_than_a_block_come_out_whole(spool: SpoolWriter) -> None:
    spool.write(Written(payload=b"x" * 100_000), Written(payload=b"y"))
    async with reading(spool.folder) as reader:
        assert await take(reader, 2) == [1, 2]


async def test_what_is_written_later_comes_in_order_over_segments(spool: SpoolWriter) -> None:
    async with reading(spool.folder) as reader:
        written = spool.write_numbers(300)
        assert await take(reader, 300) == written
        for _ in range(3):
            spool.begin_segment()
            written = spool.write_numbers(100)
            assert await take(reader, 100) == written


async def test_records_written_to_the_old_segment_just_before_the_new_one_began_are_not_left_behind(
    spool: SpoolWriter,
) -> None:
    async with reading(spool.folder) as reader:
        assert await take(reader, len(spool.write_numbers(3))) == [1, 2, 3]
        waiting = asyncio.create_task(take(reader, 4))
        await asyncio.sleep(0.05)
        spool.write_numbers(2)
        spool.begin_segment()
        spool.write_numbers(2)
        assert await waiting == [4, 5, 6, 7]


async def test_reading_goes_on_behind_the_place_after_a_restart(spool: SpoolWriter) -> None:
    spool.write_numbers(100)
    async with reading(spool.folder, 4096) as reader:
        seen = await take(reader, 1)
        lost = await reader.read()
    async with reading(spool.folder, 4096) as reader:
        assert await take(reader, 100 - len(seen)) == list(range(len(seen) + 1, 101))
    assert lost.records[0].sequence == len(seen) + 1


async def test_without_a_place_reading_begins_with_the_oldest_segment(spool: SpoolWriter) -> None:
    spool.write_numbers(2)
    spool.begin_segment()
    spool.write_numbers(2)
    async with reading(spool.folder) as reader:
        assert await take(reader, 4) == [1, 2, 3, 4]
    (spool.folder / "place").unlink()
    async with reading(spool.folder) as reader:
        assert (await reader.read()).records[0].sequence == 3


@pytest.mark.parametrize("place", [b"", b"{", b"[]", b'{"segment":1}', b'{"segment":"x","offset":0,"sequence":1}'])
async def test_a_place_that_cannot_be_read_counts_as_none(spool: SpoolWriter, place: bytes) -> None:
    spool.write_numbers(2)
    (spool.folder / "place").write_bytes(place)
    assert [record.sequence for record in (await one_batch(spool.folder)).records] == [1, 2]


async def test_a_place_in_a_segment_that_is_gone_means_the_next_one(spool: SpoolWriter) -> None:
    spool.write_numbers(2)
    first = spool.segment
    spool.begin_segment()
    spool.write_numbers(2)
    (spool.folder / "place").write_text(json.dumps({"segment": first.name, "offset": 40, "sequence": 2}))
    first.unlink()
    assert [record.sequence for record in (await one_batch(spool.folder)).records] == [3, 4]


async def test_a_place_beyond_all_segments_means_that_the_spool_was_begun_anew(spool: SpoolWriter) -> None:
    spool.write_numbers(2)
    (spool.folder / "place").write_text('{"segment":"00000000000f0000.spool","offset":40,"sequence":983040}')
    assert [record.sequence for record in (await one_batch(spool.folder)).records] == [1, 2]


async def test_segments_behind_the_place_are_deleted_and_the_newest_never(spool: SpoolWriter) -> None:
    spool.write_numbers(2)
    spool.begin_segment()
    spool.write_numbers(2)
    async with reading(spool.folder) as reader:
        await take(reader, 4)
        assert await comes_nothing(reader)
    assert [path.name for path in spool.folder.glob("*.spool")] == [spool.segment.name]


async def test_a_segment_is_kept_until_the_log_has_its_records(spool: SpoolWriter) -> None:
    spool.write_numbers(2)
    first = spool.segment
    spool.begin_segment()
    async with reading(spool.folder) as reader:
        await reader.read()
        assert first.exists()


async def test_half_a_record_at_the_end_of_the_newest_segment_is_waited_for(spool: SpoolWriter) -> None:
    whole = frame(body(Written(), 1))
    async with reading(spool.folder) as reader:
        for size in range(len(whole) - 1):
            spool.raw(whole[size : size + 1])
            assert reader._next() is None
        spool.raw(whole[-1:])
        assert await take(reader, 1) == [1]


async def test_half_a_header_of_the_newest_segment_is_waited_for(spool: SpoolWriter) -> None:
    spool.segment.write_bytes(header(1)[:20])
    async with reading(spool.folder) as reader:
        assert await comes_nothing(reader)
        spool.segment.write_bytes(header(1))
        spool.write_numbers(1)
        assert await take(reader, 1) == [1]


@pytest.mark.parametrize("tail", [b"\x50\0\0\0", frame(b"x" * 50)[:-1], frame(b"x" * 50)[:-1] + b"y", bytes(5000)])
async def test_a_torn_end_of_an_older_segment_is_dropped_and_counted(spool: SpoolWriter, tail: bytes) -> None:
    spool.write_numbers(2)
    spool.raw(tail)
    spool.begin_boot()
    before = metrics.TORN_TAILS._value.get()
    async with reading(spool.folder) as reader:
        assert await take(reader, 3) == [1, 2, 1003]
    assert metrics.TORN_TAILS._value.get() == before + 1
    assert not list(spool.folder.glob("*.damaged"))


async def test_a_damaged_segment_is_set_aside_with_its_bytes_counted_and_passed_over(spool: SpoolWriter) -> None:
    spool.write_numbers(2)
    good = spool.segment.read_bytes()
    spool.write_numbers(5)
    damaged = bytearray(spool.segment.read_bytes())
    damaged[len(good) + 20] ^= 1
    spool.segment.write_bytes(damaged)
    name = spool.segment.name
    spool.begin_segment()
    spool.write_numbers(2)
    before = metrics.DAMAGED_SEGMENTS._value.get()
    async with reading(spool.folder) as reader:
        first, second = await reader.read(), await reader.read()
    assert [record.sequence for record in first.records] == [1, 2]
    assert [record.sequence for record in second.records] == [8, 9]
    assert (first.missing, second.missing) == (0, 5)
    assert metrics.DAMAGED_SEGMENTS._value.get() == before + 1
    assert (spool.folder / f"{name}.damaged").read_bytes() == damaged
    assert not (spool.folder / name).exists()


async def test_damage_in_the_newest_segment_is_named_and_waited_out_because_the_broker_still_writes_there(
    spool: SpoolWriter,
) -> None:
    spool.write_numbers(1)
    spool.raw(b"\0" * 8)
    spool.write_numbers(1)
    async with reading(spool.folder) as reader:
        assert await take(reader, 1) == [1]
        assert await comes_nothing(reader)
        assert "damaged" in reader.waiting_for()
        spool.begin_boot()
        assert (await reader.read()).records[0].kind == BROKER_STARTED
        assert reader.waiting_for() == ""


@pytest.mark.parametrize("bad", [b"ZDMSPOOX" + header(1)[8:], header(2), header(1)[:8] + b"\2\0" + header(1)[10:]])
async def test_a_segment_with_another_header_is_set_aside(spool: SpoolWriter, bad: bytes) -> None:
    spool.segment.write_bytes(bad)
    spool.begin_boot()
    assert (await one_batch(spool.folder)).records[0].kind == BROKER_STARTED
    assert len(list(spool.folder.glob("*.damaged"))) == 1


async def test_a_whole_frame_that_holds_no_record_is_handed_on_with_its_bytes(spool: SpoolWriter) -> None:
    bad = [b"\1", b"\x09" + body(Written(), 1)[1:], body(Written(), 1)[:45], b"\1" * 34 + b"\xff\xff" + b"x" * 30]
    not_text = body(Written(device="ab"), 1).replace(b"ab", b"\xff\xfe")
    for one in [*bad, not_text]:
        spool.raw(frame(one))
    batch = await one_batch(spool.folder)
    assert [record.kind for record in batch.records] == [MALFORMED] * 5
    assert [record.payload for record in batch.records] == [*bad, not_text]


async def test_numbers_that_a_broker_start_passes_over_are_not_missing(spool: SpoolWriter) -> None:
    spool.write_numbers(2)
    spool.begin_boot(skip=5000)
    async with reading(spool.folder) as reader:
        assert [(await reader.read()).missing, (await reader.read()).missing] == [0, 0]


async def test_a_second_reader_stands_by_until_the_first_ends(spool: SpoolWriter) -> None:
    spool.write_numbers(1)
    second = SpoolFolder(spool.folder)
    async with reading(spool.folder):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.7), second.held():
                pass
    async with asyncio.timeout(2), second.held():
        assert (await second.read()).records


async def test_a_folder_that_the_broker_has_not_made_yet_is_waited_for(tmp_path: Path) -> None:
    reader = SpoolFolder(tmp_path / "spool")
    assert reader.waiting_for() == "the broker has not begun its spool"
    waiting = asyncio.create_task(one_batch(tmp_path / "spool"))
    await asyncio.sleep(0.05)
    SpoolWriter(tmp_path / "spool").write_numbers(1)
    assert len((await waiting).records) == 1


async def test_the_backlog_is_what_was_not_done_yet(spool: SpoolWriter) -> None:
    spool.write_numbers(10)
    reader = SpoolFolder(spool.folder)
    backlog = reader.backlog()
    assert backlog.bytes == spool.segment.stat().st_size - 32
    assert backlog.segments == 1
    assert backlog.oldest_age_s > 0
    async with reading(spool.folder) as other:
        await take(other, 10)
    assert reader.backlog() == (0, 1, 0.0)


async def test_no_file_is_left_open(spool: SpoolWriter) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        spool.write_numbers(2)
        async with reading(spool.folder) as reader:
            await take(reader, 2)
        spool.begin_segment()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
