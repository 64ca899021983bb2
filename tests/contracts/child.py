"""Another process at work on a log or a document store, which says on its output what is done: to be killed at will."""

import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

from shared import logs
from shared.documents import Schema
from shared.documents.open import open_documents
from shared.log import Record, Topic
from shared.log.open import open_log
from shared.sqlite import Writer

_START_S = 30.0


class Child:
    """The parent's side."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> None:
        self._process = process
        self._output = output

    async def line(self) -> str:
        """The next line it says; empty once it is gone."""
        async with asyncio.timeout(_START_S):
            return (await self._output.readline()).decode().rstrip("\n")

    async def rest(self) -> list[str]:
        """All lines that it says until its end."""
        async with asyncio.timeout(_START_S):
            return (await self._output.read()).decode().splitlines()

    async def kill(self) -> list[str]:
        """`kill -9`; the lines that it had said and nobody had read."""
        self.end()
        return await self.rest()

    def end(self) -> None:
        """`kill -9`; someone else reads the lines."""
        if self._process.returncode is None:
            self._process.kill()


@asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[Child]:
    """Run one of the functions below, by its name; killed at the end if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contracts.child", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield Child(process, process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def append(address: str, topic: str, key: str) -> None:
    """Append batches of three numbers for ever; say the last of each batch once it is appended."""
    async with open_log(address) as log:
        for start in count(step=3):
            await log.append(Topic(topic), [Record(key, b"%d" % number) for number in range(start, start + 3)])
            _say(start + 2)


async def consume(address: str, topic: str, group: str, commits: str) -> None:
    """Fetch for ever; say each value, after the commit of its batch, for the first `commits` batches."""
    async with open_log(address) as log, log.subscribe(Topic(topic), group) as member:
        batches = 0
        while True:
            if records := await member.fetch(2):
                if batches < int(commits):
                    await member.commit(records)
                batches += 1
                for record in records:
                    _say((record.value or b"").decode())


async def insert(address: str, name: str) -> None:
    """Insert documents for ever, three at a time; say the last of each batch once it is inserted."""
    async with open_documents(address) as documents:
        collection = await documents.collection(Schema(name))
        for start in count(step=3):
            await collection.insert_many([{"id": str(number)} for number in range(start, start + 3)])
            _say(start + 2)


async def add(address: str, name: str, identifier: str, times: str) -> None:
    """Add one to `number`, `times` times; then say so."""
    async with open_documents(address) as documents:
        collection = await documents.collection(Schema(name))
        _say("begun")
        for _ in range(int(times)):
            await collection.change(identifier, add={"number": 1})
        _say("done")


async def claim(address: str, name: str, total: str, owner: str) -> None:
    """Try to become the owner of each document; say the ids of those that were free."""
    async with open_documents(address) as documents:
        collection = await documents.collection(Schema(name))
        _say("begun")
        for number in range(int(total)):
            if await collection.change(str(number), {"owner": owner}, where={"owner": None}) is not None:
                _say(number)


async def write_and_hang(path: str) -> None:
    """Insert a row into `numbers` within a transaction that never ends; say so."""

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO numbers VALUES (?)", ("half written" * 10_000,))
        _say("written")
        time.sleep(_START_S)

    await Writer(Path(path)).write(work)


def _say(what: object) -> None:
    print(what, flush=True)


_COMMANDS: dict[str, Callable[..., Awaitable[None]]] = {
    command.__name__: command for command in (append, consume, insert, add, claim, write_and_hang)
}


async def _main(command: str, *arguments: str) -> None:
    # What is logged goes elsewhere than what is said.
    logs.configure("warning", "console")
    await _COMMANDS[command](*arguments)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
