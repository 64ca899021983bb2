"""Documents in MongoDB, by PyMongo's asyncio API.

A member of a document is a field of the stored one, so that `$set`, `$inc`, filters and indexes work on it, and comes
back exactly as it was put:

* Text, booleans, None, finite floats and 64-bit integers are stored as what they are. Anything else, lists and
  objects above all, as its JSON text under `json` within the field: BSON has no keys with NUL, and updates do not
  reach keys with a dot or a dollar sign. So such a member is neither None nor equal to any scalar.
* A name that filters could not use anyhow (with a dot, a dollar sign, NUL, upper case, or empty) is stored
  percent-encoded after a `=`. `id` is stored as `_id`.
* MongoDB expires by dates, we by numbers: the date is kept beside the number, in `_expires`.

A point of storage takes 313 bytes so, 552 with its whole text beside the fields that filters need. To write or to read
it costs this process some 3 µs beside BSON's own 2.

Writes are acknowledged by a majority and from the journal. Nothing here needs a replica set; where there is one, the
driver repeats what a change of primary interrupts.
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache
from math import isfinite
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

import orjson
import pymongo
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.int64 import Int64
from pymongo import AsyncMongoClient, IndexModel, ReadPreference, ReplaceOne, ReturnDocument, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    OperationFailure,
    PyMongoError,
)

from shared.documents import ALL, Between, Document, In, Index, Scalar, Schema, Where
from shared.documents.values import INT64, checked_id, checked_name, checked_scalar, checked_text, is_name
from shared.errors import Conflict, OutOfSpace, Refused, TooLarge, Unavailable, ZdmError
from shared.settings import WrongSetting

_DATABASE = "zdm"
_CHUNK = 500  # documents fetched at once
_BULK = 1000  # documents written within one time limit
_STEP = 250  # ids named within one time limit
_MANY = 10_000  # more documents than these are not deleted within one time limit
_INDEXING_S = 3600.0  # an index over documents already there
# What an address does not set itself.
_OPTIONS: dict[str, Any] = {
    "appname": "zdevicemanager",
    "maxPoolSize": 20,
    "serverSelectionTimeoutMS": 3000,
    "connectTimeoutMS": 3000,
    "socketTimeoutMS": 5000,
    "timeoutMS": 5000,  # of an operation from its call to its answer, all of the above included
}

_TYPE_MISMATCH = 14
_BAD_VALUE = 2
_DUPLICATE_KEY = 11000
_OUT_OF_DISK_SPACE = 14031
_TOO_LARGE = frozenset({10334, 17419, 17420})

_LAST_DATE_MS = 253_402_300_799_999  # the end of the year 9999: some readers know no later date
_EXPIRES = "_expires"
_EXPIRY_INDEX = "_expires"

_Stored = dict[str, Any]


class MongoDocuments:
    """See `shared.documents.Documents`."""

    def __init__(self, database: AsyncDatabase[_Stored]) -> None:
        self._database = database
        self._away = False

    async def collection(self, schema: Schema) -> "MongoCollection":
        """See the port. While the server is away, what is missing is made at the first use instead."""
        collection = MongoCollection(schema, self._database[checked_name(schema.name)])
        if not self._away:
            try:
                await collection.make()
            except Unavailable:
                # Not again for each collection: each attempt takes seconds.
                self._away = True
        return collection

    async def ping(self) -> None:
        """See the port."""
        with _translated():
            touched = {"$set": {"touched": int(time.time())}}
            await self._database["about"].update_one({"_id": "about"}, touched, upsert=True)


class MongoCollection:
    """See `shared.documents.Collection`."""

    def __init__(self, schema: Schema, kept: AsyncCollection[_Stored]) -> None:
        self._schema = schema
        self._kept = kept
        self._is_made = False

    async def make(self) -> None:
        """Make what is missing of the collection and its indexes. Several at once do no harm."""
        if self._is_made:
            return
        with _translated():
            known = await self._kept.index_information()
            missing = {name: index for name, index in _indexes(self._schema).items() if name not in known}
            if missing:
                with pymongo.timeout(_INDEXING_S):
                    if self._schema.expires_at is not None and _EXPIRY_INDEX in missing:
                        await self._date_all(self._schema.expires_at)
                    await self._kept.create_indexes(list(missing.values()))
        self._is_made = True

    async def _date_all(self, field: str) -> None:
        """Give dates to documents from before the schema said when they go."""
        undated = {field: {"$gte": -_LAST_DATE_MS, "$lte": _LAST_DATE_MS}, _EXPIRES: {"$exists": False}}
        await self._kept.update_many(undated, [{"$set": {_EXPIRES: {"$toDate": {"$toLong": f"${field}"}}}}])

    async def insert(self, document: Document) -> None:
        """See the port."""
        stored = self._stored(document)
        await self.make()
        with _translated():
            await self._kept.insert_one(stored)

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """See the port."""
        stored = [self._stored(document) for document in documents]
        await self.make()
        with _translated():
            return sum([await self._insert_new(part) for part in _parts(stored, _BULK)])

    async def _insert_new(self, stored: Sequence[_Stored]) -> int:
        try:
            return len((await self._kept.insert_many(stored, ordered=False)).inserted_ids)
        except BulkWriteError as error:
            taken = _duplicates(error)
            # Of what is there already, the server may name another unique index than the one of the ids.
            unclear = {stored[one["index"]]["_id"]: one for one in taken if "_id" not in one.get("keyPattern", ())}
            known = await self._kept.distinct("_id", {"_id": {"$in": list(unclear)}}) if unclear else ()
            for identifier in unclear.keys() - known:
                raise _meaning(_DUPLICATE_KEY, unclear[identifier]) from error
            return len(stored) - len(taken)

    async def put_many(self, documents: Sequence[Document]) -> None:
        """See the port."""
        # A bulk without an order must not name an id twice: the last one counts.
        latest = {document["id"]: document for document in documents}
        stored = [self._stored(document) for document in latest.values()]
        await self.make()
        with _translated():
            for part in _parts(stored, _BULK):
                await self._put(part)

    async def _put(self, stored: Sequence[_Stored]) -> None:
        try:
            await self._replace(stored)
        except BulkWriteError as error:
            # Perhaps somebody else put the same at the same moment: then it is there now, to be replaced.
            await self._replace([stored[failed["index"]] for failed in _duplicates(error)])

    async def _replace(self, stored: Sequence[_Stored]) -> None:
        await self._kept.bulk_write(
            [ReplaceOne({"_id": one["_id"]}, one, upsert=True) for one in stored], ordered=False
        )

    async def get(self, identifier: str) -> Document | None:
        """See the port."""
        checked_id(identifier)
        await self.make()
        with _translated():
            stored = await self._kept.find_one({"_id": identifier})
        return None if stored is None else _document(stored)

    async def get_many(self, identifiers: Sequence[str]) -> dict[str, Document]:
        """See the port."""
        found: dict[str, Document] = {}
        for part in _parts([checked_id(identifier) for identifier in identifiers], _STEP):
            async for document in self.find({"id": In(part)}):
                found[document["id"]] = document
        return found

    async def change(
        self,
        identifier: str,
        set_: Mapping[str, Any] | None = None,
        *,
        add: Mapping[str, int] | None = None,
        where: Where = ALL,
    ) -> Document | None:
        """See the port. When a document expires is set, not added to."""
        condition, update = _meeting(identifier, where), self._update(identifier, set_ or {}, add or {})
        await self.make()
        with _translated():
            stored = await (self._changed(condition, update) if update else self._kept.find_one(condition))
        return None if stored is None else _document(stored)

    def _update(self, identifier: str, set_: Mapping[str, Any], add: Mapping[str, int]) -> dict[str, Any]:
        """The operators of MongoDB, those with nothing to do left out."""
        if set_.get("id", identifier) != identifier or "id" in add:
            raise Conflict("a document's id does not change")
        if self._schema.expires_at in add:
            raise TypeError("when a document expires is set, not added to")
        values = {**set_, **{field: (set_[field] or 0) + amount for field, amount in add.items() if field in set_}}
        update: dict[str, dict[str, Any]] = {
            "$set": {_stored_name(name): _stored_value(value) for name, value in values.items() if name != "id"},
            "$inc": {_stored_name(field): amount for field, amount in add.items() if field not in set_},
            "$unset": {},
        }
        if self._schema.expires_at in values:
            date = _date(values[self._schema.expires_at])
            update["$unset" if date is None else "$set"][_EXPIRES] = date
        return {operator: fields for operator, fields in update.items() if fields}

    async def _changed(self, condition: _Stored, update: dict[str, Any]) -> _Stored | None:
        try:
            return await self._find_and_update(condition, update)
        except OperationFailure as error:
            if error.code == _BAD_VALUE and "$inc" in update:
                raise Refused("a sum beyond 64 bits") from error
            if error.code != _TYPE_MISMATCH or "$inc" not in update:
                raise
        # To `$inc` a missing member is 0, a None is not; and nobody can tell a None that went missing from one that is.
        for field in update["$inc"]:
            nothing = {"$and": [condition, {field: {"$type": "null"}}]}
            await self._kept.update_one(nothing, {"$unset": {field: ""}})
        try:
            return await self._find_and_update(condition, update)
        except OperationFailure as error:
            if error.code == _TYPE_MISMATCH:
                raise TypeError("only numbers can be added to") from error
            raise

    async def _find_and_update(self, condition: _Stored, update: dict[str, Any]) -> _Stored | None:
        return await self._kept.find_one_and_update(condition, update, return_document=ReturnDocument.AFTER)

    async def find(
        self, where: Where = ALL, *, order: Sequence[str] = (), limit: int | None = None, skip: int = 0
    ) -> AsyncIterator[Document]:
        """See the port. A reader that takes nothing for ten minutes has lost its place."""
        condition, ordering = _condition(where), _ordering(order)
        if limit == 0:
            return
        await self.make()
        with _translated():
            async with self._kept.find(
                condition, sort=ordering, limit=limit or 0, skip=skip, batch_size=_CHUNK
            ) as cursor:
                async for stored in cursor:
                    yield _document(stored)

    async def count(self, where: Where = ALL) -> int:
        """See the port."""
        condition = _condition(where)
        await self.make()
        with _translated():
            return await self._kept.count_documents(condition)

    async def delete(self, identifier: str, *, where: Where = ALL) -> bool:
        """See the port."""
        condition = _meeting(identifier, where)
        await self.make()
        with _translated():
            return (await self._kept.delete_one(condition)).deleted_count > 0

    async def delete_many(self, where: Where) -> int:
        """See the port. Very many in steps, each within the time limit of an operation."""
        condition = _condition(where)
        await self.make()
        count = 0
        with _translated():
            while await self._kept.count_documents(condition, limit=_MANY) == _MANY:
                some = [stored["_id"] async for stored in self._kept.find(condition, projection=["_id"], limit=_MANY)]
                for part in _parts(some, _STEP):
                    count += (await self._kept.delete_many({"_id": {"$in": part}, **condition})).deleted_count
            return count + (await self._kept.delete_many(condition)).deleted_count

    def _stored(self, document: Document) -> _Stored:
        stored: _Stored = {"_id": checked_id(document["id"])}
        for name, value in document.items():
            if name != "id":
                stored[_stored_name(name)] = _stored_value(value)
        if self._schema.expires_at is not None:
            date = _date(document.get(self._schema.expires_at))
            if date is not None:
                stored[_EXPIRES] = date
        return stored


def _stored_value(value: Any) -> Any:
    kind = type(value)
    if kind is str:
        return checked_text(value)
    if value is None or kind is bool or (kind is int and value in INT64):
        return value
    if kind is float:
        # JSON knows no others.
        return value if isfinite(value) else None
    try:
        text = orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise Refused(f"cannot be kept as JSON: {error}") from error
    # What is left are scalars of other classes, of enumerations for example.
    return {"json": text} if kind is int or text[0] in "[{" else _stored_value(orjson.loads(text))


@lru_cache(maxsize=10_000)
def _stored_name(name: str) -> str:
    if not isinstance(name, str):
        raise Refused("cannot be kept as JSON: the name of a member is text")
    return name if is_name(name) else "=" + quote(checked_text(name), safe="").replace(".", "%2E")


@lru_cache(maxsize=10_000)
def _name(stored: str) -> str:
    return "id" if stored == "_id" else unquote(stored[1:])


def _document(stored: _Stored) -> Document:
    document: Document = {}
    for name, value in stored.items():
        kind = type(value)
        if kind is Int64:
            value = int(value)
        elif kind is dict:
            value = orjson.loads(value["json"])
        elif kind is DatetimeMS:
            continue
        document[_name(name) if name[0] in "_=" else name] = value
    return document


def _date(moment: Any) -> DatetimeMS | None:
    if not isinstance(moment, int | float) or isinstance(moment, bool):
        return None
    return DatetimeMS(max(0, min(int(moment), _LAST_DATE_MS)))


def _condition(where: Where) -> _Stored:
    return {_field(field): _wanted(wanted) for field, wanted in where.items()}


def _meeting(identifier: str, where: Where) -> _Stored:
    by_id: _Stored = {"_id": checked_id(identifier)}
    if "id" in where:
        return {"$and": [by_id, _condition(where)]}
    return by_id | _condition(where)


def _wanted(wanted: Scalar | In | Between) -> dict[str, Any]:
    if isinstance(wanted, In):
        return {"$in": [checked_scalar(value) for value in wanted.values]}
    if isinstance(wanted, Between):
        # A bound matches its own kind only, text or number.
        bounds = {"$gte": wanted.at_least, "$lt": wanted.below}
        given = {sign: checked_scalar(bound) for sign, bound in bounds.items() if bound is not None}
        return given or {"$not": {"$in": []}}
    return {"$eq": checked_scalar(wanted)}


def _field(field: str) -> str:
    return "_id" if field == "id" else checked_name(field)


def _ordering(order: Sequence[str]) -> list[tuple[str, int]] | None:
    return [(_field(field.removeprefix("-")), -1 if field.startswith("-") else 1) for field in order] or None


def _indexes(schema: Schema) -> dict[str, IndexModel]:
    """By name, which tells all of a declaration: what differs is another index."""
    indexes = {f"{'__'.join(one.fields)}{'__unique' if one.unique else ''}": one for one in schema.indexes}
    models = {name: _index(name, index) for name, index in indexes.items()}
    if schema.expires_at is not None:
        models[_EXPIRY_INDEX] = IndexModel([(_EXPIRES, 1)], name=_EXPIRY_INDEX, expireAfterSeconds=0)
    return models


def _index(name: str, index: Index) -> IndexModel:
    keys = [(_field(field), 1) for field in index.fields]
    if not index.unique:
        return IndexModel(keys, name=name)
    # Any text, number or boolean. Not `$exists`, which None meets too; nor `$type`: the server does not see that what
    # equals a text is one, and would not use the index to find it.
    first = keys[0][0]
    anything: list[_Stored] = [{first: {"$gte": least}} for least in ("", float("-inf"), False)]
    return IndexModel(keys, name=name, unique=True, partialFilterExpression={"$or": anything})


def _parts(whole: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (whole[start : start + size] for start in range(0, len(whole), size))


def _failures(error: BulkWriteError) -> list[dict[str, Any]]:
    return [*error.details["writeErrors"], *error.details["writeConcernErrors"]]


def _duplicates(error: BulkWriteError) -> list[dict[str, Any]]:
    """What the bulk failed at because it is there already; raise what else went wrong."""
    failures = _failures(error)
    if any(failed["code"] != _DUPLICATE_KEY for failed in failures):
        raise translation(error) from error
    return failures


@contextmanager
def _translated() -> Iterator[None]:
    """Say the driver's errors in the words of the port."""
    try:
        yield
    except PyMongoError as error:
        raise translation(error) from error
    except DocumentTooLarge as error:
        raise _meaning(min(_TOO_LARGE), {}) from error
    except OverflowError as error:
        raise Refused("a number beyond 64 bits") from error


