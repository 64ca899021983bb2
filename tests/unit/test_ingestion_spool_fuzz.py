"""Whatever is in the spool's files: reading ends, fails nowhere, and gives only what a right checksum vouches for."""

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingestion.adapters.segment import parse, segment_name
from services.ingestion.adapters.spool import SpoolFolder
from services.ingestion.domain.intake import sort_out
from services.ingestion.domain.records import MALFORMED, Batch, Place, SpoolRecord
from shared.frames import frame
from shared.log import Record
from tests.support.spool import SpoolWriter, Written, body, header

SECOND, LAST_BOOT = 100, 5000

RECORDS = st.lists(
    st.builds(
        Written,
        kind=st.integers(1, 5),
        device=st.text(max_size=5),
        detail=st.text(max_size=20),
        payload=st.binary(max_size=40),
        time=st.integers(0, 2**64 - 1),
        flags=st.integers(0, 255),
    ),
    max_size=12,
)


@st.composite
def spoilt(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` after an accident: bits turned, bytes lost, bytes put in, an end cut off."""
    spoils: list[Callable[[bytes, int], bytes]] = [
        lambda data, at: data[:at] + bytes([data[at] ^ draw(st.integers(1, 255))]) + data[at + 1 :],
        lambda data, at: data[:at] + data[at + draw(st.integers(1, 20)) :],
        lambda data, at: data[:at] + draw(st.binary(min_size=1, max_size=20)) + data[at:],
        lambda data, at: data[:at],
        lambda data, at: data[:at] + bytes(len(data) - at),
    ]
    return draw(st.sampled_from(spoils))(content, draw(st.integers(0, len(content) - 1)))


async def read_all(folder: Path) -> list[Batch]:
    """Up to the start of the last boot."""
    batches: list[Batch] = []
    reader = SpoolFolder(folder, 256)
    async with asyncio.timeout(20), reader.held():
        while not batches or batches[-1].records[-1].sequence < LAST_BOOT:
            batches.append(await reader.read())
            reader.done(batches[-1].place)
    return batches


def as_written(record: SpoolRecord) -> bytes:
    """The frame that says what `record` says."""
    if record.kind == MALFORMED:
        return frame(record.payload)
    written = Written(
        record.kind,
        record.device,
        record.detail,
        record.payload,
        record.time,
        record.flags,
        record.boot,
        record.session,
    )
    return frame(body(written, record.sequence))


def read_with_boot_after(contents: dict[str, bytes]) -> list[SpoolRecord]:
    """What comes out of these segments, followed by a broker start; each of it must stand in them as it came out."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        writer = SpoolWriter(folder, first=LAST_BOOT)
        writer.begin_boot(skip=0)
        for segment, content in contents.items():
            (folder / segment).write_bytes(content)
        records = [record for batch in asyncio.run(read_all(folder)) for record in batch.records]
    everything = b"".join(contents.values())
    assert records[-1].sequence == LAST_BOOT
    for record in records[:-1]:
        assert as_written(record) in everything
    return records[:-1]


@given(st.data(), RECORDS, RECORDS)
@settings(max_examples=150, deadline=None)
def test_spoilt_segments_give_what_is_whole_up_to_the_damage(
    data: st.DataObject, first: list[Written], second: list[Written]
) -> None:
    segments = {1: first, SECOND: second}
    contents = {segment_name(start): whole(start, records) for start, records in segments.items()}
    start = data.draw(st.sampled_from([1, SECOND]))
    before = contents[segment_name(start)]
    after = contents[segment_name(start)] = data.draw(spoilt(before))
    found = {record.sequence for record in read_with_boot_after(contents)}
    (other,) = set(segments) - {start}
    assert found >= set(range(other, other + len(segments[other])))
    assert found >= set(range(start, start + whole_records(segments[start], common(before, after))))


def common(one: bytes, other: bytes) -> int:
    """How many bytes both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))


def whole(start: int, records: list[Written]) -> bytes:
    """A segment."""
    return header(start) + b"".join(frame(body(record, number)) for number, record in enumerate(records, start))


def whole_records(records: list[Written], size: int) -> int:
    """How many of `records` are in the first `size` bytes of their segment."""
    return sum(len(whole(1, records[:count])) <= size for count in range(1, len(records) + 1))


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_bytes_in_a_segment_are_survived(content: bytes, has_header: bool) -> None:
    read_with_boot_after({"0000000000000001.spool": (header(1) if has_header else b"") + content})


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
def test_any_body_with_a_right_checksum_becomes_one_record_that_has_a_place_in_the_log(
    content: bytes, after: int
) -> None:
    parsed = parse(frame(content or b"\0"), after)
    assert len(parsed.records) == 1
    assert as_written(parsed.records[0]) == frame(content or b"\0")


@given(RECORDS)
def test_whatever_a_record_says_it_goes_to_the_log_or_is_set_aside(written: list[Written]) -> None:
    block = b"".join(frame(body(record, number)) for number, record in enumerate(written, 1))
    records = parse(block, 0).records
    intake = sort_out(Batch("00", records, Place("", 0, 0)), {}, 1)
    assert sum(map(len, intake.appends.values())) == len(records) == len(written)
    for appended in intake.appends.values():
        assert all(isinstance(record, Record) and isinstance(record.key, str) for record in appended)
