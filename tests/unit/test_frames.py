"""The framing that spool, snapshot and control topic share (docs/protocols.md 1 and 3)."""

import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.frames import (
    BODY_LIMIT,
    HEADER,
    Applied,
    Down,
    Entry,
    Fields,
    Key,
    MalformedFrame,
    Moved,
    Place,
    Sent,
    TornFrame,
    answers,
    apply,
    entry,
    frame,
    frames,
    hello,
    moved,
    send,
    text,
)

BODIES = st.lists(st.binary(min_size=1, max_size=300), max_size=20)
U64 = st.integers(0, 2**64 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(BODIES)
def test_what_is_framed_is_read_again(bodies: list[bytes]) -> None:
    assert list(frames(b"".join(map(frame, bodies)))) == bodies


def test_the_format_is_the_documented_one() -> None:
    body = b"Hello"
    assert frame(body) == struct.pack("<II", 5, zlib.crc32(body)) + body
    assert hello(0x0102030405060708) == frame(b"H\x08\x07\x06\x05\x04\x03\x02\x01")
    assert text("é") == b"\x02\x00\xc3\xa9"


@given(BODIES.filter(bool), st.data())
def test_a_frame_that_is_cut_short_is_torn_where_it_begins(bodies: list[bytes], data: st.DataObject) -> None:
    *whole, last = map(frame, bodies)
    cut = data.draw(st.integers(1, len(last) - 1))
    found: list[bytes] = []
    with pytest.raises(TornFrame) as torn:
        found.extend(frames(b"".join(whole) + last[:cut]))
    assert torn.value.offset == sum(map(len, whole))


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_frame_with_any_bit_turned_is_torn(body: bytes, data: st.DataObject) -> None:
    whole = bytearray(frame(body))
    place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    whole[place] ^= 1 << bit
    with pytest.raises(TornFrame):
        list(frames(bytes(whole)))


@pytest.mark.parametrize("length", [0, BODY_LIMIT + 1, 2**32 - 1])
def test_an_impossible_length_is_torn(length: int) -> None:
    with pytest.raises(TornFrame):
        list(frames(HEADER.pack(length, zlib.crc32(b"")) + b"x" * 10))


def test_the_longest_body_is_no_longer_than_the_limit() -> None:
    body = bytes(BODY_LIMIT)
    assert list(frames(frame(body))) == [body]
    with pytest.raises(TornFrame):
        list(frames(HEADER.pack(BODY_LIMIT + 1, zlib.crc32(body + b"x")) + body + b"x"))


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_torn(data: bytes) -> None:
    found: list[bytes] = []
    with suppress(TornFrame):
        found.extend(frames(data))
        assert b"".join(map(frame, found)) == data
    assert data.startswith(b"".join(map(frame, found)))


def answer(kind: bytes, request: int, *rest: bytes) -> bytes:
    return frame(kind + struct.pack("<Q", request) + b"".join(rest))


@given(U64, TEXT, U64, U64, st.integers(0, 255))
def test_answers_are_read_as_the_broker_writes_them(
    request: int, log_id: str, place: int, devices: int, status: int
) -> None:
    u64, u8 = struct.Struct("<Q").pack, bytes([status])
    # What a later version adds at the end, the plugin's version here, is left alone.
    told = answer(b"h", request, text(log_id), u64(place), u64(devices), text("1.0"))
    told += answer(b"a", request, u8, text(log_id), u64(place)) + answer(b"s", request, u8)
    assert answers(told) == [
        Place(request, log_id, place, devices),
        Applied(request, status, log_id, place),
        Sent(request, status),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"x" + bytes(8),
        b"H" + bytes(8),
        b"s",
        b"s" + bytes(7),
        b"s" + bytes(8),
        b"a" + bytes(8) + b"\x00\x05\x00abc",
        b"a" + bytes(8) + b"\x00\x02\x00\xff\xfe" + bytes(8),
        b"h" + bytes(8) + text("log") + bytes(15),
    ],
)
def test_an_answer_that_is_not_what_its_kind_promises_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedFrame):
        answers(frame(body))


