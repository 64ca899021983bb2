"""What both SQLite adapters stand on: a writer that commits in groups, and readers."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from threading import Event

import pytest

from shared.errors import Conflict, Unavailable
from shared.sqlite import Readers, Writer, connect
from tests.contracts.child import child
from tests.support.waiting import eventually

_LONG_S = 30.0
# Counts for hours unless it is interrupted.
_ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with closing(connect(tmp_path / "store")) as connection:
        connection.execute("CREATE TABLE numbers (number UNIQUE)")
    return tmp_path / "store"


@asynccontextmanager
async def writing(path: Path, deadline_s: float = _LONG_S) -> AsyncIterator[Writer]:
    writer = Writer(path, deadline_s=deadline_s)
    try:
        yield writer
    finally:
        await writer.close()


@pytest.fixture
async def writer(path: Path) -> AsyncIterator[Writer]:
    async with writing(path) as writer:
        yield writer


@pytest.fixture
async def readers(path: Path) -> AsyncIterator[Readers]:
    readers = Readers(path)
    yield readers
    await readers.close()


def insert(*numbers: object) -> Callable[[sqlite3.Connection], int]:
    """A write of `numbers`; its result is how many there are then."""

    def work(connection: sqlite3.Connection) -> int:
        for number in numbers:
            connection.execute("INSERT INTO numbers VALUES (?)", (number,))
        return int(connection.execute("SELECT count(*) FROM numbers").fetchone()[0])

    return work


def numbers_in(path: Path) -> list[object]:
    with closing(connect(path)) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM numbers ORDER BY number")]


class Hold:
    """A write that keeps the writer's thread busy, so that others gather behind it."""

    def __init__(self, writer: Writer) -> None:
        self._begun, self._go_on = Event(), Event()
        self._task = asyncio.create_task(writer.write(self._work))

    def _work(self, _connection: sqlite3.Connection) -> None:
        self._begun.set()
        assert self._go_on.wait(_LONG_S)

    async def begun(self) -> None:
        await asyncio.to_thread(self._begun.wait)

    async def release(self) -> None:
        self._go_on.set()
        await asyncio.gather(self._task, return_exceptions=True)


@asynccontextmanager
async def held(writer: Writer) -> AsyncIterator[Hold]:
    hold = Hold(writer)
    await hold.begun()
    try:
        yield hold
    finally:
        await hold.release()


