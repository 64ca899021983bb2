"""Documents in one SQLite file: a table a collection, the body as JSON text, indexes over expressions on it."""

import asyncio
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from shared.documents import ALL, Between, Document, In, Index, Scalar, Schema, Where
from shared.errors import Conflict, Refused
from shared.sqlite import Readers, Writer, connect, touch, translated
from shared.tasks import keep_running

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_CHUNK = 500
_EXPIRE_EVERY_S = 30.0
_EXPIRE_LIMIT = 5_000
_VARIABLES_LIMIT = 900


class SqliteDocuments:
    """See `shared.documents.Documents`."""

    def __init__(self, path: Path, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers
        self._expiring: dict[str, str] = {}
        # Reads by id take some ten microseconds from a connection that is open: less than handing them to a thread.
        with translated():
            self._direct = connect(path)

    async def collection(self, schema: Schema) -> "SqliteCollection":
        """See the port."""
        await self._writer.write(lambda connection: _make_table(connection, schema))
        if schema.expires_at is not None:
            self._expiring[schema.name] = schema.expires_at
        return SqliteCollection(schema, self._writer, self._readers, self._direct)

    async def ping(self) -> None:
        """See the port."""
        await self._writer.write(touch)

    async def expire(self) -> None:
        """Every half minute, drop what has expired. For ever."""
        while True:
            await self.expire_now(int(time.time() * 1000))
            await asyncio.sleep(_EXPIRE_EVERY_S)

    async def expire_now(self, now_ms: int) -> None:
        """Drop what has expired by `now_ms`, in bounded steps."""
        for name, field in list(self._expiring.items()):
            statement = (
                f"DELETE FROM {name} WHERE id IN "  # noqa: S608 (checked names)
                f"(SELECT id FROM {name} WHERE {_path(field)} < ? LIMIT {_EXPIRE_LIMIT})"
            )
            while await self._writer.write(partial(_executed, statement=statement, values=(now_ms,))) == _EXPIRE_LIMIT:
                pass

    def close(self) -> None:
        """Close the connection that is not the readers'."""
        self._direct.close()


class SqliteCollection:
    """See `shared.documents.Collection`."""

    def __init__(self, schema: Schema, writer: Writer, readers: Readers, direct: sqlite3.Connection) -> None:
        self._table = _checked(schema.name)
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
            row = self._direct.execute(query, (_text(identifier),)).fetchone()
        return None if row is None else _document(row)

    async def get_many(self, identifiers: Sequence[str]) -> dict[str, Document]:
        """See the port."""
        found: dict[str, Document] = {}
        for start in range(0, len(identifiers), _VARIABLES_LIMIT):
            part = [_text(identifier) for identifier in identifiers[start : start + _VARIABLES_LIMIT]]
            query = f"SELECT body FROM {self._table} WHERE id IN ({_marks(part)})"  # noqa: S608
            rows = await self._readers.read(partial(_fetched, query=query, values=part))
            found |= {document["id"]: document for document in map(_document, rows)}
        return found

    async def change(
        self,
        identifier: str,
        set_: Mapping[str, Any] | None = None,
        *,
        add: Mapping[str, int] | None = None,
        where: Where = ALL,
    ) -> Document | None:
        """See the port."""
        condition = _conditions(where)
        return await self._writer.write(
            lambda connection: _change(connection, self._table, identifier, set_ or {}, add or {}, condition)
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
        return await self.delete_many({**where, "id": identifier}) > 0

    async def delete_many(self, where: Where) -> int:
        """See the port."""
        condition = _conditions(where)
        statement = f"DELETE FROM {self._table}{condition.sql}"  # noqa: S608
        return await self._writer.write(lambda connection: connection.execute(statement, condition.values).rowcount)


class _Condition(NamedTuple):
    sql: str  # empty, or from WHERE on
    values: tuple[str | int | None, ...]


def _conditions(where: Where) -> _Condition:
    parts: list[str] = []
    values: list[str | int | None] = []
    for field, wanted in where.items():
        path = _path(field)
        if isinstance(wanted, In):
            chosen = [_value(value) for value in wanted.values]
            parts.append(f"{path} IN ({_marks(chosen)})")
            values += chosen
        elif isinstance(wanted, Between):
            for sign, bound in ((">=", wanted.at_least), ("<", wanted.below)):
                if bound is not None:
                    parts.append(f"{path} {sign} ?")
                    values.append(_value(bound))
            if wanted.at_least is None or wanted.below is None:
                parts.append(_kind(path, wanted))
        elif wanted is None:
            parts.append(f"{path} IS NULL")
        else:
            parts.append(f"{path} = ?")
            values.append(_value(wanted))
    return _Condition(" WHERE " + " AND ".join(parts) if parts else "", tuple(values))


def _kind(path: str, wanted: Between) -> str:
    """SQLite sorts every text after every number; a bound says which of the two is meant."""
    bound = wanted.at_least if wanted.at_least is not None else wanted.below
    return f"typeof({path}) = 'text'" if isinstance(bound, str) else f"typeof({path}) IN ('integer', 'real')"


def _path(field: str) -> str:
    # Only names that code writes get here; the check keeps it so.
    return "id" if field == "id" else f"json_extract(body, '$.{_checked(field)}')"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name of a collection or field: {name!r}")
    return name


def _value(value: Scalar) -> str | int | None:
    if value is not None and not isinstance(value, str | int):
        raise TypeError(f"a filter compares with text, integers, booleans and None, not with {type(value).__name__}")
    return _text(value) if isinstance(value, str) else value


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("text with a lone surrogate is no Unicode text") from None
    return value


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _ordering(order: Sequence[str]) -> str:
    terms = [f"{_path(field.removeprefix('-'))}{' DESC' if field.startswith('-') else ''}" for field in order]
    return " ORDER BY " + ", ".join(terms) if terms else ""


def _row(document: Document) -> tuple[str, str]:
    identifier = document["id"]
    if not isinstance(identifier, str):
        raise TypeError("a document's id is a string")
    return _text(identifier), _encoded(document)


def _encoded(document: Document) -> str:
    try:
        return orjson.dumps(document).decode()
    except orjson.JSONEncodeError as error:
        raise Refused(f"cannot be kept as JSON: {error}") from error


def _document(row: tuple[str]) -> Document:
    document: Document = orjson.loads(row[0])
    return document


def _fetched(connection: sqlite3.Connection, query: str, values: Sequence[object]) -> list[tuple[str]]:
    return connection.execute(query, values).fetchall()


def _executed(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> int:
    return connection.execute(statement, values).rowcount


def _executed_many(connection: sqlite3.Connection, statement: str, rows: Sequence[tuple[str, str]]) -> int:
    return connection.executemany(statement, rows).rowcount


def _change(
    connection: sqlite3.Connection,
    table: str,
    identifier: str,
    set_: Mapping[str, Any],
    add: Mapping[str, int],
    condition: _Condition,
) -> Document | None:
    joined = f"{condition.sql} AND id = ?" if condition.sql else " WHERE id = ?"
    row = connection.execute(f"SELECT body FROM {table}{joined}", (*condition.values, identifier)).fetchone()  # noqa: S608
    if row is None:
        return None
    document = {**_document(row), **set_}
    for field, amount in add.items():
        document[field] = (document.get(field) or 0) + amount
    if document["id"] != identifier:
        raise Conflict("a document's id does not change")
    body = _encoded(document)
    connection.execute(f"UPDATE {table} SET body = ? WHERE id = ?", (body, identifier))  # noqa: S608
    return document


def _make_table(connection: sqlite3.Connection, schema: Schema) -> None:
    table = _checked(schema.name)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID")
    indexes = list(schema.indexes)
    if schema.expires_at is not None:
        indexes.append(Index((schema.expires_at,)))
    for index in indexes:
        name = f"{table}__{'__'.join(index.fields)}{'__unique' if index.unique else ''}"
        terms = ", ".join(_path(field) for field in index.fields)
        known_only = f" WHERE {_path(index.fields[0])} IS NOT NULL" if index.unique else ""
        unique = "UNIQUE " if index.unique else ""
        connection.execute(f"CREATE {unique}INDEX IF NOT EXISTS {name} ON {table} ({terms}){known_only}")


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
