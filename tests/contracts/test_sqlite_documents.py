"""The SQLite document store keeps the promises of its port, and some of its own."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from shared.documents import ALL, Between, Collection, Document, In, Index, Schema, every
from shared.documents.open import open_documents
from shared.documents.sqlite import SqliteDocuments, sqlite_documents
from shared.errors import OutOfSpace, Unavailable
from shared.settings import WrongSetting
from tests.contracts.documents_promises import DocumentsPromises
from tests.support.disk import MIB, small_disk

_PLAIN = Schema("plain")


class TestSqliteDocuments(DocumentsPromises):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'documents'}"


@pytest.fixture
async def documents(tmp_path: Path) -> AsyncIterator[SqliteDocuments]:
    async with sqlite_documents(tmp_path / "documents") as documents:
        yield documents


async def test_a_document_goes_when_its_time_has_passed(documents: SqliteDocuments) -> None:
    collection = await documents.collection(Schema("expiring", expires_at="until"))
    far = 10**15
    await collection.insert_many(
        [{"id": str(place), "until": until} for place, until in enumerate([far, far + 1, "1", None, True])]
    )
    await documents.expire_now(far - 1)
    assert await collection.get("0") is not None
    await documents.expire_now(far + 1)
    assert [document["id"] for document in await every(collection, order=["id"])] == ["1", "2", "3"]


async def test_any_number_of_documents_expires_at_once(documents: SqliteDocuments) -> None:
    collection = await documents.collection(Schema("expiring", expires_at="until"))
    far = 10**15
    await collection.insert_many([{"id": str(number), "until": far + number} for number in range(12_000)])
    await documents.expire_now(far + 11_000)
    assert await collection.count() == 1000


@pytest.mark.parametrize("name", ["", "Upper", "a-b", "a b", 'a"', "1a", "a; DROP TABLE about"])
async def test_a_collection_has_a_plain_name(documents: SqliteDocuments, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await documents.collection(Schema(name))


async def test_filters_use_the_declared_indexes(documents: SqliteDocuments, tmp_path: Path) -> None:
    """Looked at in SQLite's own plans: a scan of a million documents would otherwise show in production only."""
    collection = await documents.collection(Schema("indexed", (Index(("owner", "at")), Index(("email",), unique=True))))
    plans: list[str] = []
    with closing(sqlite3.connect(tmp_path / "documents")) as connection:
        for statement in await statements(collection):
            plans += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
    assert not [plan for plan in plans if plan.startswith("SCAN") and "json_each" not in plan]
    assert not [plan for plan in plans if "TEMP B-TREE" in plan]


async def statements(collection: Collection) -> list[str]:
    """What SQLite is told, with its values, when `collection` is asked by its indexes."""
    said: list[str] = []
    readers = collection._readers  # type: ignore[attr-defined]
    async with readers.connection() as connection:
        connection.set_trace_callback(said.append)
    await every(collection, {"owner": "a", "at": Between(1, 2)}, order=["-at"])
    await every(collection, {"owner": "a", "at": Between(1)}, order=["at"])
    await every(collection, {"owner": In(["a", "b"])})
    await every(collection, {"email": "a"})
    await every(collection, {"id": In(["a", "b"])})
    async with readers.connection() as connection:
        connection.set_trace_callback(None)
    assert len(said) == 5
    return said


async def test_many_open_a_new_store_at_once(tmp_path: Path) -> None:
    async def use(number: int) -> None:
        async with sqlite_documents(tmp_path / "documents") as documents:
            collection = await documents.collection(Schema("shared", (Index(("n",), unique=True),)))
            await collection.insert({"id": str(number), "n": number})

    await asyncio.gather(*map(use, range(8)))
    async with sqlite_documents(tmp_path / "documents") as documents:
        assert await (await documents.collection(Schema("shared"))).count() == 8


async def test_a_closed_store_is_unavailable(tmp_path: Path) -> None:
    async with sqlite_documents(tmp_path / "documents") as documents:
        collection = await documents.collection(_PLAIN)
        await collection.insert({"id": "a"})
        left_in_the_middle = collection.find()
        assert await anext(left_in_the_middle) == {"id": "a"}
    for asking in (collection.get("a"), collection.count(), every(collection), collection.insert({"id": "b"})):
        with pytest.raises(Unavailable):
            await asking


async def test_a_file_that_is_no_store_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "documents").write_bytes(b"no database " * 1000)
    with pytest.raises(Unavailable):
        async with sqlite_documents(tmp_path / "documents"):
            pass


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(WrongSetting, match="ZDM_DOCUMENTS"):
        open_documents("filing-cabinet://cellar")


class Scarce(NamedTuple):
    """A store that is soon full."""

    documents: SqliteDocuments
    collection: Collection
    free: Callable[[], Awaitable[None]]


@pytest.fixture(params=["bounded file", "small disk"])
async def scarce(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scarce]:
    async with AsyncExitStack() as stack:
        if request.param == "bounded file":
            documents = await stack.enter_async_context(sqlite_documents(tmp_path / "documents", max_pages=100))
            ballast = await documents.collection(Schema("ballast"))
            await ballast.insert({"id": "a", "text": "x" * 100_000})

            async def free() -> None:
                await ballast.delete_many(ALL)
        else:
            disk = stack.enter_context(small_disk(tmp_path, 2 * MIB))
            disk.fill(leave=MIB)
            documents = await stack.enter_async_context(sqlite_documents(disk.folder / "documents"))

            async def free() -> None:
                disk.free()

        yield Scarce(documents, await documents.collection(_PLAIN), free)


async def fill(collection: Collection) -> list[str]:
    """Insert ever smaller batches until not even one document finds room; the ids that were taken."""
    taken: list[str] = []
    for size, width in ((20, 8000), (1, 500)):
        while True:
            batch: list[Document] = [{"id": f"{len(taken) + place:06}", "t": "x" * width} for place in range(size)]
            try:
                await collection.insert_many(batch)
            except OutOfSpace:
                break
            taken += [document["id"] for document in batch]
    return taken


async def test_a_full_store_refuses_keeps_nothing_half_and_works_again_once_there_is_room(scarce: Scarce) -> None:
    documents, collection, free = scarce
    taken = await fill(collection)
    assert taken
    with pytest.raises(OutOfSpace):
        await documents.ping()
    with pytest.raises(OutOfSpace):
        await collection.change(taken[0], {"t": "y" * 50_000})
    assert [document["id"] async for document in collection.find(order=["id"])] == taken
    assert await collection.count({"t": "x" * 8000}) + await collection.count({"t": "x" * 500}) == len(taken)
    await free()
    await documents.ping()
    assert await collection.change(taken[0], {"t": "y" * 50_000}) is not None
    await collection.insert({"id": "new"})
    assert await collection.count() == len(taken) + 1


async def test_of_many_at_once_those_that_a_full_store_refuses_leave_nothing(scarce: Scarce) -> None:
    outcomes = await asyncio.gather(
        *(
            scarce.collection.insert_many([{"id": f"{number}-{place}", "t": "x" * 8000} for place in range(10)])
            for number in range(40)
        ),
        return_exceptions=True,
    )
    taken = {str(number) for number, outcome in enumerate(outcomes) if outcome == 10}
    assert 0 < len(taken) < 40
    assert all(outcome == 10 or isinstance(outcome, OutOfSpace) for outcome in outcomes)
    kept = [document["id"].split("-")[0] for document in await every(scarce.collection)]
    assert set(kept) == taken
    assert len(kept) == 10 * len(taken)