def translation(error: PyMongoError) -> ZdmError:
    """What `error` means to a caller."""
    if isinstance(error, BulkWriteError):
        failures = _failures(error)
        worst = next((failed for failed in failures if failed["code"] != _DUPLICATE_KEY), failures[0])
        return _meaning(worst["code"], worst)
    if isinstance(error, OperationFailure):
        return _meaning(error.code, error.details or {})
    if isinstance(error, AutoReconnect | ConfigurationError):
        # Hosts and what the network said; the driver repeats its time-outs and all that it knows of the servers.
        reason = str(error).partition(" (configured timeouts")[0].partition(", Timeout:")[0]
    else:
        reason = type(error).__name__
    return Unavailable(f"The document store does not answer: {reason}")


def _meaning(code: int | None, details: Mapping[str, Any]) -> ZdmError:
    """What the server's error means to a caller. Not in its words: they quote values."""
    if code == _DUPLICATE_KEY:
        fields = [field.removeprefix("_") for field in details.get("keyPattern", ())]
        return Conflict(f"Another document has this {' and '.join(fields) or 'value'}")
    if code in _TOO_LARGE:
        return TooLarge("The document store takes no document of more than 16 MiB")
    # A full disk that only the storage engine noticed has no code of its own.
    if code == _OUT_OF_DISK_SPACE or "No space left on device" in details.get("errmsg", ""):
        return OutOfSpace("The disk of the document store is full")
    return Unavailable(f"The document store refuses: {details.get('codeName') or code}")


@asynccontextmanager
async def mongo_documents(address: str) -> AsyncIterator[MongoDocuments]:
    """The store at `address`, in the database that its path names. The server need not be there yet."""
    try:
        # By hand: for the standard library, several hosts with one in brackets among them are no URL.
        place, _, query = address.partition("://")[2].partition("?")
        given = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
        options = {name: value for name, value in _OPTIONS.items() if name.lower() not in given}
        client: AsyncMongoClient[_Stored] = AsyncMongoClient(address, **options)
        database = client.get_database(
            unquote(place.partition("/")[2].strip("/")) or _DATABASE,
            CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS),
            ReadPreference.PRIMARY,
            WriteConcern("majority", j=True),
        )
    except (PyMongoError, ValueError, TypeError):
        # Without what the driver says: it may quote the address.
        raise WrongSetting([_COMPLAINT]) from None
    async with client:
        yield MongoDocuments(database)


_COMPLAINT = (
    "ZDM_DOCUMENTS: not an address of MongoDB: mongodb://user:password@host:27017/database?authSource=admin, "
    "with what is special in the user and the password percent-encoded"
)
