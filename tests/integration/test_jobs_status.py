"""What devices say becomes their status, and what they ask is answered: the service as it is wired."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from services.jobs.adapters.statuses import KeptStatuses
from services.jobs.domain.status import MAX_BYTES, Entry, Status
from services.jobs.domain.use_cases.hear_devices import HearDevices
from services.jobs.settings import JobsSettings
from services.jobs.wiring import wire
from shared.clock import SystemClock
from shared.http.raw_json import rendered
from shared.http.routes import Nothing, Request, Stream
from shared.log import Record
from shared.messages.devices import DownRequested, Rejected, UpReceived
from shared.messages.registry import WHOLE
from shared.messages.topics import DOWN, REGISTRY, UP, rejected
from shared.security.principal import Principal
from shared.service import Platform, Service
from tests.support.waiting import eventually
from tests.support.workers import DEVICE, at_work, records_in, register, unregister, values_in, working_platform

SPOOL = "00112233445566ff"


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with working_platform(tmp_path) as platform:
        await register(platform, DEVICE)
        yield platform


@pytest.fixture
async def service(platform: Platform) -> AsyncIterator[Service]:
    async with at_work(await wire(JobsSettings.load({}), platform)) as service:
        yield service


class Says:
    """A device's messages, numbered."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, key: str, value: str = "{}", device: str = DEVICE) -> UpReceived:
        self.number += 1
        return UpReceived(f"{SPOOL}-{self.number:016x}", "wks-1", device, key, value, 1000 + self.number)


@pytest.fixture
def says() -> Says:
    return Says()


async def append(platform: Platform, *ups: UpReceived) -> None:
    await platform.log.append(UP, [up.record() for up in ups])


async def downs(platform: Platform, count: int) -> list[DownRequested]:
    return [DownRequested.decode(value) for value in await values_in(platform, DOWN, count)]


async def status_by_rest(service: Service, device_id: str = DEVICE) -> str:
    (route,) = [route for route in service.routes if route.path == "/v3/devices/{device_id}/status"]
    answer = await route.handler(Request(Principal.nobody(), {"device_id": device_id}, Nothing(), Nothing()))
    assert not isinstance(answer, Stream)
    return rendered(answer).decode()


async def test_the_first_words_of_a_device_are_answered_and_kept_in_order(
    platform: Platform, service: Service, says: Says
) -> None:
    await append(platform, says("#status"), says("__manifest", '{"jobs":["set"]}'), says("#status"))
    first, second = await downs(platform, 2)
    assert (first.key, first.value) == ("#status", '{"current":null,"expected":null}')
    assert json.loads(second.value)["current"] == {"__manifest": {"t": 1002, "v": None}}
    assert abs(second.version - SystemClock().ms()) < 60_000
    assert first.device_id == DEVICE


async def test_the_status_is_told_by_rest_as_it_was_written(platform: Platform, service: Service, says: Says) -> None:
    await append(
        platform,
        says("a.b", '{"$set": {"": 1.0}, "x": 1E2}'),
        says("$key", "12345678901234567890.5"),
        says("__private", '"shown here"'),
        says("condition", '{"uuid":"1"}'),
        says("#now"),
    )
    await downs(platform, 1)
    assert await status_by_rest(service) == (
        '{"current":{"a.b":{"t":1001,"v":{"$set": {"": 1.0}, "x": 1E2}},'
        '"$key":{"t":1002,"v":12345678901234567890.5},"__private":{"t":1003,"v":"shown here"}},"expected":{}}'
    )


async def test_a_device_that_never_said_anything_has_an_empty_status(service: Service) -> None:
    assert await status_by_rest(service) == '{"current":{},"expected":{}}'


async def test_now_and_conditions_are_answered_and_what_is_unknown_is_not(
    platform: Platform, service: Service, says: Says
) -> None:
    await append(platform, says("#nonsense"), says("#conditions"), says("#now"))
    conditions, now = await downs(platform, 2)
    assert (conditions.key, conditions.value) == ("#conditions", "{}")
    assert set(json.loads(now.value)) == {"s", "ms", "rfc3339"}


async def test_a_reply_completes_what_was_expected(platform: Platform, service: Service, says: Says) -> None:
    statuses = await KeptStatuses.open(platform.documents)
    await statuses.save([Status(DEVICE, {}, {"@set": Entry(1, '{"args":{}}'), "@other": Entry(2, "{}")})])
    await append(platform, says("#status"), says("@set", '{"ok":true}'), says("#status"))
    before, after = [json.loads(down.value) for down in await downs(platform, 2)]
    assert before["expected"].keys() == {"@set", "@other"}
    assert after["expected"].keys() == {"@other"}
    assert after["current"] == {"@set": {"t": 1002, "v": {"ok": True}}}


