"""The MongoDB document store keeps the promises of its port, and some of its own."""

import asyncio
import logging
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import AsyncMongoClient

from shared.documents import ALL, Collection, Document, Index, Schema, every
from shared.documents.mongo import mongo_documents
from shared.documents.open import open_documents
from shared.errors import Conflict, Refused, TooLarge, Unavailable
from shared.settings import WrongSetting
from tests.contracts.documents_promises import DocumentsPromises
from tests.support.mongo import PASSWORD, Mongo, running_mongo
from tests.support.ports import free_ports
from tests.support.waiting import eventually

pytestmark = pytest.mark.containers

_LIMIT_S = 5.0  # of an operation
_SLACK_S = 2.0


@pytest.fixture(scope="module")
async def mongo() -> AsyncIterator[Mongo]:
    async with running_mongo() as mongo:
        yield mongo


@pytest.fixture(autouse=True)
async def emptied(mongo: Mongo) -> AsyncIterator[None]:
    """Hundreds of collections would make the server slow."""
    yield
    async with AsyncMongoClient[dict[str, Any]](mongo.address()) as client:
        await client.drop_database("zdm")


@pytest.fixture
def address(mongo: Mongo) -> str:
    return mongo.address()


@pytest.fixture
def name() -> str:
    return f"own_{secrets.token_hex(6)}"


@pytest.fixture
async def collection(address: str, name: str) -> AsyncIterator[Collection]:
    async with mongo_documents(address) as documents:
        yield await documents.collection(Schema(name, (Index(("email",), unique=True),), expires_at="until"))


@asynccontextmanager
async def database(mongo: Mongo) -> AsyncIterator[Any]:
    """What is kept, as MongoDB shows it."""
    async with AsyncMongoClient[dict[str, Any]](mongo.address()) as client:
        yield client.get_database("zdm")


async def unavailable(asking: Awaitable[Any]) -> str:
    """What it says; it must say so within the time limit."""
    began = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        await asking
    assert time.monotonic() - began < _LIMIT_S + _SLACK_S
    return raised.value.message


class TestMongoDocuments(DocumentsPromises):
    @pytest.fixture
    def address(self, mongo: Mongo) -> str:
        # These promises are not about time, and may be tested on a busy machine.
        return mongo.address(timeoutMS=60_000)


# How documents are kept: what one version wrote, the next must read


async def test_scalars_are_kept_as_they_are_and_the_rest_as_text(
    mongo: Mongo, name: str, collection: Collection
) -> None:
    document: Document = {
        "id": "a",
        "text": "x",
        "whole": 2**62,
        "real": 1.0,
        "flag": True,
        "nothing": None,
        "tree": {"a.b": [{"$c": "\0"}]},
        "beyond": 2**63,
        "a.b": 1,
        "$inc": 2,
        "N\0": 3,
        "": [],
        "_id": 4,
        "=": 5,
    }
    await collection.insert(document)
    async with database(mongo) as kept:
        assert await kept[name].find_one() == {
            "_id": "a",
            "text": "x",
            "whole": 2**62,
            "real": 1.0,
            "flag": True,
            "nothing": None,
            "tree": {"json": '{"a.b":[{"$c":"\\u0000"}]}'},
            "beyond": {"json": "9223372036854775808"},
            "=a%2Eb": 1,
            "=%24inc": 2,
            "=N%00": 3,
            "=": {"json": "[]"},
            "=_id": 4,
            "=%3D": 5,
        }
    found = await collection.get("a")
    assert found == document
    assert [(name, type(value)) for name, value in found.items()] == [
        (name, type(value)) for name, value in document.items()
    ]


async def test_the_date_of_expiry_follows_the_number(mongo: Mongo, name: str, collection: Collection) -> None:
    async def dates() -> list[Any]:
        async with database(mongo) as kept:
            return [document.get("_expires") async for document in kept[name].find(sort=[("_id", 1)])]

    await collection.insert({"id": "a", "until": 4_000_000_000_000})
    await collection.put_many([{"id": "b", "until": 5_000_000_000_123}, {"id": "c", "until": 10**18}])
    await collection.insert_many([{"id": "d"}, {"id": "e", "until": "4000000000000"}])
    first = datetime.fromtimestamp(4_000_000_000, UTC).replace(tzinfo=None)
    assert await dates() == [
        first,
        datetime(2128, 6, 11, 8, 53, 20, 123_000),  # noqa: DTZ001 (as the driver gives them)
        datetime(9999, 12, 31, 23, 59, 59, 999_000),  # noqa: DTZ001
        None,
        None,
    ]
    assert await collection.change("a", {"until": None}) == {"id": "a", "until": None}
    assert await collection.change("b", {"until": 4_000_000_000_000}) == {"id": "b", "until": 4_000_000_000_000}
    await collection.change("c", {"n": 1})
    await collection.put_many([{"id": "c"}])
    await collection.change("d", {"until": 4_000_000_000_000})
    assert await dates() == [None, first, None, first, None]
    with pytest.raises(TypeError, match="expires"):
        await collection.change("b", add={"until": 1})


