"""The format of a segment of the spool (docs/protocols.md 1 and 2), parsed in one pass without a call per field."""

from enum import Enum
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from services.ingestion.domain.records import HANDED_OVER, MALFORMED, PUBLISH, SpoolRecord
from shared.frames import BODY_LIMIT, HEADER

SUFFIX = ".spool"
HEADER_SIZE = 32

_SEGMENT = Struct("<8sHHIQ8s")
_MAGIC, _VERSION = b"ZDMSPOOL", 1
# kind, flags, sequence, time, boot, session, length of the device id; and the length of the detail
_BODY = Struct("<BBQQQQH")
_LENGTH = Struct("<H")
_FRAME, _FIXED = HEADER.size, _BODY.size + _LENGTH.size


class Stop(Enum):
    """Why the records of a block end where they do."""

    END = "end"  # the block ends, with a frame or within one
    TORN = "torn"  # the next frame has an impossible length or a wrong checksum


class Parsed(NamedTuple):
    """The records of whole frames, `size` bytes of them; `frame`: how long the next frame says it is, 0 if unknown."""

    records: list[SpoolRecord]
    size: int
    stop: Stop
    frame: int


def segment_name(first: int) -> str:
    """Name of the segment that begins with the sequence number `first`."""
    return f"{first:016x}{SUFFIX}"


def is_segment(name: str) -> bool:
    """Whether a file of this name is a segment."""
    digits = name.removesuffix(SUFFIX)
    return len(digits) == 16 and name.endswith(SUFFIX) and set(digits) <= set("0123456789abcdef")


def spool_of(header: bytes, name: str) -> str | None:
    """The spool id in the header of segment `name`; None when it is not a header of that segment."""
    magic, version, _zero, _zeros, first, spool = _SEGMENT.unpack(header)
    if magic != _MAGIC or version != _VERSION or segment_name(first) != name:
        return None
    return str(spool.hex())


def parse(block: bytes, after: int) -> Parsed:
    """The records at the start of `block`; `after`: the sequence number of the record before them.

    No record comes from a frame whose checksum is wrong. A whole frame that holds no record as the format has it
    becomes one of kind MALFORMED.
    """
    records: list[SpoolRecord] = []
    add, view = records.append, memoryview(block)
    offset, end, sequence = 0, len(block), after
    while end - offset >= _FRAME:
        length, crc = HEADER.unpack_from(block, offset)
        body = offset + _FRAME
        limit = body + length
        if not 0 < length <= BODY_LIMIT:
            return Parsed(records, offset, Stop.TORN, 0)
        if limit > end:
            return Parsed(records, offset, Stop.END, _FRAME + length)
        if crc32(view[body:limit]) != crc:
            return Parsed(records, offset, Stop.TORN, _FRAME + length)
        record = _record(block, body, limit) or _malformed(block[body:limit], sequence + 1)
        sequence = record[2]
        add(record)
        offset = limit
    return Parsed(records, offset, Stop.END, 0)


def _record(block: bytes, body: int, limit: int) -> SpoolRecord | None:
    if limit - body < _FIXED:
        return None
    kind, flags, sequence, time, boot, session, length = _BODY.unpack_from(block, body)
    device = body + _BODY.size
    middle = device + length
    detail = middle + 2
    if not PUBLISH <= kind <= HANDED_OVER or detail > limit:
        return None
    payload = detail + _LENGTH.unpack_from(block, middle)[0]
    if payload > limit:
        return None
    try:
        device_id, text = block[device:middle].decode(), block[detail:payload].decode()
    except UnicodeDecodeError:
        return None
    return SpoolRecord(kind, flags, sequence, time, boot, session, device_id, text, block[payload:limit])


def _malformed(body: bytes, sequence: int) -> SpoolRecord:
    return SpoolRecord(MALFORMED, 0, sequence, 0, 0, 0, "", "", body)
