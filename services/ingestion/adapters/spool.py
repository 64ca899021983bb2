"""The spool's folder, read block by block (docs/protocols.md 2).

Reads are short and mostly from the page cache (128 KiB: some 20 us), less than handing them to a thread would cost.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import orjson
import structlog

from services.ingestion import metrics
from services.ingestion.adapters.segment import HEADER_SIZE, Parsed, Stop, is_segment, parse, spool_of
from services.ingestion.domain.records import BROKER_STARTED, Batch, Place, SpoolRecord
from shared.frames import HEADER

logger = structlog.get_logger()

BLOCK = 128 * 1024
# A batch costs some 0.5 ms whatever is in it (commit, place): so much time for more to gather, unless a block is full.
_GATHER_S = 0.02
_BUSY_POLL_S = 0.002
_IDLE_POLL_S = 0.025
_SLOWER = 1.5
_LOCK_POLL_S = 0.5
_ZEROS_AT_ONCE = 1024 * 1024
_NOWHERE = Place("", HEADER_SIZE, 0)
_TIME = slice(HEADER.size + 10, HEADER.size + 18)


class Backlog(NamedTuple):
    """What is written and not yet taken in."""

    bytes: int
    segments: int
    oldest_age_s: float


class _Segment(NamedTuple):
    name: str
    path: Path
    file: int

    def size(self) -> int:
        return os.fstat(self.file).st_size


class SpoolFolder:
    """See `Spool`. Use it inside `held`."""

    def __init__(self, folder: Path, block: int = BLOCK) -> None:
        self._folder = folder
        self._block = block
        self._place: Place | None = None  # where the next block begins
        self._segment: _Segment | None = None
        self._later: list[str] = []  # segments known to come after
        self._complaint = ""
        self._is_behind = False  # the last block was full: there is more
        self._not_before = 0.0
        self.holding = asyncio.Event()  # set while inside `held`

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Wait until no other process reads this spool, then keep others from it."""
        lock = await self._locked()
        try:
            self._place = self._saved_place()
            self.holding.set()
            yield
        finally:
            self.holding.clear()
            self._close()
            os.close(lock)

    def waiting_for(self) -> str:
        """Empty when records can be read, or could be by another process that holds the spool."""
        if not self._folder.is_dir():
            return "the broker has not begun its spool"
        return self._complaint

    def identity(self) -> str:
        """The spool id; empty while there is no spool."""
        with suppress(FileNotFoundError):
            return (self._folder / "id").read_text().strip()
        return ""

    async def read(self) -> Batch:
        """See the port."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._not_before - loop.time()))
        pause = _BUSY_POLL_S
        while (batch := self._next()) is None:
            await asyncio.sleep(pause)
            pause = min(pause * _SLOWER, _IDLE_POLL_S)
        self._not_before = loop.time() + (0.0 if self._is_behind else _GATHER_S)
        return batch

    def done(self, place: Place) -> None:
        """See the port. Not synced: after a power cut, an older place or none repeats records, and that is allowed."""
        draft = f"{self._folder}/.place.new"
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, orjson.dumps(place._asdict()))
        finally:
            os.close(file)
        os.replace(draft, f"{self._folder}/place")  # noqa: PTH105 (for every batch: paths as objects cost more)

    def backlog(self) -> Backlog:
        """Seen from the place that is saved; for the metrics, from any process."""
        place = self._saved_place() or _NOWHERE
        waiting = [(name, self._size(name)) for name in self._segments() if name >= place.segment]
        behind = {name: size - (place.offset if name == place.segment else HEADER_SIZE) for name, size in waiting}
        unread = [name for name, left in behind.items() if left > 0]
        if not unread:
            return Backlog(0, len(waiting), 0.0)
        offset = place.offset if unread[0] == place.segment else HEADER_SIZE
        return Backlog(sum(behind[name] for name in unread), len(waiting), self._age(unread[0], offset))

    # Reading on.

    def _next(self) -> Batch | None:
        """Records, or None when there are none yet.

        A segment is left only when a later one was seen before its end was read: then nothing more can come into it.
        """
        while (segment := self._segment or self._open_next()) is not None:
            known_later = bool(self._later)
            if (batch := self._read_block(segment)) is not None:
                return batch
            if known_later:
                self._move_on()
            elif not self._look_for_later(segment):
                return None
        return None

    def _read_block(self, segment: _Segment) -> Batch | None:
        place = self._place or _NOWHERE
        if not (spool := _spool(segment.file, segment.name)):
            self._judge_header(segment)
            return None
        block = os.pread(segment.file, self._block, place.offset)
        parsed = parse(block, place.sequence)
        if not parsed.records and parsed.stop is Stop.END and parsed.frame > len(block):
            parsed = parse(os.pread(segment.file, parsed.frame, place.offset), place.sequence)
        if not parsed.records:
            self._judge_tail(segment, place.offset, parsed)
            return None
        self._is_behind = len(block) == self._block
        self._place = Place(segment.name, place.offset + parsed.size, parsed.records[-1].sequence)
        return Batch(spool, parsed.records, self._place, _missing(place.sequence, parsed.records))

    def _look_for_later(self, segment: _Segment) -> bool:
        self._later = [name for name in self._segments() if name > segment.name]
        return bool(self._later)

    def _open_next(self) -> _Segment | None:
        """Open the segment of the place, or the next one that there is; forget those before it."""
        if not (names := self._segments()):
            return None
        place = self._place or _NOWHERE
        due = [name for name in names if name >= place.segment]
        if not due:
            # The newest is never deleted here: somebody has begun the spool anew.
            logger.error("spool_place_beyond_end", place=place.segment, newest=names[-1])
            due, place = names, _NOWHERE
        for name in names[: len(names) - len(due)]:
            (self._folder / name).unlink(missing_ok=True)
        self._place = place if due[0] == place.segment else Place(due[0], HEADER_SIZE, place.sequence)
        path = self._folder / due[0]
        self._segment = _Segment(path.name, path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._later = due[1:]
        return self._segment

    def _move_on(self) -> None:
        self._complaint = ""
        self._place = Place(self._later[0], HEADER_SIZE, (self._place or _NOWHERE).sequence)
        self._close()

    def _close(self) -> None:
        if self._segment is not None:
            os.close(self._segment.file)
        self._segment, self._later = None, []

    # What ends a segment.

    def _judge_header(self, segment: _Segment) -> None:
        size = segment.size()
        if size >= HEADER_SIZE:
            self._set_aside(segment, 0)
        elif self._later and size > 0:
            self._drop_tail(segment, 0)

    def _judge_tail(self, segment: _Segment, offset: int, parsed: Parsed) -> None:
        """No whole record is left. At the end of the newest segment that is a write in progress."""
        left = segment.size() - offset
        if left <= 0:
            return
        cut_short = parsed.stop is Stop.END or parsed.frame >= left
        if not cut_short and not _is_all_zeros(segment.file, offset):
            self._set_aside(segment, offset)
        elif self._later:
            self._drop_tail(segment, offset)

    def _drop_tail(self, segment: _Segment, offset: int) -> None:
        metrics.TORN_TAILS.inc()
        logger.warning("spool_tail_dropped", segment=segment.name, offset=offset, bytes=segment.size() - offset)

    def _set_aside(self, segment: _Segment, offset: int) -> None:
        """Keep the file out of the way. The newest is still being written to: it is named, and waited out."""
        if not self._later:
            self._complain(f"{segment.name} is damaged at byte {offset}; the next segment is waited for")
            return
        metrics.DAMAGED_SEGMENTS.inc()
        metrics.DAMAGED_BYTES.inc(segment.size() - offset)
        logger.error("spool_segment_damaged", segment=segment.name, offset=offset, bytes=segment.size() - offset)
        segment.path.rename(segment.path.with_name(segment.name + ".damaged"))

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            logger.error("spool_damaged", complaint=complaint)
        self._complaint = complaint

    # The folder.

    def _segments(self) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(entry.name for entry in self._folder.iterdir() if is_segment(entry.name))
        return []

    def _size(self, name: str) -> int:
        with suppress(FileNotFoundError):
            return (self._folder / name).stat().st_size
        return 0

    def _age(self, name: str, offset: int) -> float:
        with suppress(FileNotFoundError), _opened(self._folder / name) as file:
            stamp = os.pread(file, _TIME.stop, offset)[_TIME]
            if len(stamp) == 8:
                return max(0.0, (time_ns() // 1_000_000 - int.from_bytes(stamp, "little")) / 1000)
        return 0.0

    def _saved_place(self) -> Place | None:
        """None when there is none: then reading begins with the oldest segment."""
        try:
            saved = orjson.loads((self._folder / "place").read_bytes())
            place = Place(str(saved["segment"]), int(saved["offset"]), int(saved["sequence"]))
        except FileNotFoundError:
            return None
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            logger.error("spool_place_unreadable", reason=repr(error))
            return None
        return place if place.offset >= HEADER_SIZE else None

    async def _locked(self) -> int:
        standing_by = False
        while True:
            if self._folder.is_dir():
                lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                with suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    logger.info("spool_held", folder=str(self._folder))
                    return lock
                os.close(lock)
                if not standing_by:
                    logger.info("spool_standing_by", folder=str(self._folder))
                standing_by = True
            await asyncio.sleep(_LOCK_POLL_S)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield file
    finally:
        os.close(file)


def _spool(file: int, name: str) -> str:
    header = os.pread(file, HEADER_SIZE, 0)
    return (spool_of(header, name) or "") if len(header) == HEADER_SIZE else ""


def _is_all_zeros(file: int, offset: int) -> bool:
    """What a power cut leaves of a file that had grown and was not yet written."""
    while block := os.pread(file, _ZEROS_AT_ONCE, offset):
        if block.count(0) != len(block):
            return False
        offset += len(block)
    return True


def _missing(before: int, records: list[SpoolRecord]) -> int:
    """Sequence numbers between the record before and the last of these that none of them has."""
    first = records[0]
    due = first.sequence if first.kind == BROKER_STARTED or before == 0 else before + 1
    return max(0, records[-1].sequence - due + 1 - len(records))