async def test_documents_from_before_a_schema_knew_when_they_go_are_dated(mongo: Mongo, name: str) -> None:
    async with mongo_documents(mongo.address()) as documents:
        before = await documents.collection(Schema(name))
        await before.insert_many([{"id": "a", "until": 4_000_000_000_000}, {"id": "b", "until": 7}, {"id": "c"}])
        await before.insert_many([{"id": "c1", "until": 1e300}, {"id": "c2", "until": "4000000000000"}])
        await documents.collection(Schema(name, expires_at="until"))
    async with database(mongo) as kept:
        dates = [document.get("_expires") async for document in kept[name].find(sort=[("_id", 1)])]
    # The second may have gone by now.
    assert dates[0] == datetime.fromtimestamp(4_000_000_000, UTC).replace(tzinfo=None)
    assert dates[-3:] == [None] * 3


async def test_the_path_of_the_address_names_the_database(mongo: Mongo, name: str) -> None:
    for path, expected in (("", "zdm"), ("other", "other"), ("odd%20one", None)):
        if expected is None:
            with pytest.raises(WrongSetting, match="ZDM_DOCUMENTS"):
                await mongo_documents(mongo.address(path)).__aenter__()
            continue
        async with mongo_documents(mongo.address(path)) as documents:
            await (await documents.collection(Schema(name))).insert({"id": path})
        async with AsyncMongoClient[dict[str, Any]](mongo.address()) as client:
            assert await client[expected][name].distinct("_id") == [path]


# What MongoDB would do differently


async def test_a_sum_beyond_64_bits_is_refused(collection: Collection) -> None:
    await collection.insert({"id": "a", "n": 2**63 - 1, "text": "1"})
    for add in ({"n": 1}, {"m": 2**63}):
        with pytest.raises(Refused):
            await collection.change("a", add=add)
    with pytest.raises(TypeError):
        await collection.change("a", add={"text": 1})
    assert await collection.get("a") == {"id": "a", "n": 2**63 - 1, "text": "1"}


async def test_a_document_beyond_the_limit_of_mongodb_is_refused(collection: Collection) -> None:
    large: Document = {"id": "a", "text": "x" * 17_000_000}
    for writing in (collection.insert(large), collection.insert_many([large]), collection.put_many([large])):
        with pytest.raises(TooLarge):
            await writing
    await collection.insert({"id": "a"})
    with pytest.raises(TooLarge):
        await collection.change("a", {"text": large["text"]})
    assert await every(collection) == [{"id": "a"}]


async def test_many_may_put_the_same_new_documents_at_once(address: str, name: str) -> None:
    schema, documents = Schema(name, (Index(("email",), unique=True),)), [{"id": str(n), "email": n} for n in range(50)]
    async with mongo_documents(address) as one, mongo_documents(address) as two:
        collections = [await each.collection(schema) for each in (one, two)]
        await asyncio.gather(*(collections[number % 2].put_many(documents) for number in range(6)))
        assert sorted(await every(collections[0]), key=lambda found: int(found["email"])) == documents


async def test_more_documents_are_deleted_than_fit_into_one_time_limit(collection: Collection) -> None:
    await collection.insert_many([{"id": f"{number:05}"} for number in range(10_300)])
    assert await collection.delete_many({"email": None}) == 10_300
    assert await collection.count() == 0


async def test_a_stream_may_take_longer_than_an_operation(mongo: Mongo, name: str) -> None:
    async with mongo_documents(mongo.address(timeoutMS=3000)) as documents:
        collection = await documents.collection(Schema(name))
        await collection.insert_many([{"id": str(number)} for number in range(1200)])
        seen = 0
        async for _ in collection.find():
            seen += 1
            if seen == 500:
                await asyncio.sleep(3.1)
        assert seen == 1200


# Away


