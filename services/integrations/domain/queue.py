"""The queue of an integration: lanes, chunks, and the batch under way (docs/decisions/0007)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import orjson

from shared.clock import rfc3339_ms
from shared.messages.devices import DataReceived

BATCH_POINTS = 1000
BATCH_BYTES = 1024 * 1024


def lane_id(integration_id: str, partition: int) -> str:
    """A lane: what one integration gets from one partition of the log, in order."""
    return f"{integration_id}.{partition}"


@dataclass(frozen=True)
class Chunk:
    """Points that were enqueued together. `seen`: spool id -> sequence number of its newest point."""

    id: str  # <lane>:<offset of the first record, 16 digits>
    lane: str
    integration_id: str
    workspace_id: str
    first: int
    last: int
    count: int
    size: int  # bytes, about
    oldest: int  # ms since 1970
    seen: dict[str, int]
    points: tuple[str, ...] = field(default=(), repr=False)  # JSON objects without the opening brace and `id`


@dataclass(frozen=True)
class Batch:
    """A frozen batch: its id, its chunks, and which of its points are still to be delivered, as half-open ranges."""

    id: str
    first_chunk: str
    last_chunk: str
    last_offset: int
    count: int
    ranges: tuple[tuple[int, int], ...]
    refusals: int = 0  # how often the receiver has refused the first range for what it holds
    tries: int = 0  # of the first range

    def delivered(self) -> Self:
        """The first range is done with."""
        return replace(self, ranges=self.ranges[1:], refusals=0, tries=0)

    def halved(self) -> Self:
        """The first range is to be sent as two."""
        (start, stop), *rest = self.ranges
        middle = (start + stop) // 2
        return replace(self, ranges=((start, middle), (middle, stop), *rest), refusals=0, tries=0)

    @property
    def isolated(self) -> bool:
        """Whether the first range is a single point."""
        start, stop = self.ranges[0]
        return stop - start == 1


@dataclass(frozen=True)
class Lane:
    """How far a lane is. `done`: offset of the last record that was delivered (or dropped, or never for it)."""

    id: str
    integration_id: str
    workspace_id: str
    partition: int
    done: int
    seen: dict[str, int] = field(default_factory=dict)
    batch: Batch | None = None
    delivered: int = 0
    parked: int = 0
    dropped: int = 0
    last_sent_at: int | None = None
    last_error: str = ""
    next_try_at: int | None = None


def rendered_point(point: DataReceived) -> str:
    """A point as it is sent, from after `{"id":"…",` on (spec: integrations 2)."""
    members = orjson.dumps(
        {
            "workspace_id": point.workspace_id,
            "fleet_id": point.fleet_id,
            "device_id": point.device_id,
            "device_name": point.device_name,
            "timestamp_device": rfc3339_ms(point.timestamp_device),
            "timestamp_in": rfc3339_ms(point.timestamp_in),
            "tag": point.tag,
            "payload": orjson.Fragment(point.payload),
        }
    )
    return members[1:].decode()


def body(batch_id: str, points: Sequence[str], start: int) -> bytes:
    """What is posted: `points` of the batch from position `start` on, whose ids are their positions."""
    items = (f'{{"id":"{start + number}",{point}' for number, point in enumerate(points))
    return f'{{"batch_id":"{batch_id}","result":[{",".join(items)}]}}'.encode()


def frozen(batch_id: str, chunks: Sequence[Chunk]) -> Batch:
    """The largest batch that begins with the first of `chunks`."""
    taken, count, size = 0, 0, 0
    for chunk in chunks:
        if taken and (count + chunk.count > BATCH_POINTS or size + chunk.size > BATCH_BYTES):
            break
        taken, count, size = taken + 1, count + chunk.count, size + chunk.size
    last = chunks[taken - 1]
    return Batch(batch_id, chunks[0].id, last.id, last.last, count, ((0, count),))


def newer(seen: Mapping[str, int], record_id: str) -> tuple[str, int] | None:
    """Spool and number of a record that is not known yet; None for one that was seen (numbers of a spool rise)."""
    spool, _, number = record_id.rpartition("-")
    sequence = int(number, 16)
    return (spool, sequence) if sequence > seen.get(spool, -1) else None