@given(st.binary(min_size=1, max_size=100))
def test_any_body_is_an_answer_or_malformed(body: bytes) -> None:
    with suppress(MalformedFrame):
        assert len(answers(frame(body))) == 1


KEYS = st.builds(Key, st.integers(0, 2**32 - 1), st.sampled_from(["HS256", "ES256"]), st.binary(max_size=200))
ENTRIES = st.builds(
    Entry,
    st.integers(0, 2),
    TEXT,
    TEXT,
    st.lists(KEYS, max_size=5),
    st.lists(st.binary(min_size=32, max_size=32), max_size=5),
)


def read_entry(fields: Fields) -> Entry:
    """By the table in docs/protocols.md 3."""
    state, device_id, address = fields.number("B"), fields.text(), fields.text()
    keys = []
    for _ in range(fields.number("B")):
        number, kind = fields.number("I"), {1: "HS256", 2: "ES256"}[fields.number("B")]
        keys.append(Key(number, kind, fields.take(fields.number("H"))))
    return Entry(state, device_id, address, keys, [fields.take(32) for _ in range(fields.number("B"))])


@given(U64, TEXT, st.tuples(U64, U64), st.lists(ENTRIES, max_size=5), st.booleans(), st.booleans())
def test_entries_are_written_as_the_broker_reads_them(
    request: int, log_id: str, span: tuple[int, int], entries: list[Entry], first: bool, last: bool
) -> None:
    (body,) = frames(apply(request, log_id, span, [entry(one) for one in entries], first=first, last=last))
    fields = Fields(body)
    head: list[Any] = [fields.take(1), fields.number("Q"), fields.text(), fields.number("Q"), fields.number("Q")]
    assert head == [b"A", request, log_id, *span]
    assert fields.number("B") == first + 2 * last
    assert [read_entry(fields) for _ in range(fields.number("I"))] == entries
    assert fields.rest() == b""


@given(U64, st.lists(st.builds(Down, TEXT, TEXT, st.binary(max_size=300), st.none()), max_size=5))
def test_messages_are_written_as_the_broker_reads_them(request: int, messages: list[Down]) -> None:
    (body,) = frames(send(request, messages))
    fields = Fields(body)
    assert (fields.take(1), fields.number("Q")) == (b"S", request)
    count = fields.number("I")
    assert [Down(fields.text(), fields.text(), fields.take(fields.number("I"))) for _ in range(count)] == messages
    assert fields.rest() == b""


@given(U64, st.lists(st.builds(Down, TEXT, TEXT, st.binary(max_size=300), st.none() | U64), max_size=5))
def test_messages_for_sessions_of_their_time_have_it_before_them(request: int, messages: list[Down]) -> None:
    messages = [*messages, Down("id", "dev-1", b"{}", 1714637105250)]
    (body,) = frames(send(request, messages))
    fields = Fields(body)
    assert (fields.take(1), fields.number("Q")) == (b"T", request)
    assert fields.number("I") == len(messages)
    for message in messages:
        assert fields.number("Q") == (2**64 - 1 if message.began_by is None else message.began_by)
        assert (fields.text(), fields.text()) == message[:2]
        assert fields.take(fields.number("I")) == message.payload
    assert fields.rest() == b""


@given(U64, st.lists(st.builds(Moved, TEXT, U64), max_size=5))
def test_moves_are_written_as_the_broker_reads_them(request: int, devices: list[Moved]) -> None:
    (body,) = frames(moved(request, devices))
    fields = Fields(body)
    assert (fields.take(1), fields.number("Q")) == (b"M", request)
    assert [Moved(fields.text(), fields.number("Q")) for _ in range(fields.number("I"))] == devices
    assert fields.rest() == b""


def test_text_that_does_not_fit_is_malformed() -> None:
    assert len(text("x" * 65_535)) == 65_537
    for value in ("x" * 65_536, "é" * 32_768):
        with pytest.raises(MalformedFrame):
            text(value)
