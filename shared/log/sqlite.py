"""The log in one SQLite file: a table a topic, one partition each.

Any number of processes may share the file. A member of a group holds its partition by a lock on a file beside it,
which the kernel releases when the process ends, however it ends.
"""

import asyncio
import fcntl
import os
import re
import secrets
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from shared.log import FETCH_BYTES, START, Places, Record, Replay, StoredRecord, Subscription, Topic
from shared.sqlite import Readers, Writer, touch
from shared.tasks import keep_running

logger = structlog.get_logger()

_PARTITION = 0
# How long the appends of another process may go unnoticed, and a lock that has become free.
_POLL_S = 0.25
_TRIM_EVERY_S = 60.0
_TRIM_LIMIT = 5_000
_TOMBSTONE_S = 24 * 3600
# With a dot within, as no table of our own has one.
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


class SqliteLog:
    """See `shared.log.Log`. `max_pages` bounds the file, in pages of 4 KiB."""

    def __init__(self, path: Path, writer: Writer, readers: Readers) -> None:
        self._path = path
        self._writer = writer
        self._readers = readers
        self._tables: dict[str, str] = {}
        self._appended: dict[str, asyncio.Event] = {}

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        """See the port."""
        if not records:
            return
        table = await self._table(topic)
        now = int(time.time())
        if topic.compacted:
            await self._writer.write(lambda connection: _append_compacted(connection, table, records, now))
        else:
            await self._writer.write(lambda connection: _append(connection, table, records, now))
        if (event := self._appended.pop(topic.name, None)) is not None:
            event.set()

    @asynccontextmanager
    async def subscribe(self, topic: Topic, group: str) -> AsyncIterator[Subscription]:
        """See the port."""
        table = await self._table(topic)
        # No topic's name has an @: two pairs of topic and group never share a file.
        lock = self._path.with_name(f"{self._path.name}.locks") / f"{topic.name}@{group}.lock"
        async with AsyncExitStack() as stack:
            member = _Member(self, topic, table, group, lock)
            stack.callback(member.leave)
            yield member

    @asynccontextmanager
    async def replay(self, topic: Topic, after: Places = START) -> AsyncIterator[Replay]:
        """See the port."""
        yield _Reading(self, topic, await self._table(topic), after.get(_PARTITION, -1))

    async def end(self, topic: Topic) -> Places:
        """See the port."""
        table = await self._table(topic)
        query = f"SELECT max(offset) FROM {table}"  # noqa: S608 (a checked name)
        last = await self._readers.read(lambda connection: _scalar(connection, query))
        return {} if last is None else {_PARTITION: int(last)}

    async def identity(self, topic: Topic) -> str:
        """See the port."""
        found = await self._readers.read(lambda connection: _scalar(connection, "SELECT value FROM about"))
        return str(found)

    async def ping(self) -> None:
        """See the port."""
        await self._writer.write(touch)

    async def trim(self) -> None:
        """Every minute, forget what is older than its topic keeps. For ever."""
        while True:
            await asyncio.sleep(_TRIM_EVERY_S)
            await self.trim_now(int(time.time()))

    async def trim_now(self, now: int) -> None:
        """Forget what is too old at `now`, in bounded steps, so that appends get their turn in between."""
        while await self._writer.write(lambda connection: _trim(connection, now)):
            pass

    # For the members and readings below.

    async def read(self, topic: Topic, table: str, after: int, limit: int, wait_s: float) -> list[StoredRecord]:
        """What comes after `after`; waits for it up to `wait_s`."""
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            appended = self._appended.setdefault(topic.name, asyncio.Event())
            records = await self._readers.read(lambda connection: _select(connection, table, after, limit))
            left = deadline - asyncio.get_running_loop().time()
            if records or left <= 0:
                return records
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, _POLL_S)):
                    await appended.wait()

    async def committed(self, topic: Topic, group: str) -> int:
        """The last offset that `group` is done with, -1 for none."""
        query = "SELECT offset FROM places WHERE consumers = ? AND topic = ?"
        found = await self._readers.read(lambda connection: _scalar(connection, query, group, topic.name))
        return -1 if found is None else int(found)

    async def commit(self, topic: Topic, group: str, offset: int) -> None:
        """Remember that `group` is done with `offset` and all before."""
        # A late commit of earlier records takes nothing back.
        statement = (
            "INSERT INTO places (consumers, topic, offset) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET offset = max(offset, excluded.offset)"
        )
        await self._writer.write(lambda connection: connection.execute(statement, (group, topic.name, offset)).rowcount)

    async def _table(self, topic: Topic) -> str:
        if (table := self._tables.get(topic.name)) is None:
            if not _NAME.fullmatch(topic.name):
                raise ValueError(f"not a topic name: {topic.name!r}")
            table = f'"{topic.name}"'
            await self._writer.write(lambda connection: _make_table(connection, table, topic))
            self._tables[topic.name] = table
        return table


class _Reading:
    """A place in a topic that moves on with what is fetched."""

    def __init__(self, log: SqliteLog, topic: Topic, table: str, after: int) -> None:
        self._log = log
        self._topic = topic
        self._table = table
        self._after = after

    async def fetch(self, limit: int = 1000, wait_s: float = 1.0) -> Sequence[StoredRecord]:
        """See the port."""
        records = await self._log.read(self._topic, self._table, self._after, limit, wait_s)
        if records:
            self._after = records[-1].offset
        return records


