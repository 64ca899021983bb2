"""What both SQLite adapters stand on: one thread that writes and commits in groups, and connections that read."""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

import structlog

from shared.errors import Conflict, OutOfSpace, Unavailable, ZdmError

logger = structlog.get_logger()

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_BUSY_S = 5.0
_WAITING_LIMIT = 1000  # callers whose writes may wait at once; the next ones wait to be let in
_GROUP_LIMIT = 200  # writes committed together
_DEADLINE_S = 20.0
_READER_THREADS = 2
_INTERRUPT_EVERY_S = 0.05
_FREE_READERS = 8  # connections kept open for the next readers


def connect(path: Path) -> sqlite3.Connection:
    """A connection without implicit transactions; `synchronous=FULL`: a commit is on disk when it returns."""
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA wal_autocheckpoint=2000")
    connection.execute("PRAGMA cache_size=-8000")
    return connection


@contextmanager
def translated() -> Iterator[None]:
    """Say the driver's errors in the words of the ports."""
    try:
        yield
    except sqlite3.Error as error:
        raise translation(error) from error


def translation(error: sqlite3.Error) -> ZdmError:
    """What `error` means to a caller."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return OutOfSpace("The disk, or the space set for this file, is full")
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(str(error))
    return Unavailable(f"The store does not answer: {error}")


def touch(connection: sqlite3.Connection) -> None:
    """Note the time in the table `about`, by way of a value that finds room only where a small write would."""
    connection.execute("UPDATE about SET touched = zeroblob(16384)")
    connection.execute("UPDATE about SET touched = ?", (int(time.time()),))


class _Job(NamedTuple):
    work: Work[Any]
    answer: "asyncio.Future[Any]"


_Outcome = tuple[_Job, Any, BaseException | None]


class Writer:
    """Runs writes one after the other in a thread of its own; all that wait are one transaction."""

    def __init__(self, path: Path, max_pages: int | None = None, deadline_s: float = _DEADLINE_S) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline_s = deadline_s
        self._closed = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._room = asyncio.Semaphore(_WAITING_LIMIT)
        with translated():
            self._connection = connect(path)
            if max_pages is not None:
                self._connection.execute(f"PRAGMA max_page_count={max_pages}")
        self._thread = threading.Thread(target=self._run, name=f"writer {path.name}", daemon=True)
        self._thread.start()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction; its result once that is on disk. On an error nothing of it is kept.

        It is run once more when another one spoilt the transaction. A caller that is cancelled, or told that there was
        no answer in time, cannot know: nothing is kept of what had not begun by then, what had may be.
        """
        try:
            async with asyncio.timeout(self._deadline_s), self._room:
                if self._closed:
                    raise Unavailable("The store is closed")
                answer: asyncio.Future[T] = self._loop.create_future()
                self._jobs.put(_Job(work, answer))
                return await answer
        except TimeoutError:
            raise Unavailable("The store did not answer in time") from None

    async def close(self) -> None:
        """Write what was accepted, then end; whoever comes or waits to be let in gets `Unavailable`."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._connection.close()

    def _run(self) -> None:
        while True:
            group, ending = self._next_group()
            if group:
                self._answer(self._commit(group))
            if ending:
                return

    def _next_group(self) -> tuple[list[_Job], bool]:
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == _GROUP_LIMIT:
                return group, False
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Job]) -> list[_Outcome]:
        outcomes = self._try_together(group)
        if outcomes is not None:
            return outcomes
        # One of them spoilt the transaction: each for itself, so that only the guilty one fails.
        return [outcome for job in group for outcome in self._try_alone(job)]

    def _try_together(self, group: list[_Job]) -> list[_Outcome] | None:
        try:
            with self._transaction():
                return self._done(group)
        except Exception:  # noqa: BLE001 (whatever it is, `_try_alone` tells its owner)
            return None

    def _try_alone(self, job: _Job) -> list[_Outcome]:
        try:
            with self._transaction():
                return self._done([job])
        except sqlite3.Error as error:
            return [(job, None, translation(error))]
        except Exception as error:  # noqa: BLE001 (the caller's own; it gets it back)
            return [(job, None, error)]

    def _done(self, group: list[_Job]) -> list[_Outcome]:
        # Who has gone, or was told that it took too long, does not want it any more.
        return [(job, job.work(self._connection), None) for job in group if not job.answer.done()]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # SQLite has already rolled back after some errors, a full disk among them.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _answer(self, outcomes: list[_Outcome]) -> None:
        def tell() -> None:
            for job, result, error in outcomes:
                if job.answer.done():
                    continue
                if error is None:
                    job.answer.set_result(result)
                else:
                    job.answer.set_exception(error)

        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever asked
            self._loop.call_soon_threadsafe(tell)


class Readers:
    """Connections for reading, each used by one reader at a time; the waiting happens in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._free: list[sqlite3.Connection] = []
        self._threads = ThreadPoolExecutor(_READER_THREADS, thread_name_prefix=f"reader {path.name}")
        self._closed = False

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a thread."""
        async with self.connection() as connection:
            return await self.on(connection, work)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[sqlite3.Connection]:
        """A connection of one's own, for a reading in several steps."""
        with translated():
            connection = self._free.pop() if self._free else connect(self._path)
        try:
            yield connection
        finally:
            if self._closed or len(self._free) >= _FREE_READERS:
                connection.close()
            else:
                self._free.append(connection)

    async def on(self, connection: sqlite3.Connection, work: Work[T]) -> T:
        """Run `work` in a thread with `connection`, which no one else may use meanwhile."""
        if self._closed:
            raise Unavailable("The store is closed")
        with translated():
            step = self._threads.submit(work, connection)
            result = asyncio.wrap_future(step)
            try:
                return await asyncio.shield(result)
            except asyncio.CancelledError:
                step.cancel()
                # The connection may be given back only when the thread has let go of it.
                while not result.done():
                    # Again and again: what has not begun its statement does not notice.
                    connection.interrupt()
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.wait([result], timeout=_INTERRUPT_EVERY_S)
                raise

    async def close(self) -> None:
        """End the threads and close what is free; what is in use closes when it is given back."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._free:
            connection.close()
