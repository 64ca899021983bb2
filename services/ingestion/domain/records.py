"""What the spool holds: one record for each thing that happened at the broker (docs/protocols.md 2)."""

from typing import NamedTuple

MALFORMED = 0  # a whole record that is not as the format says; `payload` is its body
PUBLISH = 1
CONNECTED = 2
DISCONNECTED = 3
BROKER_STARTED = 4
HANDED_OVER = 5

KINDS = {
    MALFORMED: "malformed",
    PUBLISH: "publish",
    CONNECTED: "connected",
    DISCONNECTED: "disconnected",
    BROKER_STARTED: "broker_started",
    HANDED_OVER: "handed_over",
}


class SpoolRecord(NamedTuple):
    """One record. `detail`: topic, connection, reason or down id, by kind."""

    kind: int
    flags: int
    sequence: int
    time: int
    boot: int
    session: int
    device: str
    detail: str
    payload: bytes


class Place(NamedTuple):
    """How far the spool is read: everything before `offset` of `segment`; `sequence`: of the last record read."""

    segment: str
    offset: int
    sequence: int


class Batch(NamedTuple):
    """Records of one segment in their order, and the place behind them.

    `missing`: how many sequence numbers were passed over, of records that damage took (a broker start skips some too,
    which is not counted).
    """

    spool: str
    records: list[SpoolRecord]
    place: Place
    missing: int = 0
