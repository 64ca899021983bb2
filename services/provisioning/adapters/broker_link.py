"""Tells one broker what it must know of devices: follows the access topic from the place where the broker is.

A place here is the number of the next record: 0 at the beginning, the offset of the last applied record plus one after.
"""

import asyncio
import base64
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from services.provisioning.adapters.store import BrokerStore
from services.provisioning.metrics import BROKER_LAG, BROKER_SYNCS, REFUSED
from shared import frames
from shared.broker_control import PUBLISH_LIMIT, BrokerControl
from shared.clock import Clock
from shared.errors import Refused, Unavailable
from shared.frames import Applied, Entry, Key, Place
from shared.log import Log, Replay, StoredRecord
from shared.messages.registry import AccessGranted
from shared.messages.topics import ACCESS
from shared.registry import Registry
from shared.tasks import pauses

logger = structlog.get_logger()

_PARTITION = 0
_BATCH = 2000
_HEAD_ROOM = 1024
_REMOVED, _ACTIVE, _DISABLED = 0, 1, 2
_DONE, _GAP = 0, 1

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0
_CAUGHT_UP_S = 1.0
_LOCK_POLL_S = 0.5
# How often to see whether the connection still stands.
_LOOK_S = 0.5
# The log forgets what was removed a day before; a broker that was away for longer would keep it for ever.
_REMEMBERED_MS = 12 * 3600 * 1000
_NOTED_EVERY_MS = 600 * 1000


class _Part(NamedTuple):
    """Entries that go together, and the place after them."""

    entries: list[bytes]
    place: int