async def test_messages_that_are_read_again_change_nothing_but_are_answered_again(
    platform: Platform, service: Service, says: Says
) -> None:
    ups = [says("mode", "1"), says("mode", "2"), says("#status"), says("gone", "1"), says("gone", "null")]
    await append(platform, *ups)
    await downs(platform, 1)
    once = await status_by_rest(service)
    await append(platform, *ups, says("#now"))
    first, again, _now = await downs(platform, 3)
    assert await status_by_rest(service) == once
    assert first.id == again.id


async def test_what_is_no_message_and_what_finds_no_room_is_set_aside(
    platform: Platform, service: Service, says: Says
) -> None:
    await platform.log.append(UP, [Record(DEVICE, b'{"id":"x"}')])
    await append(platform, says("big", '"' + "x" * MAX_BYTES + '"'), says("#now"))
    await downs(platform, 1)
    refusals = [Rejected.decode(value) for value in await values_in(platform, rejected(UP), 2)]
    assert {refusal.reason for refusal in refusals} == {"malformed", "status_full"}


class RacingStatuses(KeptStatuses):
    """Somebody else changes each status between load and save, a few times."""

    races = 3

    async def load(self, device_ids: Iterable[str]) -> dict[str, Status]:
        loaded = await super().load(list(device_ids))
        if self.races:
            self.races -= 1
            other = KeptStatuses(self._collection)
            for status in loaded.values():
                wanted = {**status.expected, f"@job{self.races}": Entry(1, "{}")}
                changed = Status(status.device_id, status.current, wanted, status.applied, status.revision)
                assert await other.save([changed]) == set()
        return loaded


async def test_a_lost_race_is_read_and_decided_again(platform: Platform, says: Says) -> None:
    await register(platform, "dev-2")
    statuses = RacingStatuses((await KeptStatuses.open(platform.documents))._collection)
    hear = HearDevices(statuses, platform.log, platform.registry, platform.clock)
    kinds = await hear([says("mode", "1"), says("@job0", "1"), says("mode", "2", "dev-2"), says("#status")])
    kept = await statuses.load([DEVICE, "dev-2"])
    assert kinds == {"state": 3, "#status": 1, "gone": 0}
    assert kept[DEVICE].current == {"mode": Entry(1001, "1"), "@job0": Entry(1002, "1")}
    assert kept[DEVICE].expected.keys() == {"@job1", "@job2"}
    assert kept["dev-2"].current == {"mode": Entry(1003, "2")}
    (reply,) = await downs(platform, 1)
    assert json.loads(reply.value)["expected"].keys() == {"@job1", "@job2"}


async def test_a_deleted_device_loses_its_status_and_late_messages_do_not_bring_it_back(
    platform: Platform, service: Service, says: Says
) -> None:
    await register(platform, "dev-2")
    await append(platform, says("mode", "1"), says("mode", "1", "dev-2"), says("#now"))
    await downs(platform, 1)
    await unregister(platform, DEVICE)

    async def forgotten() -> bool:
        return await status_by_rest(service) == '{"current":{},"expected":{}}'

    await eventually(forgotten)
    await append(platform, says("mode", "2"), says("#status"), says("#now", device="dev-2"))
    _first, last = await downs(platform, 2)
    assert last.device_id == "dev-2"
    assert await forgotten()
    assert "mode" in await status_by_rest(service, "dev-2")


async def test_a_device_deleted_while_the_service_was_away_is_forgotten_at_the_next_start(
    platform: Platform, says: Says
) -> None:
    async with at_work(await wire(JobsSettings.load({}), platform)) as service:
        await append(platform, says("mode", "1"), says("#now"))
        await downs(platform, 1)
    await unregister(platform, DEVICE)
    async with at_work(await wire(JobsSettings.load({}), platform)) as service:

        async def forgotten() -> bool:
            return await status_by_rest(service) == '{"current":{},"expected":{}}'

        await eventually(forgotten)


async def test_a_batch_of_many_devices_is_kept_whole(platform: Platform, service: Service, says: Says) -> None:
    devices = [f"dev-{number}" for number in range(300)]
    await register(platform, *devices)
    await append(platform, *(says("n", str(turn), device) for turn in range(3) for device in devices))
    await append(platform, *(says("#status", device=device) for device in devices))
    replies = await downs(platform, 300)
    values: list[Any] = [json.loads(reply.value)["current"]["n"]["v"] for reply in replies]
    assert values == [2] * 300
    assert {reply.device_id for reply in replies} == set(devices)


async def test_registry_entries_without_a_tombstone_forget_nothing(
    platform: Platform, service: Service, says: Says
) -> None:
    await append(platform, says("mode", "1"), says("#now"))
    await downs(platform, 1)
    await register(platform, DEVICE, revision=2, name="Renamed")
    await asyncio.sleep(0.1)
    assert [record.key for record in await records_in(platform, REGISTRY)] == [WHOLE, DEVICE]
    assert "mode" in await status_by_rest(service)
