"""Keeps a broker in step with the access topic: what it does not know yet is sent, from the place that it reports."""

import base64
from collections.abc import Sequence

import structlog
from prometheus_client import Gauge

from shared.broker_control import PUBLISH_LIMIT, BrokerControl
from shared.errors import Unavailable
from shared.frames import Applied, Entry, Key, Place, apply, entry, hello
from shared.log import Log, Replay, StoredRecord
from shared.messages.registry import AccessGranted
from shared.messages.topics import ACCESS

logger = structlog.get_logger()

_LAG = Gauge("zdm_broker_link_lag", "Places in the access topic that the broker has not been told of")

_REMOVED, _ACTIVE, _DISABLED = 0, 1, 2
_DONE = 0
_FETCH = 2000
_WAIT_S = 0.5
# Room for the frame around the entries.
_ENTRIES_LIMIT = PUBLISH_LIMIT - 1024


class BrokerLink:
    """One broker's. Run it as a worker: it ends with `Unavailable` when the connection does."""

    def __init__(self, control: BrokerControl, log: Log) -> None:
        self._control = control
        self._log = log
        self._in_step = False
        self._place = -1

    def waiting_for(self) -> str:
        """Empty while the broker knows what the topic says."""
        return "" if self._in_step and self._control.connected else "the broker is not in step yet"

    async def run(self) -> None:
        """Connect, ask, and send what is missing, for ever."""
        self._in_step = False
        await self._control.connect()
        try:
            await self._follow()
        finally:
            self._in_step = False
            await self._control.close()

    async def _follow(self) -> None:
        log_id = await self._log.identity()
        answer = await self._control.request(hello)
        if not isinstance(answer, Place):
            raise Unavailable("The broker answers something else")
        # Places are offsets plus one: 0 is before the first.
        full = answer.log_id != log_id
        self._place = -1 if full else answer.place - 1
        end = max((await self._log.end(ACCESS)).values(), default=-1)
        logger.info("broker_link_connected", full_sync=full, devices=answer.devices, behind=end - self._place)
        async with self._log.replay(ACCESS, {0: self._place}) as replay:
            if full:
                await self._sync(replay, log_id, end)
            await self._keep_up(replay, log_id, end)

    async def _sync(self, replay: Replay, log_id: str, end: int) -> None:
        """Everything once; what the broker knows beyond that it then forgets."""
        await self._apply(log_id, self._place, [], first=True)
        while self._place < end:
            await self._send(log_id, await replay.fetch(_FETCH, _WAIT_S))
        await self._apply(log_id, self._place, [], last=True)

    async def _keep_up(self, replay: Replay, log_id: str, end: int) -> None:
        while True:
            if self._place >= end:
                self._in_step = True
            records = await replay.fetch(_FETCH, _WAIT_S)
            if not self._control.connected:
                raise Unavailable("The connection to the broker ended")
            await self._send(log_id, records)
            _LAG.set(0 if not records else max(0, records[-1].offset - self._place))

    async def _send(self, log_id: str, records: Sequence[StoredRecord]) -> None:
        part: list[bytes] = []
        size, last = 0, self._place
        for record in records:
            encoded = _entry(record)
            if size + len(encoded) > _ENTRIES_LIMIT:
                await self._apply(log_id, last, part)
                part, size = [], 0
            part.append(encoded)
            size += len(encoded)
            last = record.offset
        if part:
            await self._apply(log_id, last, part)

    async def _apply(
        self, log_id: str, to: int, entries: Sequence[bytes], *, first: bool = False, last: bool = False
    ) -> None:
        span = (self._place + 1, to + 1)
        answer = await self._control.request(
            lambda number: apply(number, log_id, span, entries, first=first, last=last)
        )
        if not isinstance(answer, Applied) or answer.status != _DONE:
            raise Unavailable(f"The broker did not apply a change: {answer}")
        self._place = to


def _entry(record: StoredRecord) -> bytes:
    if record.value is None:
        return entry(Entry(_REMOVED, record.key))
    granted = AccessGranted.decode(record.value)
    keys = [Key(key.id, key.type, base64.b64decode(key.key_base64)) for key in granted.keys]
    certificates = [bytes.fromhex(fingerprint) for fingerprint in granted.certificates]
    state = _ACTIVE if granted.enabled else _DISABLED
    return entry(Entry(state, granted.device_id, granted.address, keys, certificates))
