"""Writes a spool as the broker's plugin does (docs/protocols.md 2), and spoils it as accidents do."""

import struct
from dataclasses import dataclass
from pathlib import Path

from shared.frames import frame, text

PUBLISH, CONNECTED, DISCONNECTED, BROKER_STARTED, HANDED_OVER = 1, 2, 3, 4, 5
SPOOL_ID = "00112233445566ff"


@dataclass(frozen=True)
class Written:
    """One record."""

    kind: int = PUBLISH
    device: str = "dev-000000000001"
    detail: str = "j/data/dev-000000000001/env"
    payload: bytes = b'{"n":1}'
    time: int = 1_700_000_000_000
    flags: int = 1
    boot: int = 1
    session: int = 2


def body(record: Written, sequence: int) -> bytes:
    """The body of the record's frame."""
    fixed = struct.pack("<BBQQQQ", record.kind, record.flags, sequence, record.time, record.boot, record.session)
    return fixed + text(record.device) + text(record.detail) + record.payload


def header(first: int, spool_id: str = SPOOL_ID) -> bytes:
    """Of the segment that begins with `first`."""
    return struct.pack("<8sHHIQ8s", b"ZDMSPOOL", 1, 0, 0, first, bytes.fromhex(spool_id))


class SpoolWriter:
    """Appends to the newest segment; numbers rise by one."""

    def __init__(self, folder: Path, first: int = 1, spool_id: str = SPOOL_ID) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.spool_id = spool_id
        self.next = first
        (folder / "id").write_text(spool_id + "\n")
        self.begin_segment()

    def begin_segment(self, skip: int = 0) -> Path:
        """A new segment; `skip`: numbers that are passed over first, as a broker start does."""
        self.next += skip
        self.segment = self.folder / f"{self.next:016x}.spool"
        self.segment.write_bytes(header(self.next, self.spool_id))
        return self.segment

    def begin_boot(self, skip: int = 1000) -> Path:
        """A broker start."""
        segment = self.begin_segment(skip)
        self.write(Written(BROKER_STARTED, "", "", b"", boot=self.next, session=0))
        return segment

    def write(self, *records: Written) -> list[int]:
        """Their sequence numbers."""
        numbers = list(range(self.next, self.next + len(records)))
        self.raw(*(frame(body(record, number)) for record, number in zip(records, numbers, strict=True)))
        self.next += len(records)
        return numbers

    def raw(self, *pieces: bytes) -> None:
        """Bytes as they are."""
        with self.segment.open("ab") as file:
            file.write(b"".join(pieces))

    def write_numbers(self, count: int, start: int = 0) -> list[int]:
        """Data points `{"n": start}` and on."""
        return self.write(*(Written(payload=b'{"n":%d}' % (start + number)) for number in range(count)))
