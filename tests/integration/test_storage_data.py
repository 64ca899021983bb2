"""What becomes of data points: byte for byte, once, kept as long as they should be and no longer."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from services.storage.adapters.store import open_store
from services.storage.domain.points import PointsQuery
from services.storage.metrics import FORGOTTEN, REFUSED, REPEATED
from services.storage.settings import StorageSettings
from shared.documents.sqlite import SqliteDocuments
from shared.log import Record
from shared.messages.topics import DATA
from tests.support.http import device, know, running_platform
from tests.support.storage import KNOWN, RETENTION_DAYS, T0, Storage, point, storage
from tests.support.waiting import eventually
from tests.support.workers import unregister

DAY_MS = 24 * 3600 * 1000
VERBATIM = [
    "1.0",
    "-0",
    "-0.0",
    "1e5",
    "1E+5",
    "0.12345678901234567890",
    "9223372036854775807",
    "1e308",
    '"\\u00e9\\ud83d\\ude00\\u0000\\/"',
    '"é😀\u2028"',
    '{"a.b":1,"":2,"$set":{"x":1},"$ne":null,"__proto__":3,"id":4,"_id":5}',
    '{"z":1,"a":2,"m":3}',
    '{"a":1,"a":2,"a":3}',
    ' { "spaces" : [ 1 , 2 ] }\n',
    "[]",
    "null",
    "false",
    '""',
    "[" * 64 + "]" * 64,
]


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Storage]:
    async with storage(tmp_path) as one:
        yield one


async def test_payloads_come_back_byte_for_byte(there: Storage) -> None:
    await there.put(*(point(number, payload, tag=f"t{number}") for number, payload in enumerate(VERBATIM)))
    for number, payload in enumerate(VERBATIM):
        answer = await there.ask("timeseries/wks-1/data", tag=f"t{number}")
        assert answer.body.endswith(f',"tag":"t{number}","payload":{payload}}}]}}'.encode())


async def test_tags_may_be_any_text(there: Storage) -> None:
    tags = ["", "a/b/c", "$set", "a.b", "'; DROP TABLE storage_tags; --", "😀", "%00", "x" * 256]
    await there.put(*(point(number, tag=tag) for number, tag in enumerate(tags)))
    assert (await there.ask("workspaces/wks-1/tags")).json["tags"] == sorted(tags)
    for number, tag in enumerate(tags[1:], 1):
        assert [one["tag"] for one in await there.points(tag=tag)] == [tags[number]]


async def test_a_list_of_very_many_tags_is_whole(there: Storage) -> None:
    tags = [f"{number % 300:03d}" for number in range(600)]
    await there.put(
        *(point(number, tag=tag, device_id=f"dev-{number % 2 + 1}") for number, tag in enumerate(tags)),
        *(point(1000 + number, tag="150", device_id="dev-1") for number in range(3)),
    )
    assert (await there.ask("workspaces/wks-1/tags")).json["tags"] == sorted(set(tags))


async def test_repeats_in_the_log_are_stored_once(there: Storage) -> None:
    points = [point(number, str(number)) for number in range(50)]
    before = REPEATED._value.get()
    await there.put(*points)
    await there.log(*points[::-1], *points)
    await there.put(point(99, "99"))
    assert [one["payload"] for one in await there.points()] == [99, *range(49, -1, -1)]
    assert REPEATED._value.get() - before == 100


async def test_a_death_between_storing_and_committing_stores_nothing_twice(tmp_path: Path) -> None:
    points = [point(number, str(number)) for number in range(50)]
    async with storage(tmp_path) as one:
        await one.put(*points[:10])
    async with running_platform(tmp_path) as platform:
        await platform.log.append(DATA, [one.record() for one in points[10:]])
        # Stored, and then the end came.
        await (await open_store(platform.documents, RETENTION_DAYS)).add(points[10:40])
    async with storage(tmp_path) as one:
        await eventually(lambda: has(one, 50))
        assert [found["payload"] for found in await one.points()] == list(range(49, -1, -1))


async def test_a_record_that_is_no_point_is_counted_and_the_others_stored(there: Storage) -> None:
    before = REFUSED._value.get()
    await there.platform.log.append(DATA, [Record("dev-1", value) for value in (b"", b"nonsense", b"[]", b"{}", None)])
    await there.put(point(1))
    assert REFUSED._value.get() - before == 5


async def test_a_point_keeps_the_fleet_in_which_it_was_received(there: Storage) -> None:
    await there.put(point(1, "1"), point(2, "2", fleet_id="flt-2"), point(3, "3", fleet_id=""))
    moved = next(one for one in KNOWN if one.id == "dev-1").model_copy(update={"fleet_id": "flt-2", "revision": 2})
    await know(there.platform, moved)
    await there.platform.registry.settled()
    assert [one["payload"] for one in await there.points(fleet="flt-1")] == [1]
    assert [one["fleet_id"] for one in await there.points()] == ["", "flt-2", "flt-1"]


def test_ninety_days_are_kept_unless_told_otherwise() -> None:
    assert StorageSettings.load({}).retention_days == 90


async def has(there: Storage, count: int, workspace_id: str = "wks-1") -> bool:
    return len(await there.points(workspace_id, size=1000)) == count


async def test_what_a_deleted_device_sent_goes_with_it(there: Storage) -> None:
    mine = [point(number, tag=f"own{number % 2}") for number in range(600)]
    await there.put(*mine, point(1000, device_id="dev-2"))
    await unregister(there.platform, "dev-1")
    await eventually(lambda: has(there, 1))
    assert (await there.ask("workspaces/wks-1/data", device="dev-1")).status == 404

    async def tags_of_others() -> bool:
        return bool((await there.ask("workspaces/wks-1/tags")).json == {"tags": ["env"]})

    await eventually(tags_of_others)


async def test_points_that_come_after_their_device_is_deleted_are_not_kept(there: Storage) -> None:
    before = FORGOTTEN._value.get()
    await unregister(there.platform, "dev-1")
    await there.log(*(point(number) for number in range(20)))
    await there.put(point(100, device_id="dev-2"))
    assert FORGOTTEN._value.get() - before == 20
    assert (await there.ask("workspaces/wks-1/tags")).json == {"tags": ["env"]}


async def test_points_of_a_device_made_a_moment_ago_are_kept(there: Storage) -> None:
    await know(there.platform, device("dev-new", "wks-1", "acc-1"))
    await there.put(point(1, device_id="dev-new"))


async def test_nothing_of_a_deleted_workspace_stays(there: Storage) -> None:
    await there.put(point(1), point(2, device_id="dev-2"), point(3, workspace_id="wks-2", device_id="dev-3"))
    await unregister(there.platform, "wks-1")
    assert (await there.ask("workspaces/wks-1/data")).status == 404
    store = await open_store(there.platform.documents, RETENTION_DAYS)

    async def gone() -> bool:
        return not [found async for found in store.find(PointsQuery("wks-1"))] and not await store.tags("wks-1", None)

    await eventually(gone)
    assert await has(there, 1, "wks-2")


async def test_points_and_then_their_tags_go_when_they_were_kept_long_enough(there: Storage) -> None:
    documents = cast(SqliteDocuments, there.platform.documents)
    taken = point(0).timestamp_in
    gone = taken + RETENTION_DAYS * DAY_MS
    await there.put(point(0, "1", tag="old"), point(1, "2", tag="young", timestamp_in=taken + DAY_MS))
    await documents.expire_now(gone)
    assert await has(there, 2)
    await documents.expire_now(gone + 1)
    assert [one["payload"] for one in await there.points()] == [2]
    await documents.expire_now(gone + DAY_MS + 1)
    assert (await there.ask("workspaces/wks-1/tags")).json == {"tags": ["young"]}
    await documents.expire_now(gone + 2 * DAY_MS + 1)
    assert (await there.ask("workspaces/wks-1/tags")).json == {"tags": []}


async def test_a_tag_that_is_still_in_use_stays(there: Storage) -> None:
    documents = cast(SqliteDocuments, there.platform.documents)
    for day in range(0, 100, 10):
        await there.put(point(day, str(day), timestamp_device=T0 + day * DAY_MS, timestamp_in=T0 + day * DAY_MS))
    await documents.expire_now(T0 + (RETENTION_DAYS + 85) * DAY_MS)
    assert [one["payload"] for one in await there.points()] == [90]
    assert (await there.ask("workspaces/wks-1/tags")).json == {"tags": ["env"]}