async def waiting(*writes: "asyncio.Task[int]") -> None:
    """Let the tasks run until they wait for the writer."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(write.done() for write in writes)


async def test_what_waits_is_committed_together_in_the_order_of_asking(path: Path, writer: Writer) -> None:
    statements: list[str] = []
    await writer.write(lambda connection: connection.set_trace_callback(statements.append))
    async with held(writer) as hold:
        writes = [asyncio.create_task(writer.write(insert(number))) for number in range(50)]
        await waiting(*writes)
        await hold.release()
        assert await asyncio.gather(*writes) == list(range(1, 51))
    assert statements.count("COMMIT") == 3  # of the callback, the hold and all the others
    assert numbers_in(path) == list(range(50))


async def test_only_the_guilty_one_of_a_group_fails_and_nothing_of_it_is_kept(path: Path, writer: Writer) -> None:
    def own_error(connection: sqlite3.Connection) -> int:
        insert(100)(connection)
        raise LookupError("mine")

    async with held(writer) as hold:
        works = [insert(1), insert(2, 1), own_error, insert(3), lambda c: c.execute("nonsense").rowcount, insert(4)]
        writes = [asyncio.create_task(writer.write(work)) for work in works]
        await waiting(*writes)
        await hold.release()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
    assert [outcome if isinstance(outcome, int) else type(outcome) for outcome in outcomes] == [
        1,
        Conflict,
        LookupError,
        2,
        Unavailable,
        3,
    ]
    assert numbers_in(path) == [1, 3, 4]


async def test_more_writes_than_may_wait_are_all_done(path: Path, writer: Writer) -> None:
    await asyncio.gather(*(writer.write(insert(number)) for number in range(2500)))
    assert numbers_in(path) == list(range(2500))


async def test_nothing_is_kept_of_a_write_cancelled_before_it_began(path: Path, writer: Writer) -> None:
    async with held(writer) as hold:
        gone, stays = (asyncio.create_task(writer.write(insert(number))) for number in (1, 2))
        await waiting(gone, stays)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        await hold.release()
        assert await stays == 1
    assert numbers_in(path) == [2]


async def test_a_caller_cancelled_while_its_write_is_done_stops_nobody_else(path: Path, writer: Writer) -> None:
    async with held(writer) as hold:
        hold._task.cancel()
        other = asyncio.create_task(writer.write(insert(1)))
        await waiting(other)
        await hold.release()
        assert await other == 1


async def test_cancelled_callers_make_room_for_others(writer: Writer) -> None:
    async with held(writer) as hold:
        for _ in range(3):
            writes = [asyncio.create_task(writer.write(insert(number))) for number in range(1000)]
            await waiting(*writes)
            for write in writes:
                write.cancel()
            await asyncio.gather(*writes, return_exceptions=True)
        other = asyncio.create_task(writer.write(insert(1)))
        await waiting(other)
        await hold.release()
        assert await other == 1


async def test_a_write_that_gets_no_answer_in_time_is_unavailable_and_not_done_later(path: Path) -> None:
    async with writing(path, deadline_s=0.1) as writer:
        with closing(connect(path)) as another:
            another.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await writer.write(insert(1))
            another.execute("ROLLBACK")

        async def done() -> int:
            try:
                return await writer.write(insert(2))
            except Unavailable:  # the writer may not have noticed yet that the lock is free
                return 0

        await eventually(done)
    assert numbers_in(path) == [2]


async def test_a_write_waits_for_another_process_to_finish_its_own(path: Path, writer: Writer) -> None:
    with closing(connect(path)) as another:
        another.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(writer.write(insert(1)))
        await waiting(write)
        another.execute("INSERT INTO numbers VALUES (0)")
        another.execute("COMMIT")
        assert await write == 2


async def test_closing_writes_what_was_accepted_and_refuses_what_was_not(path: Path) -> None:
    writer = Writer(path)
    async with held(writer) as hold:
        writes = [asyncio.create_task(writer.write(insert(number))) for number in range(1500)]
        await waiting(*writes)
        closing_ = asyncio.create_task(writer.close())
        await asyncio.sleep(0)
        late = asyncio.create_task(writer.write(insert("late")))
        await asyncio.sleep(0)
        await hold.release()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        await closing_
        with pytest.raises(Unavailable):
            await late
    accepted = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, int)]
    assert {type(outcome) for outcome in outcomes} == {int, Unavailable}
    assert numbers_in(path) == accepted
    with pytest.raises(Unavailable):
        await writer.write(insert("later still"))


async def test_a_kill_between_write_and_commit_leaves_nothing_and_nobody_locked_out(path: Path, writer: Writer) -> None:
    async with child("write_and_hang", str(path)) as writes:
        assert await writes.line() == "written"
        await writes.kill()
        assert await writer.write(insert(1)) == 1
    assert numbers_in(path) == [1]


async def test_a_cancelled_reading_is_interrupted_and_gives_its_thread_back(readers: Readers) -> None:
    for _ in range(2):
        endless = [
            asyncio.create_task(readers.read(lambda connection: connection.execute(_ENDLESS).fetchone()))
            for _ in range(4)
        ]
        # Some run by now, and the others wait for a thread.
        await asyncio.sleep(0.05)
        for reading in endless:
            reading.cancel()
        await asyncio.wait_for(asyncio.gather(*endless, return_exceptions=True), _LONG_S)
        assert all(reading.cancelled() for reading in endless)
    assert await readers.read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)


async def test_a_connection_is_not_given_back_while_a_thread_uses_it_however_often_one_cancels(
    readers: Readers,
) -> None:
    begun, go_on = Event(), Event()
    given_back = False

    def work(_connection: sqlite3.Connection) -> None:
        begun.set()
        go_on.wait(_LONG_S)

    async def read() -> None:
        nonlocal given_back
        async with readers.connection() as connection:
            try:
                await readers.on(connection, work)
            finally:
                given_back = True

    reading = asyncio.create_task(read())
    await asyncio.to_thread(begun.wait)
    for _ in range(3):
        reading.cancel()
        await asyncio.sleep(0.01)
    assert not given_back
    go_on.set()
    await asyncio.gather(reading, return_exceptions=True)
    assert given_back
    assert reading.cancelled()


async def test_readers_that_are_closed_are_unavailable(path: Path) -> None:
    readers = Readers(path)
    await readers.close()
    with pytest.raises(Unavailable):
        await readers.read(lambda connection: connection.execute("SELECT 1").fetchone())


async def test_what_is_no_store_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"no database " * 1000)
    with pytest.raises(Unavailable):
        Writer(tmp_path / "store")
