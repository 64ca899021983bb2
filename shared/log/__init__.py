"""The log: records appended to topics under keys, read by groups that remember their place.

Promises, kept by every adapter and tested by `tests/contracts/log_promises.py`:

* What `append` returned from is durable, and survives the end of the process at any moment.
* Records of one key in one topic are read in the order in which they were appended.
* Each group reads every record at least once: what was fetched and not committed is fetched again after a restart.
* Two members of one group never hold the same partition at once; one that ends, however, is replaced.
* An offset is never used twice within a topic's partition, and offsets rise.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

# Partition -> offset of the last record seen in it. Empty: the beginning.
Places = Mapping[int, int]
START: Places = {}
# Keeps a batch from filling the memory, however large its records are.
FETCH_BYTES = 8 * 1024 * 1024


class Record(NamedTuple):
    """Something to append. `value` None, in a compacted topic only: forget this key."""

    key: str
    value: bytes | None


class StoredRecord(NamedTuple):
    """Something read."""

    partition: int
    offset: int
    key: str
    value: bytes | None


class Topic(NamedTuple):
    """A topic and how it is kept: compacted ones keep the last record of each key, others `retention_s` seconds.

    The name is words of small letters, digits, `-` and `_`, at least two of them, with dots between.
    """

    name: str
    compacted: bool = False
    retention_s: int = 7 * 24 * 3600
    partitions: int | None = None  # None: as many as the installation says (the SQLite log always has one)


class Subscription(Protocol):
    """One member's reading of a topic on behalf of a group."""

    async def fetch(self, limit: int = 1000, wait_s: float = 1.0) -> Sequence[StoredRecord]:
        """Up to `limit` records after the last fetched, in order per partition; empty when none came within `wait_s`.

        Fewer when they are large: no more are added once they have `FETCH_BYTES` together.
        Raise `Unavailable` when the log cannot be reached.
        """
        ...

    async def commit(self, records: Sequence[StoredRecord]) -> None:
        """These, and all before them in their partitions, are done with: no member of the group gets them again.

        Raise `Unavailable` when that cannot be said, because another member has got the partition meanwhile or the log
        does not answer; then they are fetched again.
        """
        ...


class Replay(Protocol):
    """A reading of a topic that belongs to no group and commits nothing."""

    async def fetch(self, limit: int = 1000, wait_s: float = 1.0) -> Sequence[StoredRecord]:
        """As `Subscription.fetch`."""
        ...


class Log(Protocol):
    """Append and read."""

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        """Durable when this returns. Raise `OutOfSpace` or `Unavailable`; then some may be kept all the same.

        Raise `TooLarge` when a record is more than this log can ever take.
        """
        ...

    def subscribe(self, topic: Topic, group: str) -> AbstractAsyncContextManager[Subscription]:
        """Join `group`; a new group starts at the beginning of what is kept."""
        ...

    def replay(self, topic: Topic, after: Places = START) -> AbstractAsyncContextManager[Replay]:
        """Read what comes after `after`."""
        ...

    async def end(self, topic: Topic) -> Places:
        """The place of the newest record of each partition that has one."""
        ...

    async def identity(self, topic: Topic) -> str:
        """A text that is another one when `topic` was made anew: places of the one mean nothing in the other."""
        ...

    async def ping(self) -> None:
        """Raise `Unavailable` when the log cannot take an append now (`OutOfSpace` when that is why)."""
        ...


def after(records: Sequence[StoredRecord], places: Places = START) -> dict[int, int]:
    """`places` moved on past `records`."""
    return dict(places) | {record.partition: record.offset for record in records}