class _Member:
    """A member of a group: reads while it holds the lock, stands by while another does."""

    def __init__(self, log: SqliteLog, topic: Topic, table: str, group: str, lock: Path) -> None:
        self._log = log
        self._topic = topic
        self._table = table
        self._group = group
        self._lock = lock
        self._held: int | None = None
        self._reading: _Reading | None = None

    async def fetch(self, limit: int = 1000, wait_s: float = 1.0) -> Sequence[StoredRecord]:
        """See the port."""
        if self._reading is None and not await self._taken(wait_s):
            return []
        if self._reading is None:
            committed = await self._log.committed(self._topic, self._group)
            self._reading = _Reading(self._log, self._topic, self._table, committed)
        return await self._reading.fetch(limit, wait_s)

    async def commit(self, records: Sequence[StoredRecord]) -> None:
        """See the port."""
        if records:
            await self._log.commit(self._topic, self._group, max(record.offset for record in records))

    def leave(self) -> None:
        """Let another member have the partition."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    async def _taken(self, wait_s: float) -> bool:
        deadline = asyncio.get_running_loop().time() + wait_s
        while self._held is None:
            self._held = _try_lock(self._lock)
            if self._held is None:
                if asyncio.get_running_loop().time() >= deadline:
                    return False
                await asyncio.sleep(min(wait_s, _POLL_S))
        return True


def _try_lock(path: Path) -> int | None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    held = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS about (value TEXT NOT NULL, touched INTEGER NOT NULL)")
    if _scalar(connection, "SELECT count(*) FROM about") == 0:
        connection.execute("INSERT INTO about VALUES (?, 0)", (secrets.token_hex(8),))
    connection.execute(
        "CREATE TABLE IF NOT EXISTS topics (name TEXT PRIMARY KEY, next INTEGER NOT NULL, retention_s INTEGER)"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS places (consumers TEXT, topic TEXT, offset INTEGER NOT NULL, "
        "PRIMARY KEY (consumers, topic))"
    )


def _make_table(connection: sqlite3.Connection, table: str, topic: Topic) -> None:
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {table} "
        "(offset INTEGER PRIMARY KEY, at INTEGER NOT NULL, key TEXT NOT NULL, value BLOB)"
    )
    retention_s = None if topic.compacted else topic.retention_s
    connection.execute(
        "INSERT INTO topics VALUES (?, 0, ?) ON CONFLICT (name) DO UPDATE SET retention_s = excluded.retention_s",
        (topic.name, retention_s),
    )
    if topic.compacted:
        connection.execute(f'CREATE INDEX IF NOT EXISTS "{topic.name}@key" ON {table} (key)')
        connection.execute(f'CREATE INDEX IF NOT EXISTS "{topic.name}@gone" ON {table} (at) WHERE value IS NULL')


def _append(connection: sqlite3.Connection, table: str, records: Sequence[Record], now: int) -> None:
    offset = _claim(connection, table, len(records))
    rows = ((offset + number, now, record.key, record.value) for number, record in enumerate(records))
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", rows)  # noqa: S608 (a checked name)


def _append_compacted(connection: sqlite3.Connection, table: str, records: Sequence[Record], now: int) -> None:
    offset = _claim(connection, table, len(records))
    latest = {record.key: (offset + number, now, record.key, record.value) for number, record in enumerate(records)}
    connection.executemany(f"DELETE FROM {table} WHERE key = ?", ((key,) for key in latest))  # noqa: S608
    connection.executemany(f"INSERT INTO {table} VALUES (?, ?, ?, ?)", latest.values())  # noqa: S608


def _claim(connection: sqlite3.Connection, table: str, count: int) -> int:
    statement = "UPDATE topics SET next = next + ? WHERE name = ? RETURNING next"
    return int(connection.execute(statement, (count, table.strip('"'))).fetchall()[0][0]) - count


def _select(connection: sqlite3.Connection, table: str, after: int, limit: int) -> list[StoredRecord]:
    query = f"SELECT {_PARTITION}, offset, key, value FROM {table} WHERE offset > ? ORDER BY offset LIMIT ?"  # noqa: S608
    records, size = [], 0
    for row in connection.execute(query, (after, limit)):
        record = StoredRecord._make(row)
        records.append(record)
        size += len(record.value or b"")
        if size >= FETCH_BYTES:
            break
    return records


def _trim(connection: sqlite3.Connection, now: int) -> bool:
    """Drop some of what is too old, and of old tombstones; whether there may be more.

    Never the newest record of a topic, which `end` goes by.
    """
    more = False
    for name, retention_s in connection.execute("SELECT name, retention_s FROM topics").fetchall():
        if retention_s is None:
            before, oldest = now - _TOMBSTONE_S, f'SELECT offset FROM "{name}" WHERE value IS NULL ORDER BY at'  # noqa: S608
        else:
            # Records lie in the order of their times: looking at the first ones spares looking at all.
            before, oldest = now - retention_s, f'SELECT offset FROM "{name}" ORDER BY offset'  # noqa: S608
        statement = (
            f'DELETE FROM "{name}" WHERE offset IN ({oldest} LIMIT {_TRIM_LIMIT}) '  # noqa: S608
            f'AND at < ? AND offset < (SELECT max(offset) FROM "{name}")'
        )
        more |= connection.execute(statement, (before,)).rowcount == _TRIM_LIMIT
    return more


def _scalar(connection: sqlite3.Connection, query: str, *parameters: object) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return None if row is None else row[0]


@asynccontextmanager
async def sqlite_log(path: Path, max_pages: int | None = None) -> AsyncIterator[SqliteLog]:
    """The log in the file `path`, made when missing; what was accepted is written before this ends."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        writer = Writer(path, max_pages)
        stack.push_async_callback(writer.close)
        readers = Readers(path)
        stack.push_async_callback(readers.close)
        await writer.write(_prepare)
        log = SqliteLog(path, writer, readers)
        trimming = asyncio.create_task(keep_running("log-trim", log.trim), name="log-trim")
        stack.callback(trimming.cancel)
        yield log
