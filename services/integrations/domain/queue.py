"""The queue of an integration: lanes, chunks, and the batch under way (docs/decisions/0007)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import orjson

from shared.clock import rfc3339_ms
from shared.errors import Conflict, Refused
from shared.messages.devices import DataReceived

BATCH_POINTS = 1000
BATCH_BYTES = 1024 * 1024
# What a body holds besides its points, and besides each of them.
_ENVELOPE = len('{"batch_id":"data000000000000","result":[]}')
_AROUND = len('{"id":"999",,')


def source_of(log: str, partition: int) -> str:
    """Where offsets mean something: a partition of one log. A log made anew begins again from nothing."""
    return f"{log}.{partition}"


def lane_id(integration_id: str, source: str) -> str:
    """A lane: what one integration gets from one source, in order."""
    return f"{integration_id}.{source}"


def integration_of(lane: str) -> str:
    """The integration of a lane."""
    return lane.partition(".")[0]


@dataclass(frozen=True)
class Chunk:
    """Points that were enqueued together. `seen`: spool id -> sequence number of its newest point so far in the lane;
    `total`: how many points the lane has had, up to and with these.
    """

    id: str  # <lane>:<offset of the first record>-<of the last>, 16 digits each
    lane: str
    integration_id: str
    workspace_id: str
    first: int
    last: int
    count: int
    size: int  # bytes of a body
    oldest: int  # ms since 1970
    seen: dict[str, int]
    total: int
    points: tuple[str, ...] = field(default=(), repr=False)  # JSON objects without the opening brace and `id`


@dataclass(frozen=True)
class Batch:
    """A frozen batch: its id, its chunks, and which of its points are still to be delivered, as half-open ranges."""

    id: str
    chunks: tuple[str, ...]
    last_offset: int
    newest: int  # ms since 1970: when its last chunk began
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
    def whole(self) -> bool:
        """Whether it is sent as one."""
        return self.ranges == ((0, self.count),)

    @property
    def isolated(self) -> bool:
        """Whether the first range is a single point."""
        start, stop = self.ranges[0]
        return stop - start == 1

    @property
    def left(self) -> int:
        """Points still to be delivered."""
        return sum(stop - start for start, stop in self.ranges)

    @property
    def message_id(self) -> str:
        """Names what is sent next: receivers that drop a repeated message id must not take one part for another."""
        start, stop = self.ranges[0]
        return self.id if self.whole else f"{self.id}-{start}-{stop}"


class LaneLost(Conflict):
    """Another process has the lane now, and knows better how far it is."""


@dataclass(frozen=True)
class Lane:
    """How far a lane is. `done`: offset of the last record that was delivered (or dropped, or never for it).

    `owner`: the process that delivers it, empty for none; `wanted`: another one gets what is to be delivered.
    """

    id: str
    integration_id: str
    workspace_id: str
    source: str
    done: int
    seen: dict[str, int] = field(default_factory=dict)
    batch: Batch | None = None
    delivered: int = 0
    parked: int = 0
    dropped: int = 0
    last_sent_at: int | None = None
    last_error: str = ""
    next_try_at: int | None = None
    owner: str = ""
    wanted: bool = False

    @property
    def total(self) -> int:
        """Points that it is done with."""
        return self.delivered + self.parked + self.dropped


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


def size_of(rendered: str) -> int:
    """Bytes of a body that a rendered point takes at most."""
    return _AROUND + (len(rendered) if rendered.isascii() else len(rendered.encode()))


def fits(count: int, size: int) -> bool:
    """Whether so many points of so many bytes together are a batch."""
    return count <= BATCH_POINTS and size + _ENVELOPE <= BATCH_BYTES


def body(batch_id: str, points: Sequence[str], start: int) -> bytes:
    """What is posted: `points` of the batch from position `start` on, whose ids are their positions."""
    items = (f'{{"id":"{start + number}",{point}' for number, point in enumerate(points))
    return f'{{"batch_id":"{batch_id}","result":[{",".join(items)}]}}'.encode()


def next_batch(chunks: Sequence[Chunk]) -> Sequence[Chunk]:
    """As many of `chunks` as make a batch, the first one in any case."""
    count, size = 0, 0
    for taken, chunk in enumerate(chunks):
        count, size = count + chunk.count, size + chunk.size
        if taken and not fits(count, size):
            return chunks[:taken]
    return chunks


def frozen(batch_id: str, chunks: Sequence[Chunk]) -> Batch:
    """The batch of these chunks."""
    count = sum(chunk.count for chunk in chunks)
    last = chunks[-1]
    return Batch(batch_id, tuple(chunk.id for chunk in chunks), last.last, last.oldest, count, ((0, count),))


def number_of(record_id: str) -> tuple[str, int]:
    """Spool and number of a record (numbers of a spool rise); raise `Refused` for an id of another form."""
    spool, _, number = record_id.rpartition("-")
    try:
        return spool, int(number, 16)
    except ValueError:
        raise Refused(f"not the id of a record: {record_id!r}") from None
