"""The frames that spool, snapshot and control topic are made of, and the messages of the control topic.

The formats are in docs/protocols.md 1 and 3; the other side is `deploy/mosquitto/plugin/`.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from shared.errors import Refused

HEADER = struct.Struct("<II")
BODY_LIMIT = 16 * 1024 * 1024

_KEY = struct.Struct("<IBH")
_APPLY = struct.Struct("<QQBI")
_FIRST, _LAST = 1, 2
_ANY_TIME = 2**64 - 1
_KEY_TYPES = {"HS256": 1, "ES256": 2}


class TornFrame(Refused):
    """The frame at `offset` is cut short, has an impossible length or a wrong checksum."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"torn frame at byte {offset}")
        self.offset = offset


class MalformedFrame(Refused):
    """A whole frame whose body is not what its kind promises."""


def frame(body: bytes) -> bytes:
    """`body` with its length and checksum."""
    return HEADER.pack(len(body), zlib.crc32(body)) + body


def frames(data: bytes) -> Iterator[bytes]:
    """The bodies in `data`; raise `TornFrame` where one is torn."""
    offset = 0
    while offset < len(data):
        end = offset + HEADER.size
        if end > len(data):
            raise TornFrame(offset)
        length, crc = HEADER.unpack_from(data, offset)
        body = data[end : end + length]
        if not 0 < length <= BODY_LIMIT or len(body) < length or zlib.crc32(body) != crc:
            raise TornFrame(offset)
        yield body
        offset = end + length


class Key(NamedTuple):
    """A key of a device: `type` HS256 (raw bytes) or ES256 (DER SubjectPublicKeyInfo)."""

    id: int
    type: str
    key: bytes


class Entry(NamedTuple):
    """All that a broker must know of a device. `state`: 0 removed, 1 active, 2 disabled."""

    state: int
    device_id: str
    address: str = ""
    keys: Sequence[Key] = ()
    certificates: Sequence[bytes] = ()


class Down(NamedTuple):
    """A message for one device."""

    id: str
    device_id: str
    payload: bytes
    began_by: int | None = None  # ms: for a session that began then or before; None: for whichever there is


class Moved(NamedTuple):
    """A device has connected to another broker at `at` (ms)."""

    device_id: str
    at: int


class Place(NamedTuple):
    """Answer to hello: how far the broker is. An empty log id asks for a full sync."""

    request: int
    log_id: str
    place: int
    devices: int


class Applied(NamedTuple):
    """Answer to apply. `status`: 0 done, 1 gap, 2 malformed, 3 failed."""

    request: int
    status: int
    log_id: str
    place: int


class Sent(NamedTuple):
    """Answer to send and moved. `status`: 0 done, 2 malformed, 3 failed, 4 the spool refuses."""

    request: int
    status: int


Answer = Place | Applied | Sent


def text(value: str) -> bytes:
    """`str` of the formats; raise `MalformedFrame` when it does not fit."""
    encoded = value.encode()
    if len(encoded) > 0xFFFF:
        raise MalformedFrame("text is longer than 65,535 bytes")
    return struct.pack("<H", len(encoded)) + encoded


def entry(device: Entry) -> bytes:
    """One entry of `apply`."""
    parts = [bytes([device.state]), text(device.device_id), text(device.address), bytes([len(device.keys)])]
    for key in device.keys:
        parts += [_KEY.pack(key.id, _KEY_TYPES[key.type], len(key.key)), key.key]
    parts += [bytes([len(device.certificates)]), *device.certificates]
    return b"".join(parts)


def hello(request: int) -> bytes:
    """Ask how far the broker is."""
    return frame(b"H" + struct.pack("<Q", request))


def apply(
    request: int,
    log_id: str,
    span: tuple[int, int],
    entries: Sequence[bytes],
    *,
    first: bool = False,
    last: bool = False,
) -> bytes:
    """Entries, encoded, that take the broker from place `span[0]` to `span[1]`; `first` and `last` of a full sync."""
    flags = (_FIRST if first else 0) | (_LAST if last else 0)
    head = b"A" + struct.pack("<Q", request) + text(log_id) + _APPLY.pack(*span, flags, len(entries))
    return frame(head + b"".join(entries))


def send(request: int, messages: Sequence[Down]) -> bytes:
    """Messages for devices."""
    timed = any(message.began_by is not None for message in messages)
    parts = [(b"T" if timed else b"S") + struct.pack("<QI", request, len(messages))]
    for message in messages:
        if timed:
            parts.append(struct.pack("<Q", _ANY_TIME if message.began_by is None else message.began_by))
        parts += [text(message.id), text(message.device_id), struct.pack("<I", len(message.payload)), message.payload]
    return frame(b"".join(parts))


def moved(request: int, devices: Sequence[Moved]) -> bytes:
    """Devices whose sessions here are over, unless they began later."""
    parts = [b"M" + struct.pack("<QI", request, len(devices))]
    for device in devices:
        parts += [text(device.device_id), struct.pack("<Q", device.at)]
    return frame(b"".join(parts))


def answers(data: bytes) -> list[Answer]:
    """The answers in a response; raise `TornFrame` or `MalformedFrame`."""
    return [_answer(body) for body in frames(data)]


def _answer(body: bytes) -> Answer:
    fields = Fields(body)
    kind, request = fields.number("B"), fields.number("Q")
    if kind == ord("h"):
        return Place(request, fields.text(), fields.number("Q"), fields.number("Q"))
    if kind == ord("a"):
        return Applied(request, fields.number("B"), fields.text(), fields.number("Q"))
    if kind == ord("s"):
        return Sent(request, fields.number("B"))
    raise MalformedFrame(f"no answer is of kind {kind}")


class Fields:
    """Reads the fields of a body one after the other; raise `MalformedFrame` beyond its end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def number(self, form: str) -> int:
        """An integer of a `struct` form without order: B, H, I, Q."""
        return int(struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0])

    def text(self) -> str:
        """A `str`."""
        try:
            return self.take(self.number("H")).decode()
        except UnicodeDecodeError as error:
            raise MalformedFrame("text is not UTF-8") from error

    def take(self, length: int) -> bytes:
        """The next `length` bytes."""
        part = self._body[self._at : self._at + length]
        if len(part) < length:
            raise MalformedFrame("a field is missing")
        self._at += length
        return part

    def rest(self) -> bytes:
        """What is left."""
        return self._body[self._at :]
