"""Documents: collections of JSON objects with a string `id`.

Promises, kept by every adapter and tested by `tests/contracts/documents_promises.py`:

* What a write returned from is durable. A write of several documents may, after a crash, have kept some of them.
* `change` is atomic: of several that race on one condition, one finds it true.
* Documents come back as they were put: any JSON with signed 64-bit integers, whatever its keys. What is no Unicode
  text, or no number of JSON, is `Refused`, in filters and ids too.
* Filters compare values, never interpret them: a value that is not a plain scalar is a `TypeError` of the caller, and
  so is an id that is no text.

Fields that filters, orders and indexes name are top-level members.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Document = dict[str, Any]
Scalar = str | int | bool | None


@dataclass(frozen=True, slots=True)
class In:
    """Equal to one of `values`."""

    values: Sequence[Scalar]


@dataclass(frozen=True, slots=True)
class Between:
    """`at_least` <= value < `below`; None: no bound on that side."""

    at_least: str | int | None = None
    below: str | int | None = None


# Field -> what it must be. A field that a document lacks counts as None.
Where = Mapping[str, Scalar | In | Between]
ALL: Where = {}


@dataclass(frozen=True)
class Index:
    """Fields in the order in which they are searched. Unique ones ignore documents where the first field is None."""

    fields: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True)
class Schema:
    """A collection as its owner declares it.

    `expires_at`: the field with the ms since 1970 when a document goes. It is gone about a minute later; until then it
    is found, so whoever must not see it compares.
    """

    name: str
    indexes: tuple[Index, ...] = ()
    expires_at: str | None = None


class Collection(Protocol):
    """One collection. Every method may raise `Unavailable`; those that write, `OutOfSpace`."""

    async def insert(self, document: Document) -> None:
        """Raise `Conflict` when the id or a unique index has it already."""
        ...

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """Insert those whose id is not known yet, skip the others; how many were new.

        Raise `Conflict` when a unique index forbids one.
        """
        ...

    async def put_many(self, documents: Sequence[Document]) -> None:
        """Insert or replace, by id. Raise `Conflict` when a unique index forbids one."""
        ...

    async def get(self, identifier: str) -> Document | None:
        """The document of this id."""
        ...

    async def get_many(self, identifiers: Sequence[str]) -> dict[str, Document]:
        """Those of these ids that there are."""
        ...

    async def change(
        self,
        identifier: str,
        set_: Mapping[str, Any] | None = None,
        *,
        add: Mapping[str, int] | None = None,
        where: Where = ALL,
    ) -> Document | None:
        """Set members and add to numbers (absent = 0) if the document meets `where`; the changed document, else None.

        Raise `Conflict` when a unique index forbids it.
        """
        ...

    def find(
        self, where: Where = ALL, *, order: Sequence[str] = (), limit: int | None = None, skip: int = 0
    ) -> AsyncIterator[Document]:
        """Matching documents, read as they are asked for; `order` by fields, `-field` for falling."""
        ...

    async def count(self, where: Where = ALL) -> int:
        """How many match."""
        ...

    async def delete(self, identifier: str, *, where: Where = ALL) -> bool:
        """Whether it was there, met `where`, and is gone."""
        ...

    async def delete_many(self, where: Where) -> int:
        """How many matched and are gone."""
        ...


class Documents(Protocol):
    """A document store."""

    async def collection(self, schema: Schema) -> Collection:
        """Open `schema`, making what is missing of its collection and indexes (also over documents already there)."""
        ...

    async def ping(self) -> None:
        """Raise `Unavailable` when the store cannot take a write now (`OutOfSpace` when that is why)."""
        ...


async def first(collection: Collection, where: Where, order: Sequence[str] = ()) -> Document | None:
    """The first match, if any."""
    async for document in collection.find(where, order=order, limit=1):
        return document
    return None


async def every(
    collection: Collection, where: Where = ALL, order: Sequence[str] = (), limit: int | None = None
) -> list[Document]:
    """All matches at once: for what is known to be few."""
    return [document async for document in collection.find(where, order=order, limit=limit)]
