"""Time series and tags over REST (spec: rest-v3 8.9 and 9), on a real log, store and socket."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.clock import rfc3339_ms
from shared.messages.devices import DataReceived
from tests.support.storage import T0, Storage, point, storage

# More than a step of the reading, many of them at the same time, and not in the order in which they came.
POINTS = [
    point(
        number,
        timestamp_device=T0 + number * 7919 % 400,
        device_id=f"dev-{number % 2 + 1}",
        tag=("env", "power", "env", "gps/raw", "env", "env", "Ünï code")[number % 7],
        fleet_id=f"flt-{number % 3 % 2 + 1}",
        payload=str(number),
    )
    for number in range(1200)
]
FOREIGN = [
    point(5000 + number, workspace_id=f"wks-{place}", device_id=f"dev-{device}", fleet_id=f"flt-{place}")
    for number, (place, device) in enumerate([(2, 3), (9, 9)] * 3)
]
AT_ONE_TIME = [
    point(6000 + number, workspace_id="wks-2", device_id="dev-3", payload=str(number), timestamp_device=T0 + 86_400_000)
    for number in range(800)
]

Query = dict[str, Any]


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Storage]:
    async with storage(tmp_path_factory.mktemp("storage")) as one:
        await one.log(*FOREIGN, *AT_ONE_TIME)
        await one.put(*POINTS)
        yield one


def expected(
    tag: list[str] | None = None,
    device: list[str] | None = None,
    fleet: list[str] | None = None,
    start: int | None = None,
    end: int | None = None,
    oldest_first: bool = False,
) -> list[DataReceived]:
    """What the specification says, in the slowest way."""
    return sorted(
        (
            one
            for one in POINTS
            if (tag is None or one.tag in tag)
            and (device is None or one.device_id in device)
            and (fleet is None or one.fleet_id in fleet)
            and (start is None or start <= one.timestamp_device)
            and (end is None or one.timestamp_device < end)
        ),
        key=lambda one: (one.timestamp_device, one.id),
        reverse=not oldest_first,
    )


def numbers(points: list[Any]) -> list[int]:
    return [one["payload"] for one in points]


@pytest.mark.parametrize("oldest_first", [False, True])
@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"tag": ["env"]},
        {"tag": ["power", "gps/raw", "power"]},
        {"tag": ["Ünï code"]},
        {"tag": ["never sent"]},
        {"device": ["dev-2"]},
        {"device": ["dev-2", "dev-1", "dev-2"]},
        {"fleet": ["flt-2"]},
        {"fleet": ["flt-1", "flt-2"]},
        {"device": ["dev-1", "dev-2"], "tag": ["env", "power"], "fleet": ["flt-1"]},
    ],
)
async def test_filters_bounds_and_pages_answer_what_they_say(
    there: Storage, filters: dict[str, list[str]], oldest_first: bool
) -> None:
    asked: Query = {**filters, "sort": "timestamp_device" if oldest_first else "-timestamp_device"}
    for start, end in ((None, None), (T0 + 100, T0 + 300), (T0 + 7, None), (None, T0 + 391), (T0 + 50, T0 + 50)):
        bounds = {name: rfc3339_ms(at) for name, at in (("start", start), ("end", end)) if at is not None}
        right = expected(**filters, start=start, end=end, oldest_first=oldest_first)
        for page, size in ((0, 175_000), (0, 100), (2, 100), (1, 260), (3, 1), (1000, 100), (0, 0), (5, 0)):
            found = await there.points(**{**asked, **bounds, "from": page, "size": size})
            wanted = right[page * size : (page + 1) * size]
            assert numbers(found) == [int(one.payload) for one in wanted], (start, end, page, size)


async def test_all_pages_together_are_everything_once(there: Storage) -> None:
    pages = [await there.points("wks-1", **{"from": page, "size": 170}) for page in range(9)]
    assert numbers([one for page in pages for one in page]) == [int(one.payload) for one in expected()]


async def test_points_of_one_moment_come_in_the_order_of_their_arrival(there: Storage) -> None:
    """More of them than a step of the reading has."""
    at = rfc3339_ms(T0 + 86_400_000)
    oldest_first = await there.points("wks-2", start=at, size=175_000, sort="timestamp_device")
    assert numbers(oldest_first) == list(range(800))
    assert numbers(await there.points("wks-2", start=at, size=700)) == list(range(799, 99, -1))


async def test_without_a_query_the_newest_hundred_come(there: Storage) -> None:
    newest = [int(one.payload) for one in expected()[:100]]
    assert numbers(await there.points()) == newest
    live = await there.ask("workspaces/wks-1/data")
    assert numbers(live.json["result"]) == newest


async def test_a_point_shows_what_the_specification_names(there: Storage) -> None:
    last = expected()[0]
    assert (await there.points(size=1))[0] == {
        "timestamp_device": "2024-05-02T08:00:00.399Z",
        "timestamp_in": rfc3339_ms(last.timestamp_in),
        "fleet_id": last.fleet_id,
        "device_id": last.device_id,
        "tag": last.tag,
        "payload": int(last.payload),
    }


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2024-05-02T10:00:00.100+02:00", "2024-05-02T04:30:00.300-03:30"),
        ("2024-05-02t08:00:00.1z", "2024-05-02 08:00:00.3Z"),
        ("2024-05-02T08:00:00.099001Z", "2024-05-02T08:00:00.299001Z"),
    ],
)
async def test_bounds_in_any_zone_and_precision_mean_the_same(there: Storage, start: str, end: str) -> None:
    found = await there.points(start=start, end=end, size=175_000)
    assert numbers(found) == [int(one.payload) for one in expected(start=T0 + 100, end=T0 + 300)]


async def test_a_plus_sign_that_was_not_encoded_is_understood(there: Storage) -> None:
    path = "/v3/timeseries/wks-1/data?size=175000&start=2024-05-02T10:00:00.100+02:00"
    answer = await there.server.ask("GET", path)
    assert len(answer.json["result"]) == len(expected(start=T0 + 100))


async def test_nothing_found_is_an_empty_list(there: Storage) -> None:
    for query in ({"start": "9999-12-31T23:59:59.999999Z"}, {"end": "0001-01-01T00:00:00Z"}, {"tag": "no such"}):
        answer = await there.ask("timeseries/wks-1/data", **query)
        assert (answer.status, answer.body) == (200, b'{"result":[]}')


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("from", "-1"),
        ("from", "1.0"),
        ("from", "one"),
        ("from", "99999999999"),
        ("from", "9" * 30),
        ("size", "-1"),
        ("size", "175001"),
        ("size", "1e3"),
        ("size", "٣"),
        ("size", '{"$gt": 0}'),
        ("sort", "timestamp_in"),
        ("sort", "+timestamp_device"),
        ("sort", "timestamp_device; DROP TABLE storage_points"),
        ("start", "yesterday"),
        ("start", "2024-05-02"),
        ("start", "2024-05-02T08:00:00"),
        ("start", "2024-W18-4T08:00:00Z"),
        ("start", "20240502T080000Z"),
        ("start", "2024-02-30T08:00:00Z"),
        ("start", "2024-05-02T25:00:00Z"),
        ("start", "2024-05-02T08:00:00+24:00"),
        ("start", "0001-01-01T00:00:00+14:00"),
        ("end", "9999-12-31T23:59:59-14:00"),
        ("end", "1714636800000"),
        ("end", "\uff12\uff10\uff12\uff14-05-02T08:00:00Z"),
        ("end", "2024-05-02T08:00:00Z\n"),
        ("end", '{"$ne": null}'),
        ("tag", "a\0b"),
    ],
)
async def test_what_is_out_of_range_is_refused_and_named(there: Storage, field: str, value: str) -> None:
    refused = await there.ask("timeseries/wks-1/data", **{field: value})
    assert (refused.status, refused.json["field"]) == (400, field)
    assert refused.json["message"].startswith(f"{field}: ")


@pytest.mark.parametrize("field", ["size", "from", "start", "end", "sort"])
async def test_what_may_be_given_once_is_refused_twice(there: Storage, field: str) -> None:
    value = {"size": "1", "from": "0", "sort": "timestamp_device"}.get(field, "2024-05-02T08:00:00Z")
    refused = await there.server.ask("GET", f"/v3/timeseries/wks-1/data?{field}={value}&{field}={value}")
    assert (refused.status, refused.json["field"]) == (400, field)


@pytest.mark.parametrize("field", ["tag", "device", "fleet"])
async def test_a_filter_takes_a_hundred_values_at_most(there: Storage, field: str) -> None:
    refused = await there.ask("timeseries/wks-1/data", **{field: [f"x{number}" for number in range(101)]})
    assert (refused.status, refused.json["field"]) == (400, field)
    if field == "tag":
        assert await there.points(tag=[f"x{number}" for number in range(100)]) == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"device": "dev-9"}, "device_not_found"),
        ({"device": "dev-3"}, "device_not_found"),
        ({"device": "dev-none"}, "device_not_found"),
        ({"device": ["dev-1", "dev-9"]}, "device_not_found"),
        ({"fleet": "flt-9"}, "fleet_not_found"),
        ({"fleet": ["flt-1", "flt-none"]}, "fleet_not_found"),
    ],
)
async def test_devices_and_fleets_of_others_are_not_found(there: Storage, query: Query, code: str) -> None:
    refused = await there.ask("timeseries/wks-1/data", **query)
    assert (refused.status, refused.json["code"]) == (404, code)


async def test_other_workspaces_are_not_found(there: Storage) -> None:
    for path in ("timeseries/wks-9/data", "workspaces/wks-9/data", "workspaces/wks-9/tags", "timeseries/none/data"):
        refused = await there.ask(path)
        assert (refused.status, refused.json["code"]) == (404, "workspace_not_found")


async def test_head_tells_what_get_would_without_the_points(there: Storage) -> None:
    head = await there.server.ask("HEAD", "/v3/timeseries/wks-1/data?size=175000")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"] == "application/json; charset=utf-8"
    assert (await there.server.ask("HEAD", "/v3/timeseries/wks-1/data?size=-1")).status == 400


async def test_tags_are_listed_once_each_in_order(there: Storage) -> None:
    tags = ["env", "gps/raw", "power", "Ünï code"]
    assert (await there.ask("workspaces/wks-1/tags")).json == {"tags": tags}
    assert (await there.ask("workspaces/wks-2/tags")).json == {"tags": ["env"]}
    assert (await there.ask("workspaces/wks-1/tags", device="dev-1")).json == {"tags": tags}
    refused = await there.ask("workspaces/wks-1/tags", device="dev-3")
    assert (refused.status, refused.json["code"]) == (404, "device_not_found")
