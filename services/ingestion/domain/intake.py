"""From the spool's records to the log's: where each goes, and why some are set aside."""

from base64 import b64encode
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from services.ingestion.domain.payloads import SAID, Envelope, Fault, envelope_of, fault_of
from services.ingestion.domain.records import (
    BROKER_STARTED,
    CONNECTED,
    DISCONNECTED,
    HANDED_OVER,
    MALFORMED,
    PUBLISH,
    Batch,
    SpoolRecord,
)
from shared.log import Record, Topic
from shared.messages.devices import DataReceived, HandedOver, PresenceChanged, Rejected, UpReceived
from shared.messages.topics import DATA, HANDED, PRESENCE, UP, rejected
from shared.registry import Entry

MAX_TAG = 256
DEFAULT_TAG = "default"

Devices = Mapping[str, Entry]


class Intake:
    """What becomes of a batch: records to append by topic, and what to count."""

    def __init__(self) -> None:
        self.appends: dict[Topic, list[Record]] = {}
        self.rejected: Counter[tuple[str, Fault]] = Counter()

    def add(self, topic: Topic, record: Record) -> None:
        """Append `record` to `topic`."""
        self.appends.setdefault(topic, []).append(record)

    def reject(self, topic: Topic, refusal: Rejected, fault: Fault) -> None:
        """Set aside what was meant for `topic`."""
        self.rejected[topic.name, fault] += 1
        self.add(rejected(topic), refusal.record(refusal.device_id))


class Address(NamedTuple):
    """What a topic means: the log's topic, and the tag of a data point."""

    topic: Topic
    tag: str


def address_of(topic: str) -> Address | Fault:
    """`j/data/<id>[/<tag, of any depth>]` and `j/up/<id>` (spec: mqtt-device-protocol 5)."""
    match topic.split("/", 3):
        case ["j", "data", _device]:
            return Address(DATA, DEFAULT_TAG)
        case ["j", "data", _device, tag]:
            return Address(DATA, tag or DEFAULT_TAG) if len(tag) <= MAX_TAG else Fault.TAG_TOO_LONG
        case ["j", "up", _device]:
            return Address(UP, "")
    return Fault.UNKNOWN_TOPIC


def strangers(batch: Batch, devices: Devices) -> bool:
    """Whether a device that is not in `devices` published something."""
    return any(record.kind == PUBLISH and record.device not in devices for record in batch.records)


def sort_out(batch: Batch, devices: Devices, now: int) -> Intake:
    """Where each record of `batch` goes. `now`: ms, the time of taking in."""
    sorter = _Sorter(batch.spool, devices, now)
    for record in batch.records:
        sorter.sort(record)
    return sorter.intake


class _Sorter:
    """Sorts the records of one batch."""

    def __init__(self, spool: str, devices: Devices, now: int) -> None:
        self._spool = spool
        self._devices = devices
        self._now = now
        self._addresses: dict[str, Address | Fault] = {}
        self.intake = Intake()

    def sort(self, record: SpoolRecord) -> None:
        """One record."""
        if record.kind == PUBLISH:
            self._publish(record)
        elif record.kind == HANDED_OVER:
            handed = self._handed(record)
            self.intake.add(HANDED, handed.record(record.device))
        elif record.kind == MALFORMED:
            self._reject(record, DATA, Fault.MALFORMED_RECORD)
        else:
            self.intake.add(PRESENCE, self._presence(record).record(record.device or self._spool))

    def _publish(self, record: SpoolRecord) -> None:
        address = self._addresses.get(record.detail)
        if address is None:
            address = self._addresses[record.detail] = address_of(record.detail)
        device = self._devices.get(record.device)
        if isinstance(address, Fault):
            self._reject(record, DATA, address)
        elif device is None:
            self._reject(record, address.topic, Fault.UNKNOWN_DEVICE)
        elif address.topic is DATA:
            self._data(record, device, address.tag)
        else:
            self._up(record, device)

    def _data(self, record: SpoolRecord, device: Entry, tag: str) -> None:
        if (fault := fault_of(record.payload)) is not None:
            self._reject(record, DATA, fault)
            return
        point = DataReceived(
            self._id(record),
            device.workspace_id,
            device.fleet_id,
            device.id,
            device.name,
            tag,
            record.time,
            max(self._now, record.time),
            record.payload.decode(),
        )
        self.intake.add(DATA, point.record())

    def _up(self, record: SpoolRecord, device: Entry) -> None:
        envelope = envelope_of(record.payload)
        if isinstance(envelope, Envelope):
            up = UpReceived(self._id(record), device.workspace_id, device.id, envelope.key, envelope.value, record.time)
            self.intake.add(UP, up.record())
        else:
            self._reject(record, UP, envelope)

    def _handed(self, record: SpoolRecord) -> HandedOver:
        return HandedOver(
            id=self._id(record),
            down_id=record.detail,
            device_id=record.device,
            live=bool(record.flags & 1),
            at=record.time,
            spool=self._spool,
            session=record.session,
        )

    def _presence(self, record: SpoolRecord) -> PresenceChanged:
        told = connection_of(record.detail) if record.kind == CONNECTED else Connection("", "")
        return PresenceChanged(
            id=self._id(record),
            kind=_PRESENCE[record.kind],
            device_id=record.device,
            spool=self._spool,
            boot=record.boot,
            session=record.session,
            at=record.time,
            remote_address=told.address,
            credential=told.credential,
            reason=record.detail if record.kind == DISCONNECTED else "",
        )

    def _reject(self, record: SpoolRecord, topic: Topic, fault: Fault) -> None:
        refusal = Rejected(
            id=self._id(record),
            device_id=record.device,
            reason=fault,
            message=SAID[fault],
            topic=record.detail,
            at=record.time or self._now,
            payload_base64=b64encode(record.payload).decode(),
        )
        self.intake.reject(topic, refusal, fault)

    def _id(self, record: SpoolRecord) -> str:
        return f"{self._spool}-{record.sequence:016x}"


_PRESENCE = {CONNECTED: "connected", DISCONNECTED: "disconnected", BROKER_STARTED: "broker_started"}


class Connection(NamedTuple):
    """What is told of a connection: IP, and `token:<key id>` or `certificate:<fingerprint>`."""

    address: str
    credential: str


def connection_of(detail: str) -> Connection:
    """From the pairs in a `connected` record."""
    pairs = dict(pair.partition("=")[::2] for pair in detail.split(" "))
    by = pairs.get("by", "")
    return Connection(pairs.get("address", ""), f"{by}:{pairs.get('credential', '')}" if by else "")
