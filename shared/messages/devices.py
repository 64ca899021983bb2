"""Records on what devices say and are told. Times are ms since 1970, UTC.

The hot ones are plain tuples, made and read with one call of the JSON library: a device's payload or value
travels as text (`payload`, `value`), exactly as it came, and is never parsed again on its way.
"""

from typing import Any, Literal, NamedTuple

import orjson

from shared.errors import Refused
from shared.log import Record
from shared.messages.base import Message


def members(kind: type[NamedTuple], value: bytes) -> list[Any]:
    """The members of `kind` in `value`, in their order; what a later version added is left out."""
    try:
        found = orjson.loads(value)
        values = [found[name] for name in kind._fields]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Refused(f"not a {kind.__name__}: {error}") from error
    for one, wanted in zip(values, kind.__annotations__.values(), strict=True):
        # All are text or integers; `type` as a boolean is no integer here.
        if type(one) is not wanted:
            raise Refused(f"not a {kind.__name__}: {one!r:.80} is no {wanted.__name__}")
    return values


class DataReceived(NamedTuple):
    """A device sent a data point. `id`: `<spool id>-<sequence, 16 hex digits>`, the same on every repeat."""

    id: str
    workspace_id: str
    fleet_id: str  # at the time of reception
    device_id: str
    device_name: str
    tag: str
    timestamp_device: int  # arrival at the broker; unique and rising per device
    timestamp_in: int  # when ingestion took it into the log
    payload: str  # JSON text

    def record(self) -> Record:
        """Keyed by device."""
        return Record(self.device_id, orjson.dumps(self._asdict()))

    @classmethod
    def decode(cls, value: bytes) -> "DataReceived":
        """Raise `Refused` when `value` is no such message."""
        return cls(*members(cls, value))


class UpReceived(NamedTuple):
    """A device sent an envelope on `j/up` (spec: mqtt-device-protocol 5)."""

    id: str  # as DataReceived.id
    workspace_id: str
    device_id: str
    key: str
    value: str  # JSON text
    received_at: int  # arrival at the broker

    def record(self) -> Record:
        """Keyed by device."""
        return Record(self.device_id, orjson.dumps(self._asdict()))

    @classmethod
    def decode(cls, value: bytes) -> "UpReceived":
        """Raise `Refused` when `value` is no such message."""
        return cls(*members(cls, value))


class DownRequested(NamedTuple):
    """Something for a device: becomes `{"version", "key", "value"}` on `j/dn`."""

    id: str  # comes back in HandedOver
    device_id: str
    key: str
    value: str  # JSON text
    version: int  # server time of the message, ms: when it was requested

    def record(self) -> Record:
        """Keyed by device."""
        return Record(self.device_id, orjson.dumps(self._asdict()))

    @classmethod
    def decode(cls, value: bytes) -> "DownRequested":
        """Raise `Refused` when `value` is no such message."""
        return cls(*members(cls, value))


class HandedOver(Message):
    """What one broker did with a DownRequested: gave it to the device's live session there, or found none (away).

    Each broker says so of each request, once or, after a crash, again. `live` is final, whatever others say before or
    after: the request was sent. Away says of this broker only that it will never hand the request over; the device
    may be at another. A request is unsent as long as no broker has said `live`.
    """

    id: str  # as DataReceived.id
    down_id: str
    device_id: str
    live: bool
    at: int
    spool: str = ""  # of the broker, as in PresenceChanged; empty in records of before there was more than one
    session: int = 0  # as in PresenceChanged; 0 for away


class PresenceChanged(Message):
    """A session began or ended, or a broker started and all sessions of its older `boot`s are gone.

    `spool` and `boot` order what one broker says: presence of an older boot of the same spool is stale.
    """

    id: str  # as DataReceived.id
    kind: Literal["connected", "disconnected", "broker_started"]
    device_id: str  # empty for broker_started
    spool: str
    boot: int
    session: int  # 0 for broker_started
    at: int
    remote_address: str = ""
    credential: str = ""  # connected: `token:<key id>` or `certificate:<fingerprint>`
    reason: str = ""  # disconnected: docs/protocols.md 2


class Rejected(Message):
    """Something set aside: why, and its bytes (base64), so that nothing acknowledged is gone."""

    id: str
    device_id: str
    reason: str  # a fixed word, the label of the counter
    message: str
    topic: str  # where it came from
    at: int
    payload_base64: str
