"""What every document store keeps."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.documents import ALL, Between, Collection, Document, Documents, In, Index, Schema, Where, every, first
from shared.documents.open import open_documents
from shared.errors import Conflict, Refused
from tests.contracts.child import child
from tests.support.waiting import eventually

AWKWARD: list[Any] = [
    {"": 1, "a.b": {"$set": {"$ne": None}}, "$where": "1", "_id": 7, "__proto__": [], "a\0b": "c\0d"},
    [None, True, False, 0, -1, 1.5, -0.0, 1e300, 5e-324, 0.1, "", [], {}],
    [2**63 - 1, -(2**63), 2**53 + 1],
    [
        "\0",
        "\uffff",
        "\uffff0",
        "\uffff1",
        "\ud7ff",
        "\u2028",
        "\x7f",
        "\U0001f9ea",
        'quo"te',
        "back\\slash",
        "\\u0000",
    ],
    "'; DROP TABLE t; --",
    [[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]],
    "x" * 2_000_000,
]
NO_SCALARS: list[Any] = [{"$ne": None}, {"$gt": ""}, {}, [], [1], 1.5, b"one"]
NO_SCALARS += [In(NO_SCALARS[:1]), In(["a", *NO_SCALARS[4:5]]), Between(NO_SCALARS[0]), Between(below=NO_SCALARS[-1])]


class DocumentsPromises:
    """A subclass gives the address of a store."""

    @pytest.fixture
    def address(self) -> str:
        raise NotImplementedError

    @pytest.fixture
    async def documents(self, address: str) -> AsyncIterator[Documents]:
        async with open_documents(address) as documents:
            yield documents

    @pytest.fixture
    def name(self) -> str:
        return f"contract_{secrets.token_hex(6)}"

    @pytest.fixture
    async def collection(self, documents: Documents, name: str) -> Collection:
        return await documents.collection(Schema(name))

    # Putting and getting

    @pytest.mark.parametrize("value", AWKWARD, ids=range(len(AWKWARD)))
    async def test_a_document_comes_back_as_it_was_put(self, collection: Collection, value: Any) -> None:
        document = {"id": "a", "value": value, "": value, "a.b": 1, "$set": {"id": 2}, "_id": None, "n\0l": 0}
        await collection.insert(document)
        await collection.insert_many([document | {"id": "b"}])
        await collection.put_many([document | {"id": "c"}])
        assert await collection.change("a", {"changed": value}) == document | {"changed": value}
        assert await collection.get("a") == document | {"changed": value}
        assert await collection.get_many(["b", "c"]) == {each: document | {"id": each} for each in "bc"}
        assert await every(collection, {"id": "b"}) == [document | {"id": "b"}]

    @pytest.mark.parametrize("identifier", ["", "a.b", "$ne", "\0", "a\0", "'", "\U0001f9ea", "x" * 900, "7"])
    async def test_an_id_is_any_text(self, collection: Collection, identifier: str) -> None:
        await collection.insert_many([{"id": identifier}, {"id": "other"}])
        assert await collection.count({"id": 7}) == await collection.count({"id": In([7])}) == 0
        assert await collection.get(identifier) == {"id": identifier}
        assert await collection.get_many([identifier]) == {identifier: {"id": identifier}}
        assert await collection.change(identifier, {"n": 1}, where={"id": identifier}) == {"id": identifier, "n": 1}
        assert await collection.delete(identifier)
        assert [document["id"] async for document in collection.find()] == ["other"]

    async def test_an_unknown_id_gets_nothing(self, collection: Collection) -> None:
        assert await collection.get("a") is None
        assert await collection.get_many(["a", "b"]) == {}
        assert await collection.get_many([]) == {}
        assert await collection.change("a", {"n": 1}) is None
        assert not await collection.delete("a")
        assert await collection.count() == 0

    async def test_a_second_insert_of_an_id_conflicts_and_changes_nothing(self, collection: Collection) -> None:
        await collection.insert({"id": "a", "n": 1})
        with pytest.raises(Conflict):
            await collection.insert({"id": "a", "n": 2})
        assert await collection.get("a") == {"id": "a", "n": 1}

    async def test_inserting_many_skips_the_known_and_tells_how_many_were_new(self, collection: Collection) -> None:
        assert await collection.insert_many([]) == 0
        assert await collection.insert_many([{"id": "a", "n": 1}, {"id": "b", "n": 1}, {"id": "a", "n": 2}]) == 2
        assert await collection.insert_many([{"id": "a", "n": 3}, {"id": "c", "n": 3}]) == 1
        assert await collection.insert_many([{"id": "a", "n": 4}]) == 0
        found = await collection.get_many(["a", "b", "c"])
        assert {identifier: document["n"] for identifier, document in found.items()} == {"a": 1, "b": 1, "c": 3}

    async def test_putting_many_replaces_whole_documents(self, collection: Collection) -> None:
        await collection.put_many([{"id": "a", "n": 1, "old": True}])
        await collection.put_many([{"id": "a", "n": 2}, {"id": "b"}])
        await collection.put_many([])
        assert await collection.get_many(["a", "b"]) == {"a": {"id": "a", "n": 2}, "b": {"id": "b"}}

    async def test_many_are_got_by_their_ids(self, collection: Collection) -> None:
        await collection.insert_many([{"id": str(number)} for number in range(3000)])
        assert len(await collection.get_many([str(number) for number in range(0, 6000, 2)])) == 1500

    async def test_collections_are_apart(self, documents: Documents, name: str) -> None:
        one, two = [await documents.collection(Schema(each)) for each in (name, f"{name}_two")]
        await one.insert({"id": "a"})
        assert await two.get("a") is None

    @pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
    async def test_what_is_no_text_is_refused_everywhere(self, collection: Collection, text: str) -> None:
        for document in ({"id": "a", "n": [text]}, {"id": "a", text: 1}, {"id": text}):
            with pytest.raises(Refused):
                await collection.insert(document)
            with pytest.raises(Refused):
                await collection.insert_many([{"id": "b"}, document])
            with pytest.raises(Refused):
                await collection.put_many([{"id": "b"}, document])
        await collection.insert({"id": "c"})
        for asking in (
            collection.get(text),
            collection.get_many([text]),
            collection.change(text, {"n": 1}),
            collection.change("c", {"n": text}),
            collection.count({"n": text}),
            every(collection, {"n": In(["a", text])}),
            every(collection, {"n": Between(text)}),
            collection.delete(text),
        ):
            with pytest.raises(Refused):
                await asking
        assert await every(collection) == [{"id": "c"}]

    async def test_numbers_beyond_json_are_refused(self, collection: Collection) -> None:
        with pytest.raises(Refused):
            await collection.insert({"id": "a", "n": 2**64})
        await collection.insert({"id": "a"})
        for asking in (collection.count({"n": 2**63}), collection.count({"n": Between(-(2**63) - 1)})):
            with pytest.raises(Refused):
                await asking
        assert await collection.count() == 1

    # Finding

    @pytest.fixture
    async def some(self, collection: Collection) -> Collection:
        await collection.insert_many(
            [
                {"id": "a", "n": 1, "text": "one", "on": True},
                {"id": "b", "n": 2, "text": "two", "on": False},
                {"id": "c", "n": 10, "text": "1"},
                {"id": "d", "n": "1", "text": ""},
                {"id": "e", "n": None, "text": "one\0more"},
                {"id": "f", "text": "One", "nested": {"n": 1}, "list": [1]},
                {"id": "g", "n": 2**62 + 1, "text": "é"},
                {"id": "h", "n": 1.5},
            ]
        )
        return collection

    @pytest.mark.parametrize(
        ("where", "ids"),
        [
            (ALL, "abcdefgh"),
            ({"n": 1}, "a"),
            ({"n": "1"}, "d"),
            ({"n": None}, "ef"),
            ({"n": 2**62 + 1}, "g"),
            ({"n": 2**62}, ""),
            ({"text": "one"}, "a"),
            ({"text": "one\0more"}, "e"),
            ({"text": "one\0"}, ""),
            ({"text": "é"}, "g"),
            ({"text": ""}, "d"),
            ({"text": None}, "h"),
            ({"on": True}, "a"),
            ({"on": False}, "b"),
            ({"unknown": None}, "abcdefgh"),
            ({"unknown": 1}, ""),
            ({"id": "a"}, "a"),
            ({"id": 1}, ""),
            ({"id": None}, ""),
            ({"n": 1, "text": "one"}, "a"),
            ({"n": 1, "text": "two"}, ""),
            ({"id": In(["a", "c", "x"])}, "ac"),
            ({"n": In([1, 2, "1"])}, "abd"),
            ({"n": In([])}, ""),
            ({"n": In([1, None])}, "aef"),
            ({"n": In([None])}, "ef"),
            ({"text": In(["one\0more", "two"])}, "be"),
            ({"n": In(range(5000))}, "abc"),
            ({"id": In([str(number) for number in range(50_000)] + ["a"])}, "a"),
            ({"n": Between(1, 10)}, "abh"),
            ({"n": Between(2)}, "bcg"),
            ({"n": Between(below=2)}, "ah"),
            ({"n": Between(2, 2)}, ""),
            ({"n": Between(0)}, "abcgh"),
            ({"n": Between("")}, "d"),
            ({"n": Between("0", "2")}, "d"),
            ({"text": Between("one", "onf")}, "ae"),
            ({"text": Between(below="a")}, "cdf"),
            ({"id": Between("b", "d")}, "bc"),
            ({"n": Between(), "id": In(["a", "d", "f"])}, "adf"),
            ({"n": Between(1), "text": Between("t")}, "bg"),
        ],
    )
    async def test_filters_compare_values(self, some: Collection, where: Where, ids: str) -> None:
        assert sorted(document["id"] for document in await every(some, where)) == list(ids)
        assert await some.count(where) == len(ids)
        changed = await asyncio.gather(*(some.change(each, {"seen": 1}, where=where) for each in "abcdefgh"))
        assert "".join(document["id"] for document in changed if document is not None) == ids
        assert await some.count({"seen": 1}) == len(ids)
        assert await some.delete_many(where) == len(ids)
        assert sorted(document["id"] for document in await every(some)) == sorted(set("abcdefgh") - set(ids))

    @pytest.mark.parametrize("value", NO_SCALARS, ids=str)
    async def test_what_is_no_plain_value_is_no_filter(self, some: Collection, value: Any) -> None:
        for asking in (
            every(some, {"text": value}),
            some.count({"text": value}),
            some.change("a", {"n": 1}, where={"text": value}),
            some.delete("a", where={"text": value}),
            some.delete_many({"text": value}),
        ):
            with pytest.raises(TypeError):
                await asking
        assert await some.count() == 8

    @pytest.mark.parametrize("value", [{"$ne": None}, ["a"], 1, None, True])
    async def test_what_is_no_text_is_no_id(self, some: Collection, value: Any) -> None:
        for asking in (
            some.get(value),
            some.get_many([value]),
            some.change(value, {"n": 1}),
            some.delete(value),
            some.insert({"id": value}),
        ):
            with pytest.raises(TypeError):
                await asking
        assert await some.count() == 8

    @pytest.mark.parametrize("field", ["a.b", "$where", "", "a b", "n'", "N", 'n"', "n\0"])
    async def test_a_filter_names_plain_fields(self, some: Collection, field: str) -> None:
        for asking in (every(some, {field: 1}), every(some, order=[field]), some.delete_many({field: 1})):
            with pytest.raises(ValueError, match="name"):
                await asking

    @pytest.mark.parametrize(
        ("order", "ids"),
        [(["id"], "abcd"), (["-id"], "dcba"), (["n", "id"], "dacb"), (["-n", "id"], "bacd"), (["-n", "-id"], "bcad")],
    )
    async def test_finding_keeps_an_order_where_what_lacks_comes_first(
        self, collection: Collection, order: list[str], ids: str
    ) -> None:
        await collection.insert_many([{"id": "c", "n": 1}, {"id": "b", "n": 2}, {"id": "a", "n": 1}, {"id": "d"}])
        assert "".join(document["id"] for document in await every(collection, order=order)) == ids

    async def test_texts_are_ordered_by_code_point(self, collection: Collection) -> None:
        texts = ["", "A", "Z", "a", "aa", "z", "é", "\ue000", "\U0001f9ea"]
        await collection.insert_many([{"id": text, "text": text} for text in reversed(texts)])
        assert [document["text"] for document in await every(collection, order=["text"])] == texts

    async def test_limit_and_skip_page_through_an_order(self, collection: Collection) -> None:
        await collection.insert_many([{"id": f"{number:04}", "even": number % 2 == 0} for number in range(1200)])
        pages = []
        for skip in range(0, 700, 100):
            found = collection.find({"even": True}, order=["-id"], limit=100, skip=skip)
            pages += [int(document["id"]) async for document in found]
        assert pages == list(range(1198, -1, -2))
        assert [document["id"] async for document in collection.find(order=["id"], skip=1198)] == ["1198", "1199"]
        assert await every(collection, limit=0) == []

    async def test_the_first_of_an_order_is_found(self, some: Collection) -> None:
        found = await first(some, {"n": Between(1, 5)}, order=["-n"])
        assert found is not None
        assert found["id"] == "b"
        assert await first(some, {"n": 99}) is None

    async def test_a_stream_goes_on_while_others_write(self, collection: Collection) -> None:
        await collection.insert_many([{"id": f"{number:05}"} for number in range(5000)])
        found = []
        async for document in collection.find(order=["id"]):
            found.append(document["id"])
            if len(found) % 1000 == 1:
                await collection.insert({"id": f"x{len(found)}"})
                await collection.change("04999", add={"n": 1})
        assert [identifier for identifier in found if not identifier.startswith("x")] == [
            f"{number:05}" for number in range(5000)
        ]

    async def test_streams_may_be_many_and_be_left_in_the_middle(self, collection: Collection) -> None:
        await collection.insert_many([{"id": str(number)} for number in range(2000)])

        async def some_of_it(number: int) -> int:
            seen = 0
            async for _ in collection.find():
                seen += 1
                if seen == number * 100:
                    break
            return seen

        assert await asyncio.gather(*map(some_of_it, range(1, 21))) == [number * 100 for number in range(1, 21)]
        assert await collection.count() == 2000

    async def test_a_cancelled_stream_troubles_nobody(self, collection: Collection) -> None:
        await collection.insert_many([{"id": str(number)} for number in range(2000)])
        for _ in range(20):
            reading = asyncio.create_task(every(collection, order=["-id"]))
            await asyncio.sleep(0.001)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        assert len(await every(collection)) == 2000

    # Changing

    async def test_a_change_sets_members_and_adds_to_numbers(self, collection: Collection) -> None:
        await collection.insert({"id": "a", "n": 1, "null": None, "kept": [1]})
        changed = await collection.change("a", {"text": "x", "n": 5}, add={"n": 2, "new": -3, "null": 4})
        assert changed == {"id": "a", "n": 7, "null": 4, "kept": [1], "text": "x", "new": -3}
        assert await collection.get("a") == changed
        assert await collection.change("a") == changed

    async def test_a_change_happens_only_where_its_condition_holds(self, collection: Collection) -> None:
        await collection.insert({"id": "a", "state": "new"})
        assert await collection.change("a", {"state": "done"}, where={"state": "old"}) is None
        assert await collection.change("a", {"state": "done"}, where={"state": "new", "owner": None}) is not None
        assert await collection.get("a") == {"id": "a", "state": "done"}

    async def test_a_change_does_not_change_the_id(self, collection: Collection) -> None:
        await collection.insert({"id": "a"})
        with pytest.raises(Conflict):
            await collection.change("a", {"id": "b"})
        assert await every(collection) == [{"id": "a"}]

    async def test_of_many_that_race_on_a_condition_one_wins(self, collection: Collection) -> None:
        await collection.insert({"id": "a", "owner": None})
        won = await asyncio.gather(
            *(collection.change("a", {"owner": str(number)}, where={"owner": None}) for number in range(100))
        )
        (winner,) = [document for document in won if document is not None]
        assert await collection.get("a") == winner

    async def test_counters_add_up_however_many_add(self, address: str, collection: Collection, name: str) -> None:
        await collection.insert({"id": "a"})
        async with child("add", address, name, "a", "100") as one, child("add", address, name, "a", "100") as two:
            assert await one.line() == await two.line() == "begun"
            for _ in range(10):
                await asyncio.gather(*(collection.change("a", add={"number": 1}) for _ in range(20)))
            assert await one.line() == await two.line() == "done"
        assert await collection.get("a") == {"id": "a", "number": 400}

    async def test_of_two_processes_one_wins_each_document(
        self, address: str, collection: Collection, name: str
    ) -> None:
        await collection.insert_many([{"id": str(number)} for number in range(100)])
        async with (
            child("claim", address, name, "100", "one") as one,
            child("claim", address, name, "100", "two") as two,
        ):
            assert await one.line() == await two.line() == "begun"
            won = [set(await each.rest()) for each in (one, two)]
        assert sorted(won[0] | won[1], key=int) == [str(number) for number in range(100)]
        assert not won[0] & won[1]
        assert await collection.count({"owner": "one"}) == len(won[0])

    # Deleting

    async def test_a_delete_tells_whether_it_did(self, collection: Collection) -> None:
        await collection.insert({"id": "a", "n": 1})
        assert not await collection.delete("a", where={"n": 2})
        assert await collection.delete("a", where={"n": 1})
        assert not await collection.delete("a")

    async def test_of_many_that_delete_one_did(self, collection: Collection) -> None:
        await collection.insert({"id": "a"})
        assert (await asyncio.gather(*(collection.delete("a") for _ in range(20)))).count(True) == 1

    async def test_any_number_of_documents_is_deleted(self, collection: Collection) -> None:
        await collection.insert_many([{"id": str(number), "even": number % 2 == 0} for number in range(12_000)])
        assert await collection.delete_many({"even": True}) == 6000
        assert await collection.count() == 6000
        assert await collection.delete_many(ALL) == 6000
        assert await collection.count() == 0

    # Unique indexes

    @pytest.fixture
    async def unique(self, documents: Documents, name: str) -> Collection:
        return await documents.collection(Schema(name, (Index(("email",), unique=True),)))

    async def test_a_unique_index_keeps_values_apart(self, unique: Collection) -> None:
        await unique.insert({"id": "a", "email": "x"})
        await unique.insert({"id": "b", "email": "y"})
        for forbidden in (
            unique.insert({"id": "c", "email": "x"}),
            unique.insert_many([{"id": "c", "email": "x"}]),
            unique.put_many([{"id": "b", "email": "x"}]),
            unique.change("b", {"email": "x"}),
        ):
            with pytest.raises(Conflict):
                await forbidden
        assert await unique.get_many(["a", "b", "c"]) == {
            "a": {"id": "a", "email": "x"},
            "b": {"id": "b", "email": "y"},
        }
        await unique.insert_many([{"id": "a", "email": "x"}])
        await unique.change("a", {"email": "x"})
        await unique.delete("a")
        await unique.insert({"id": "c", "email": "x"})

    async def test_values_that_are_not_there_do_not_collide_and_different_ones_neither(
        self, unique: Collection
    ) -> None:
        values = [None, None, "x", "X", "x ", "x\0", "x\0y", "1", 1, ""]
        documents: list[Document] = [{"id": str(place), "email": value} for place, value in enumerate(values)]
        assert await unique.insert_many([*documents, {"id": "none"}, {"id": "neither"}]) == 12
        assert await unique.count({"email": None}) == 4

    async def test_of_many_that_race_for_a_unique_value_one_wins(self, address: str, name: str) -> None:
        schema = Schema(name, (Index(("email",), unique=True),))
        async with open_documents(address) as one, open_documents(address) as two:
            collections = [await each.collection(schema) for each in (one, two)]
            outcomes = await asyncio.gather(
                *(collections[number % 2].insert({"id": str(number), "email": "x"}) for number in range(40)),
                return_exceptions=True,
            )
            assert outcomes.count(None) == 1
            assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 39
            assert await collections[0].count() == 1

    async def test_a_unique_index_over_several_fields_ignores_only_what_lacks_the_first(
        self, documents: Documents, name: str
    ) -> None:
        collection = await documents.collection(Schema(name, (Index(("workspace", "name"), unique=True),)))
        await collection.insert_many(
            [
                {"id": "a", "workspace": "w", "name": "x"},
                {"id": "b", "workspace": "w", "name": "y"},
                {"id": "c", "workspace": "v", "name": "x"},
                {"id": "d", "workspace": "w"},
                {"id": "e", "name": "x"},
                {"id": "f", "name": "x"},
            ]
        )
        for document in ({"id": "z", "workspace": "w", "name": "x"}, {"id": "z", "workspace": "w", "name": None}):
            with pytest.raises(Conflict):
                await collection.insert(document)
        assert await collection.count({"workspace": "w", "name": None}) == 1

    # Reopening

    async def test_documents_and_indexes_are_there_after_reopening(self, address: str, name: str) -> None:
        schema = Schema(name, (Index(("email",), unique=True), Index(("n", "email"))), expires_at="until")
        for number in range(3):
            async with open_documents(address) as documents:
                collection = await documents.collection(schema)
                await documents.collection(schema)
                await collection.insert({"id": str(number), "email": str(number)})
                with pytest.raises(Conflict):
                    await collection.insert({"id": "x", "email": "0"})
                assert await collection.count() == number + 1

    async def test_an_index_may_be_added_later(self, address: str, name: str) -> None:
        async with open_documents(address) as documents:
            collection = await documents.collection(Schema(name))
            await collection.insert_many([{"id": "a", "email": "x", "n": 1}, {"id": "b", "n": 1}, {"id": "c"}])
        async with open_documents(address) as documents:
            collection = await documents.collection(Schema(name, (Index(("n",)), Index(("email",), unique=True))))
            assert await collection.count({"n": 1}) == 2
            with pytest.raises(Conflict):
                await collection.insert({"id": "d", "email": "x"})

    async def test_a_unique_index_over_what_is_not_unique_conflicts_and_loses_nothing(
        self, documents: Documents, name: str
    ) -> None:
        collection = await documents.collection(Schema(name))
        await collection.insert_many([{"id": "a", "email": "x"}, {"id": "b", "email": "x"}])
        with pytest.raises(Conflict):
            await documents.collection(Schema(name, (Index(("email",), unique=True),)))
        assert await collection.count() == 2

    async def test_what_expired_while_nobody_looked_goes_and_nothing_else(self, address: str, name: str) -> None:
        now = int(time.time() * 1000)
        async with open_documents(address) as documents:
            collection = await documents.collection(Schema(name))
            await collection.insert_many(
                [
                    {"id": "gone", "until": now - 1000},
                    {"id": "prolonged", "until": now - 1000},
                    {"id": "later", "until": now + 3600_000},
                    {"id": "never", "until": None},
                    {"id": "neither"},
                    {"id": "other", "at": 1},
                ]
            )
            await collection.change("prolonged", {"until": now + 3600_000})
        async with open_documents(address) as documents:
            collection = await documents.collection(Schema(name, expires_at="until"))

            async def is_gone() -> bool:
                return await collection.get("gone") is None

            await eventually(is_gone, within_s=90)
            left = [document["id"] for document in await every(collection, order=["id"])]
            assert left == ["later", "neither", "never", "other", "prolonged"]

    async def test_what_was_inserted_is_there_after_a_kill(self, address: str, name: str) -> None:
        async with child("insert", address, name) as inserter:
            for _ in range(20):
                last = int(await inserter.line())
            unread = await inserter.kill()
        last = int(unread[-1]) if unread else last
        async with open_documents(address) as documents:
            collection = await documents.collection(Schema(name))
            found = {int(document["id"]) for document in await every(collection)}
            assert found >= set(range(last + 1))
            assert await collection.insert_many([{"id": str(number)} for number in range(last + 100)]) > 0
            assert await collection.count() >= last + 100

    async def test_a_store_in_order_answers_a_ping(self, documents: Documents) -> None:
        await documents.ping()
