"""Documents in one SQLite file: a table a collection, the body as JSON text, indexes over expressions on it."""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from shared.documents import ALL, Between, Document, In, Index, Scalar, Schema, Where
from shared.documents.values import checked_id, checked_name, checked_scalar
from shared.errors import Conflict, Refused
from shared.sqlite import Readers, Writer, connect, touch, translated
from shared.tasks import keep_running

_CHUNK = 500
_EXPIRE_EVERY_S = 30.0
_DELETE_LIMIT = 5_000  # documents deleted in one write, so that others get their turn in between
# SQLite's JSON functions take a text to end at a NUL. In what is kept, U+FFFF is an escape: 0 behind it stands for NUL,
# 1 for U+FFFF itself.
_ESCAPE, _NUL, _ITSELF = "\uffff", "\uffff0", "\uffff1"
_JSON_NUL = "\\u0000"
_JSON_ESCAPE = re.compile(r"\\(?:u0000|.)")


class SqliteDocuments:
    """See `shared.documents.Documents`."""

    def __init__(self, path: Path, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self._expiring: dict[str, str] = {}
        self._opened = asyncio.Event()
        # Reads by id take some ten microseconds from a connection that is open: less than handing them to a thread.
        with translated():
            self._direct = connect(path)

    async def collection(self, schema: Schema) -> "SqliteCollection":
        """See the port."""
        await self._writer.write(lambda connection: _make_table(connection, schema))
        if schema.expires_at is not None:
            self._expiring[schema.name] = schema.expires_at
            self._opened.set()
        return SqliteCollection(schema, self._writer, self._readers, self._direct)

    async def ping(self) -> None:
        """See the port."""
        await self._writer.write(touch)

    async def expire(self) -> None:
        """Every half minute, and when a collection is opened, drop what has expired. For ever."""
        while True:
            self._opened.clear()
            await self.expire_now(int(time.time() * 1000))
            with suppress(TimeoutError):
                async with asyncio.timeout(_EXPIRE_EVERY_S):
                    await self._opened.wait()

    async def expire_now(self, now_ms: int) -> None:
        """Drop what has expired by `now_ms`."""
        for name, field in list(self._expiring.items()):
            await _deleted(self._writer, name, _Condition(f" WHERE {_path(field)} < ?", (now_ms,)))

    def close(self) -> None:
        """Close the connection that is not the readers'."""
        self._direct.close()


class SqliteCollection:
    """See `shared.documents.Collection`."""

    def __init__(self, schema: Schema, writer: Writer, readers: Readers, direct: sqlite3.Connection) -> None:
        self._table = checked_name(schema.name)
        self._writer = writer
        self._readers = readers
        self._direct = direct

    async def insert(self, document: Document) -> None:
        """See the port."""
        row = _row(document)
        statement = f"INSERT INTO {self._table} (id, body) VALUES (?, ?)"  # noqa: S608
        await self._writer.write(lambda connection: connection.execute(statement, row).rowcount)

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """See the port."""
        rows = [_row(document) for document in documents]
        # Not `INSERT OR IGNORE`: that would also hide what another unique index refuses.
        statement = f"INSERT INTO {self._table} (id, body) VALUES (?, ?) ON CONFLICT (id) DO NOTHING"  # noqa: S608
        return await self._writer.write(lambda connection: _executed_many(connection, statement, rows))

    async def put_many(self, documents: Sequence[Document]) -> None:
        """See the port."""
        rows = [_row(document) for document in documents]
        statement = (
            f"INSERT INTO {self._table} (id, body) VALUES (?, ?) "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body"
        )
        await self._writer.write(lambda connection: _executed_many(connection, statement, rows))

    async def get(self, identifier: str) -> Document | None:
        """See the port."""
        query = f"SELECT body FROM {self._table} WHERE id = ?"  # noqa: S608
        with translated():
            row = self._direct.execute(query, (_text(checked_id(identifier)),)).fetchone()
        return None if row is None else _document(row)

    async def get_many(self, identifiers: Sequence[str]) -> dict[str, Document]:
        """See the port."""
        condition = _conditions({"id": In([checked_id(identifier) for identifier in identifiers])})
        query = f"SELECT body FROM {self._table}{condition.sql}"  # noqa: S608
        rows = await self._readers.read(partial(_fetched, query=query, values=condition.values))
        return {document["id"]: document for document in map(_document, rows)}

    async def change(
        self,
        identifier: str,
        set_: Mapping[str, Any] | None = None,
        *,
        add: Mapping[str, int] | None = None,
        where: Where = ALL,
    ) -> Document | None:
        """See the port."""
        # Not one mapping: `where` may name the id as well.
        condition = _both(_conditions(where), _conditions({"id": checked_id(identifier)}))
        return await self._writer.write(
            lambda connection: _change(connection, self._table, set_ or {}, add or {}, condition)
        )

    async def find(
        self, where: Where = ALL, *, order: Sequence[str] = (), limit: int | None = None, skip: int = 0
    ) -> AsyncIterator[Document]:
        """See the port."""
        condition = _conditions(where)
        query = f"SELECT body FROM {self._table}{condition.sql}{_ordering(order)} LIMIT ? OFFSET ?"  # noqa: S608
        parameters = (*condition.values, -1 if limit is None else limit, skip)
        async with self._readers.connection() as connection:
            cursor = await self._readers.on(connection, lambda c: c.execute(query, parameters))
            try:
                while rows := await self._readers.on(connection, lambda _: cursor.fetchmany(_CHUNK)):
                    for row in rows:
                        yield _document(row)
                    if len(rows) < _CHUNK:
                        return
            finally:
                cursor.close()

    async def count(self, where: Where = ALL) -> int:
        """See the port."""
        condition = _conditions(where)
        query = f"SELECT count(*) FROM {self._table}{condition.sql}"  # noqa: S608
        return int(await self._readers.read(lambda c: c.execute(query, condition.values).fetchone()[0]))

    async def delete(self, identifier: str, *, where: Where = ALL) -> bool:
        """See the port."""
        condition = _both(_conditions(where), _conditions({"id": checked_id(identifier)}))
        return await _deleted(self._writer, self._table, condition) > 0

    async def delete_many(self, where: Where) -> int:
        """See the port."""
        return await _deleted(self._writer, self._table, _conditions(where))


class _Condition(NamedTuple):
    sql: str  # empty, or from WHERE on
    values: tuple[str | int | None, ...]


def _conditions(where: Where) -> _Condition:
    parts: list[str] = []
    values: list[str | int | None] = []
    for field, wanted in where.items():
        path = _path(field)
        if isinstance(wanted, In):
            part, value = _membership(path, wanted)
            parts.append(part)
            values.append(value)
        elif isinstance(wanted, Between):
            bounds = [(">=", wanted.at_least), ("<", wanted.below)]
            given = [(sign, bound) for sign, bound in bounds if bound is not None]
            parts += [f"{path} {sign} ?" for sign, _ in given]
            values += [_value(bound) for _, bound in given]
            if len(given) == 1:
                parts.append(_kind(path, given[0][1]))
        elif wanted is None:
            parts.append(f"{path} IS NULL")
        else:
            parts.append(f"{path} = ?")
            values.append(_value(wanted))
    return _Condition(" WHERE " + " AND ".join(parts) if parts else "", tuple(values))


def _both(one: _Condition, other: _Condition) -> _Condition:
    if not one.sql:
        return other
    return _Condition(f"{one.sql} AND{other.sql.removeprefix(' WHERE')}", one.values + other.values)


def _membership(path: str, wanted: In) -> tuple[str, str]:
    # One variable, as a statement takes only so many.
    part = f"{path} IN (SELECT value FROM json_each(?))"  # noqa: S608
    chosen = orjson.dumps([_value(value) for value in wanted.values]).decode()
    return (f"({part} OR {path} IS NULL)" if None in wanted.values else part), chosen


def _kind(path: str, bound: str | int) -> str:
    """SQLite sorts every text after every number; a bound says which of the two is meant."""
    return f"typeof({path}) = 'text'" if isinstance(bound, str) else f"typeof({path}) IN ('integer', 'real')"


def _path(field: str) -> str:
    return "id" if field == "id" else f"json_extract(body, '$.{checked_name(field)}')"


def _value(value: Scalar) -> str | int | None:
    checked = checked_scalar(value)
    return _text(checked) if isinstance(checked, str) else checked


def _text(value: str) -> str:
    """`value` as it is kept."""
    return value.replace(_ESCAPE, _ITSELF).replace("\0", _NUL)


def _ordering(order: Sequence[str]) -> str:
    terms = [f"{_path(field.removeprefix('-'))}{' DESC' if field.startswith('-') else ''}" for field in order]
    return " ORDER BY " + ", ".join(terms) if terms else ""


def _row(document: Document) -> tuple[str, str]:
    return _text(checked_id(document["id"])), _encoded(document)


def _encoded(document: Document) -> str:
    try:
        text = orjson.dumps(document).decode()
    except orjson.JSONEncodeError as error:
        raise Refused(f"cannot be kept as JSON: {error}") from error
    text = text.replace(_ESCAPE, _ITSELF)
    if _JSON_NUL not in text:
        return text
    return _JSON_ESCAPE.sub(lambda found: _NUL if found[0] == _JSON_NUL else found[0], text)


def _document(row: tuple[str]) -> Document:
    text = row[0]
    if _ESCAPE in text:
        text = text.replace(_NUL, _JSON_NUL).replace(_ITSELF, _ESCAPE)
    document: Document = orjson.loads(text)
    return document


def _fetched(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> list[tuple[str]]:
    return connection.execute(query, values).fetchall()


async def _deleted(writer: Writer, table: str, condition: _Condition) -> int:
    statement = f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table}{condition.sql} LIMIT {_DELETE_LIMIT})"  # noqa: S608
    total = 0
    while True:
        gone = await writer.write(lambda connection: connection.execute(statement, condition.values).rowcount)
        total += gone
        if gone < _DELETE_LIMIT:
            return total