async def test_a_server_that_stops_and_starts_is_away_and_back(mongo: Mongo, collection: Collection) -> None:
    await collection.insert({"id": "kept", "email": "x"})
    await mongo.stop()
    asking = (collection.get("kept"), collection.count(), every(collection), collection.insert({"id": "lost"}))
    for said in await asyncio.gather(*map(unavailable, asking)):
        assert PASSWORD not in said
    await mongo.start()
    assert await recovered(collection) == [{"id": "kept", "email": "x"}]
    with pytest.raises(Conflict):
        await collection.insert({"id": "other", "email": "x"})


async def test_what_was_written_survives_a_kill(mongo: Mongo, collection: Collection) -> None:
    written = [{"id": f"{number:04}"} for number in range(1500)]
    await collection.insert_many(written)
    await mongo.kill()
    await mongo.start()
    assert sorted(await recovered(collection), key=lambda document: str(document["id"])) == written


async def test_a_server_that_hangs_holds_nobody_longer_than_the_limit(mongo: Mongo, collection: Collection) -> None:
    await collection.insert_many([{"id": str(number)} for number in range(1200)])
    stream = collection.find()
    assert await anext(stream)
    await mongo.pause()
    try:
        asking: list[Awaitable[Any]] = [collection.get("1") for _ in range(40)]
        asking += [collection.insert({"id": "x"}), collection.insert_many([{"id": "y"}]), collection.delete_many(ALL)]
        asking += [collection.change("1", {"n": 1}), collection.count(), every(collection), rest_of(stream)]
        await asyncio.gather(*map(unavailable, asking))
        # Who comes later finds it away as well.
        await unavailable(collection.get("1"))
    finally:
        await mongo.unpause()
    await recovered(collection)
    await collection.put_many([{"id": "again"}])
    assert await collection.get("again") == {"id": "again"}


async def rest_of(stream: AsyncIterator[Document]) -> None:
    async for _ in stream:
        pass


async def recovered(collection: Collection) -> list[Document]:
    """All documents, once the server answers again."""

    async def is_back() -> bool:
        try:
            await collection.count()
        except Unavailable:
            return False
        return True

    await eventually(is_back, within_s=60)
    return await every(collection)


async def test_a_store_opens_while_its_server_is_away_and_works_once_it_is_there(mongo: Mongo, name: str) -> None:
    await mongo.stop()
    async with mongo_documents(mongo.address(timeoutMS=1500)) as documents:
        began = time.monotonic()
        schemas = [Schema(f"{name}_{number}", (Index(("email",), unique=True),)) for number in range(10)]
        collections = [await documents.collection(schema) for schema in schemas]
        assert time.monotonic() - began < _LIMIT_S + _SLACK_S
        await unavailable(collections[0].insert({"id": "a"}))
        await unavailable(documents.ping())
        await mongo.start()
        for collection in collections:
            assert await recovered(collection) == []
            await collection.insert({"id": "a", "email": "x"})
            with pytest.raises(Conflict):
                await collection.insert({"id": "b", "email": "x"})


async def test_a_closed_store_is_unavailable(address: str, name: str) -> None:
    async with mongo_documents(address) as documents:
        collection = await documents.collection(Schema(name))
    for asking in (collection.get("a"), collection.count(), every(collection), collection.insert({"id": "b"})):
        await unavailable(asking)


# Secrets


async def test_a_wrong_password_is_said_without_it(mongo: Mongo, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with mongo_documents(mongo.address(password="wr0ng/secret")) as documents:
            collection = await documents.collection(Schema(name))
            with pytest.raises(Unavailable, match="Auth") as raised:
                await collection.insert({"id": "a"})
    said = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "wr0ng" not in said
    assert PASSWORD not in said


async def test_a_server_that_is_not_there_is_named_without_the_password(mongo: Mongo, name: str) -> None:
    nobody = mongo.address(timeoutMS=1000).replace(str(mongo.port), str(free_ports(1)[0]))
    async with mongo_documents(nobody) as documents:
        said = await unavailable((await documents.collection(Schema(name))).count())
    assert "127.0.0.1" in said
    assert "p%40ss" not in said
    assert PASSWORD not in said


@pytest.mark.parametrize(
    "address",
    [
        "mongodb://",
        "mongodb://root:s3cret/x@host/zdm",
        "mongodb://root:s3cret@host:port/zdm",
        "mongodb://u:s3cret@h/a b",
    ],
)
async def test_a_wrong_address_is_said_without_its_password(address: str) -> None:
    with pytest.raises(WrongSetting, match="ZDM_DOCUMENTS") as raised:
        await open_documents(address).__aenter__()
    assert "s3cret" not in "".join(traceback.format_exception(raised.value))