class BrokerLink:
    """The link to the broker called `name`. Of several processes one has it, by a lock beside the control socket.

    In a log made anew the topic is empty at first, which is no reason to shut everybody out: it counts once the
    registry says that all has been told.
    """

    def __init__(
        self,
        name: str,
        control: BrokerControl,
        lock: Path,
        log: Log,
        registry: Registry,
        store: BrokerStore,
        clock: Clock,
    ) -> None:
        self.name = name
        self._control = control
        self._lock = lock
        self._log = log
        self._registry = registry
        self._store = store
        self._clock = clock
        self._place: int | None = None  # None: not in step
        self._moved = asyncio.Condition()
        self._reason = "the broker has not been asked yet"
        self._elsewhere = False
        self._noted_at = 0

    def waiting_for(self) -> str:
        """Empty when the broker is in step, or another process sees to that."""
        return "" if self._elsewhere or self._place is not None else self._reason

    async def caught_up(self) -> None:
        """Return once the broker knows all that is in the topic now; at once when it is away, soon when it is slow."""
        if self._place is None:
            return
        target = await self._end()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CAUGHT_UP_S), self._moved:
                await self._moved.wait_for(lambda: self._place is None or self._place >= target)

    async def run(self) -> None:
        """Keep the broker in step. For ever."""
        async with self._alone():
            waiting = pauses(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
            while True:
                try:
                    await self._control.connect()
                    waiting = pauses(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
                    await self._serve()
                except Unavailable as error:
                    await self._away(error.message)
                finally:
                    await self._control.close()
                await asyncio.sleep(next(waiting))

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Two links would take the one connection from each other for ever."""
        self._lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(held):
                self._elsewhere = True
                await asyncio.sleep(_LOCK_POLL_S)
            self._elsewhere = False
            yield
        finally:
            self._place = None
            os.close(held)

    async def _away(self, reason: str) -> None:
        if self._place is not None or reason != self._reason:
            logger.warning("broker_out_of_step", broker=self.name, reason=reason)
        self._reason = reason
        await self._moved_to(None)

    async def _serve(self) -> None:
        """Bring the broker into step and keep it there; return when it has to be asked anew where it is."""
        answer = await self._control.request(frames.hello)
        if not isinstance(answer, Place):
            raise Unavailable("The broker does not say where it is")
        log_id, place = await self._log.identity(ACCESS), answer.place
        if not self._registry.ready.is_set() or self._registry.access != log_id:
            raise Unavailable("Not everything has been told yet")
        if answer.log_id != log_id or place > await self._end() or not await self._remembers(place):
            place = await self._sync(log_id)
        await self._follow(log_id, place)

    async def _remembers(self, place: int) -> bool:
        """Whether the log still has every removal after `place`."""
        if place == await self._end():
            return True
        return self._clock.ms() - await self._store.in_step_at(self.name) < _REMEMBERED_MS

    async def _sync(self, log_id: str) -> int:
        """Everything from the beginning; the place afterwards."""
        BROKER_SYNCS.labels(self.name).inc()
        logger.info("broker_full_sync", broker=self.name)
        target, place, first = await self._end(), 0, True
        async with self._log.replay(ACCESS) as replay:
            async for part in _parts_until(replay, target):
                last = part.place >= target
                # The first one starts anew, wherever the broker is.
                applied = await self._apply(log_id, (place, part.place), part.entries, first=first, last=last)
                if applied is None:
                    raise Unavailable("The broker lost its place in a full synchronisation")
                place, first = part.place, False
        return place

    async def _follow(self, log_id: str, place: int) -> None:
        async with self._log.replay(ACCESS, {} if place == 0 else {_PARTITION: place - 1}) as replay:
            while self._control.connected:
                end = await self._end()
                BROKER_LAG.labels(self.name).set(max(0, end - place))
                if place >= end:
                    await self._in_step(place)
                for part in _parts(await replay.fetch(_BATCH, _LOOK_S)):
                    if await self._apply(log_id, (place, part.place), part.entries) is None:
                        logger.warning("broker_gap", broker=self.name, place=place)
                        return
                    place = part.place
                    if self._place is not None:
                        await self._moved_to(place)
            raise Unavailable("The connection to the broker ended")

    async def _apply(
        self, log_id: str, span: tuple[int, int], entries: Sequence[bytes], *, first: bool = False, last: bool = False
    ) -> Applied | None:
        """None for a gap; raise `Unavailable` when the broker cannot."""
        ask = partial(frames.apply, log_id=log_id, span=span, entries=entries, first=first, last=last)
        answer = await self._control.request(ask)
        if not isinstance(answer, Applied):
            raise Unavailable("The broker gave another answer than asked for")
        if answer.status == _GAP:
            return None
        if answer.status != _DONE:
            logger.error("broker_refuses_change", broker=self.name, status=answer.status, first=span[0], last=span[1])
            raise Unavailable(f"The broker does not apply a change (status {answer.status})")
        return answer

    async def _in_step(self, place: int) -> None:
        if self._place is None:
            logger.info("broker_in_step", broker=self.name, place=place)
            await self._moved_to(place)
        now = self._clock.ms()
        if now - self._noted_at > _NOTED_EVERY_MS:
            await self._store.note_in_step(self.name, now)
            self._noted_at = now

    async def _moved_to(self, place: int | None) -> None:
        async with self._moved:
            self._place = place
            self._moved.notify_all()

    async def _end(self) -> int:
        return (await self._log.end(ACCESS)).get(_PARTITION, -1) + 1


class BrokerLinks(tuple[BrokerLink, ...]):
    """See `ports.Brokers`: a link to each; who is away or slow holds up no other."""

    async def caught_up(self) -> None:
        """See the port."""
        await asyncio.gather(*(link.caught_up() for link in self))


async def _parts_until(replay: Replay, target: int) -> AsyncIterator[_Part]:
    """Everything up to `target`; one empty part when there is nothing."""
    place = 0
    while place < target:
        for part in _parts(await replay.fetch(_BATCH)):
            place = part.place
            yield part
    if target == 0:
        yield _Part([], 0)


def _parts(records: Sequence[StoredRecord]) -> Iterator[_Part]:
    """The entries of `records`, cut so that each part fits into one publish."""
    entries: list[bytes] = []
    size, place = 0, 0
    for record in records:
        entry = _entry(record)
        if size + len(entry) > PUBLISH_LIMIT - _HEAD_ROOM:
            yield _Part(entries, place)
            entries, size = [], 0
        entries.append(entry)
        size += len(entry)
        place = record.offset + 1
    if entries:
        yield _Part(entries, place)


def _entry(record: StoredRecord) -> bytes:
    if record.value is None:
        return frames.entry(Entry(_REMOVED, record.key))
    try:
        granted = AccessGranted.decode(record.value)
    except Refused as refusal:
        # Nobody gets in by a record that cannot be read.
        REFUSED.labels(ACCESS.name).inc()
        logger.error("access_record_refused", key=record.key, place=record.offset, reason=type(refusal).__name__)
        return frames.entry(Entry(_REMOVED, record.key))
    return frames.entry(
        Entry(
            _ACTIVE if granted.enabled else _DISABLED,
            granted.device_id,
            granted.address,
            [Key(key.id, key.type, base64.b64decode(key.key_base64)) for key in granted.keys],
            [bytes.fromhex(fingerprint) for fingerprint in granted.certificates],
        )
    )


def _locked(held: int) -> bool:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