def _executed_many(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[str, str]]) -> int:
    return connection.executemany(statement, rows).rowcount


def _change(
    connection: sqlite3.Connection,
    table: str,
    set_: Mapping[str, Any],
    add: Mapping[str, int],
    condition: _Condition,
) -> Document | None:
    row = connection.execute(f"SELECT body FROM {table}{condition.sql}", condition.values).fetchone()  # noqa: S608
    if row is None:
        return None
    before = _document(row)
    document = {**before, **set_}
    for field, amount in add.items():
        document[field] = (document.get(field) or 0) + amount
    if document["id"] != before["id"]:
        raise Conflict("a document's id does not change")
    identifier, body = _row(document)
    connection.execute(f"UPDATE {table} SET body = ? WHERE id = ?", (body, identifier))  # noqa: S608
    return document


def _make_table(connection: sqlite3.Connection, schema: Schema) -> None:
    table = checked_name(schema.name)
    # `id` has no type: with one, SQLite would take a number in a filter for the text that it looks like.
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (id PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID")
    indexes = list(schema.indexes)
    if schema.expires_at is not None:
        indexes.append(Index((schema.expires_at,)))
    for index in indexes:
        name = f"{table}__{'__'.join(index.fields)}{'__unique' if index.unique else ''}"
        terms = ", ".join([_path(index.fields[0]), *(_term(field, index) for field in index.fields[1:])])
        known_only = f" WHERE {_path(index.fields[0])} IS NOT NULL" if index.unique else ""
        unique = "UNIQUE " if index.unique else ""
        connection.execute(f"CREATE {unique}INDEX IF NOT EXISTS {name} ON {table} ({terms}){known_only}")


def _term(field: str, index: Index) -> str:
    # To SQLite no two missing values are the same; to a unique index they are.
    return f"ifnull({_path(field)}, x'')" if index.unique else _path(field)


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS about (touched INTEGER NOT NULL)")
    connection.execute("INSERT INTO about SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM about)")


@asynccontextmanager
async def sqlite_documents(path: Path, max_pages: int | None = None) -> AsyncIterator[SqliteDocuments]:
    """The store in the file `path`, made when missing. `max_pages` bounds the file, in pages of 4 KiB."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        writer = Writer(path, max_pages)
        stack.push_async_callback(writer.close)
        readers = Readers(path)
        stack.push_async_callback(readers.close)
        await writer.write(_prepare)
        documents = SqliteDocuments(path, writer, readers)
        stack.callback(documents.close)
        expiring = asyncio.create_task(keep_running("documents-expire", documents.expire), name="documents-expire")
        stack.callback(expiring.cancel)
        yield documents
