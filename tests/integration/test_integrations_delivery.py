"""From the log to webhooks: integrations as it is wired, a real log, real documents and real receivers."""

import asyncio
import dataclasses
import os
import random
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY as PROMETHEUS
from standardwebhooks import Webhook

from services.integrations.domain.queue import LaneLost
from shared.clock import rfc3339_ms
from shared.documents import Collection, Document, Documents, Schema
from shared.errors import Unavailable
from shared.log import Record
from shared.messages.topics import DATA, REGISTRY
from tests.support.integrations import (
    DEVICE,
    PATIENCE,
    WORKSPACE,
    Integrations,
    MovableClock,
    committed,
    documents_of,
    integrations,
    steps,
)
from tests.support.receiver import Received, Receiver, receiver, status
from tests.support.waiting import eventually

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
async def one(home: Path) -> AsyncIterator[Integrations]:
    async with integrations(home) as running:
        yield running


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    async with receiver() as running:
        yield running


def metric(name: str, **labels: str) -> float:
    return PROMETHEUS.get_sample_value(f"zdm_integrations_{name}", labels) or 0


def refusing(*bad: Any) -> Any:
    """Answers 400 to every batch that holds one of these payloads."""

    def answers(received: Received) -> Any:
        found = [payload for payload in received.payloads if payload in bad]
        return status(400, f"cannot take {found[0]}") if found else status(200)

    return answers


class TestWhatIsSent:
    async def test_a_point_comes_with_all_its_members_and_its_payload_byte_for_byte(
        self, one: Integrations, hook: Receiver
    ) -> None:
        await one.create(hook.url)
        payload = '{"a" : 1.0,"a":[ ],"\\u00e9":"é", "":12345678901234567890.50}'
        point = one.point(payload=payload, device_name='Füller "1"', tag="a/b")
        await one.receive(point)
        (received,) = await hook.requests(1)
        head, found, tail = re.split(rb"(data[0-9a-z]{12})", received.body, maxsplit=1)
        assert head == b'{"batch_id":"'
        assert received.headers["webhook-id"] == found.decode()
        assert tail.decode() == (
            '","result":[{"id":"0","workspace_id":"wks-1","fleet_id":"flt-1","device_id":"dev-000000000001",'
            f'"device_name":"Füller \\"1\\"","timestamp_device":"{rfc3339_ms(point.timestamp_device)}",'
            f'"timestamp_in":"{rfc3339_ms(point.timestamp_in)}","tag":"a/b","payload":{payload}}}]}}'
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", rfc3339_ms(point.timestamp_in))
        assert received.headers["content-type"] == "application/json"
        assert received.path == "/hook"

    async def test_the_token_goes_along_when_there_is_one(self, one: Integrations, hook: Receiver) -> None:
        made = await one.create(hook.url)
        await one.take_in(1)
        await hook.requests(1)
        await one.change(made["id"], subtype_configuration={"token": "to ken!"})
        await one.take_in(2)
        await hook.requests(2)
        await one.change(made["id"], subtype_configuration={"token": ""})
        await one.take_in(3)
        tokens = [received.headers.get("x-auth-token") for received in await hook.requests(3)]
        assert tokens == [None, "to ken!", None]

    async def test_the_public_verifier_accepts_the_signature(self, one: Integrations, hook: Receiver) -> None:
        made = await one.create(hook.url)
        await one.take_in("é", {"n": 1})
        (received,) = await hook.requests(1)
        verifier = Webhook(made["subtype_configuration"]["secret"])
        assert verifier.verify(received.body, received.headers) == received.batch
        with pytest.raises(Exception, match="signature"):
            verifier.verify(received.body + b" ", received.headers)

    async def test_filters_want_one_of_the_tags_and_one_of_the_fleets(self, one: Integrations, hook: Receiver) -> None:
        async with receiver() as everything:
            chosen = {"tags": ["a", "b"], "fleets": ["flt-2"]}
            await one.create(hook.url, type_configuration=chosen)
            await one.create(everything.url)
            points = [(tag, fleet) for tag in ("a", "b", "c") for fleet in ("flt-1", "flt-2")]
            await one.receive(*(one.point([tag, fleet], tag=tag, fleet_id=fleet) for tag, fleet in points))
            await one.take_in("not ours", workspace_id="wks-2", tag="a", fleet_id="flt-2")
            await one.take_in("last", tag="a", fleet_id="flt-2")
            await hook.has([["a", "flt-2"], ["b", "flt-2"], "last"])
            await everything.has([*([tag, fleet] for tag, fleet in points), "last"])

    async def test_no_batch_is_beyond_the_limits_and_ids_are_positions(self, one: Integrations, hook: Receiver) -> None:
        await one.create(hook.url, status="disabled")
        await one.take_in(*range(2500))
        long = "é" * 5000
        await one.receive(*(one.point(payload=f'[{n},"{long}"]') for n in range(300)))
        await one.take_in("x" * 1_100_000, "end")
        await committed(one)
        (made,) = (await one.call("GET"))["integrations"]
        await one.change(made["id"], status="active")
        await hook.has([*range(2500), *([n, long] for n in range(300)), "x" * 1_100_000, "end"])
        for received in hook.came:
            assert received.ids == [str(number) for number in range(len(received.ids))]
            assert len(received.ids) <= 1000
            assert len(received.body) <= 1024 * 1024 or len(received.ids) == 1
        assert len(hook.came) < 12
        assert len({received.batch["batch_id"] for received in hook.came}) == len(hook.came)

    async def test_a_message_that_is_in_the_log_twice_is_sent_once(self, one: Integrations, hook: Receiver) -> None:
        made = await one.create(hook.url)
        before = metric("points_repeated_total")
        first, second, third = one.point(1), one.point(2), one.point(3)
        await one.receive(first, second, first)
        await one.delivered(made["id"], 2)
        await one.receive(first, second, third)
        await hook.has([1, 2, 3])
        assert metric("points_repeated_total") == before + 3

    async def test_it_is_known_as_a_repeat_also_by_the_next_process(self, home: Path, hook: Receiver) -> None:
        async with integrations(home) as one:
            made = await one.create(hook.url)
            first = one.point(1)
            await one.receive(first)
            await one.delivered(made["id"], 1)
        async with integrations(home) as one:
            await one.receive(first, one.point(2))
            await hook.has([1, 2])

    async def test_a_new_integration_gets_what_comes_after_it(self, home: Path, hook: Receiver) -> None:
        async with integrations(home, working=False) as one:
            # Nobody has read this by the time of the creation.
            await one.take_in("before")
            await one.create(hook.url)
            await one.take_in("after")
        async with integrations(home) as one:
            await hook.has(["after"])

    async def test_data_reaches_an_integration_made_a_moment_ago(self, one: Integrations, hook: Receiver) -> None:
        for number in range(30):
            made = await one.create(hook.url)
            await one.take_in(number)
            await one.delivered(made["id"], 1)
            await one.call("DELETE", f"/{made['id']}")
        await hook.has(list(range(30)))

    async def test_what_is_no_data_point_holds_up_nothing_and_is_counted(
        self, one: Integrations, hook: Receiver
    ) -> None:
        await one.create(hook.url)
        before = metric("records_refused_total")
        wrong = [
            one.point(1)._replace(**member) for member in ({"id": "x"}, {"payload": None}, {"timestamp_in": "now"})
        ]
        await one.receive(*wrong)
        await one.platform.log.append(DATA, [Record("a", b"{"), Record("a", b"[]"), Record("a", b"")])
        await one.take_in("good")
        await hook.has(["good"])
        assert metric("records_refused_total") == before + 6

    async def test_with_a_period_points_are_gathered(self, one: Integrations, hook: Receiver) -> None:
        await one.create(hook.url, type_configuration={"period": 0.5})
        for number in range(5):
            await one.take_in(number)
            await committed(one)
        await hook.has(list(range(5)))
        assert len(hook.came) == 1


class TestFailures:
    async def test_each_retry_is_the_same_while_more_data_comes_and_then_the_rest_follows(
        self, one: Integrations, hook: Receiver
    ) -> None:
        made = await one.create(hook.url)
        hook.answers = lambda _received: status(500, "down")
        await one.take_in(1, 2)
        await hook.requests(2)
        await one.take_in(3, 4)
        await one.waiting(made["id"], 4)
        tried = await hook.requests(6)
        hook.answers = lambda _received: status(200)
        await hook.has([1, 2, 3, 4])
        assert {received.body for received in tried} == {hook.accepted[0].body}
        assert {received.headers["webhook-id"] for received in tried} == {hook.accepted[0].batch["batch_id"]}
        assert (await one.logs(made["id"]))[0]["message"] == "status 500: down"

    async def test_a_restart_changes_nothing_of_a_frozen_batch(self, home: Path, hook: Receiver) -> None:
        hook.answers = lambda _received: status(503)
        async with integrations(home) as one:
            made = await one.create(hook.url)
            await one.take_in(1, 2)
            await hook.requests(1)
        async with integrations(home) as one:
            await one.take_in(3)
            await one.waiting(made["id"], 3)
            hook.answers = lambda _received: status(200)
            await hook.has([1, 2, 3])
        assert {received.body for received in hook.came[:-1]} == {hook.accepted[0].body}

    async def test_a_receiver_that_is_off_for_a_while_misses_nothing_and_gets_it_in_order(
        self, one: Integrations, hook: Receiver
    ) -> None:
        made = await one.create(hook.url)
        await one.take_in(*range(10))
        await hook.has(list(range(10)))
        await hook.off()
        for number in range(10, 40):
            await one.take_in(number)
        await one.waiting(made["id"], 30)
        await hook.on()
        await hook.has(list(range(40)))
        statistics = await one.statistics(made["id"])
        assert (statistics["last_error"], statistics["next_try_at"], statistics["waiting"]) == ("", None, 0)

    async def test_a_receiver_that_hangs_delays_no_other(self, home: Path, hook: Receiver) -> None:
        async with receiver() as dead:
            dead.answers = lambda _received: status(500)
            async with integrations(home, ZDM_WEBHOOKS_AT_ONCE="2") as one:
                stuck = [await one.create(f"{dead.url}/{number}") for number in range(6)]
                await one.take_in("first")
                await eventually(lambda: same(len({received.path for received in dead.came}), 6))
                dead.answers = hang
                await one.create(hook.url)
                await one.take_in(*range(20))
                await hook.has(list(range(20)))
                assert (await one.statistics(stuck[0]["id"]))["waiting"] == 21

    async def test_a_bad_point_is_isolated_and_parked_and_all_else_arrives(
        self, one: Integrations, hook: Receiver
    ) -> None:
        hook.answers = refusing("bad", "worse")
        made = await one.create(hook.url)
        parked = metric("points_parked_total")
        payloads = [*range(20), "bad", *range(20, 60), "worse", *range(60, 70)]
        await one.take_in(*payloads)
        await one.take_in("next")
        await one.delivered(made["id"], 71)
        assert hook.payloads == [*range(70), "next"]
        whole = hook.came[0]
        tries = [received for received in hook.came if len(received.ids) == len(whole.ids)]
        assert len(tries) == 10
        assert {received.body for received in tries} == {whole.body}
        positions = {point["id"]: point for point in whole.batch["result"]}
        halves = [received for received in hook.came if received.batch["batch_id"] == whole.batch["batch_id"]]
        assert all(positions[point["id"]] == point for half in halves for point in half.batch["result"])
        lines = [line for line in await one.logs(made["id"]) if line["kind"] == "parked"]
        assert [line["point"] for line in lines] == [positions["61"], positions["20"]]
        assert {line["batch_id"] for line in lines} == {whole.batch["batch_id"]}
        assert (lines[0]["status"], lines[0]["message"]) == (400, "status 400: cannot take worse")
        statistics = await one.statistics(made["id"])
        assert (statistics["parked"], statistics["waiting"], statistics["last_error"]) == (2, 0, "")
        assert metric("points_parked_total") == parked + 2

    async def test_parts_of_a_batch_have_message_ids_of_their_own(self, one: Integrations, hook: Receiver) -> None:
        """A receiver that drops what comes under a known message id must not drop a part for another one."""
        known: dict[str, list[str]] = {}
        hook.answers = refusing("bad")
        made = await one.create(hook.url)
        await one.take_in(*range(8), "bad")
        await one.delivered(made["id"], 8)
        verifier = Webhook(made["subtype_configuration"]["secret"])
        for received in hook.came:
            verifier.verify(received.body, received.headers)
            assert known.setdefault(received.headers["webhook-id"], received.ids) == received.ids

    async def test_a_batch_that_is_bad_throughout_is_parked_point_by_point(
        self, one: Integrations, hook: Receiver
    ) -> None:
        hook.answers = lambda _received: status(422)
        made = await one.create(hook.url)
        await one.take_in(*range(5))
        await eventually(lambda: figure(one, made["id"], "parked", 5))
        parked = [line["point"]["payload"] for line in await one.logs(made["id"]) if line["kind"] == "parked"]
        assert sorted(parked) == list(range(5))
        hook.answers = lambda _received: status(200)
        await one.take_in("after")
        await hook.has(["after"])

    @pytest.mark.parametrize("code", [301, 308, 401, 403, 404, 408, 410, 429, 500, 502, 503, 599])
    async def test_what_does_not_speak_of_the_content_never_poisons(
        self, one: Integrations, hook: Receiver, code: int
    ) -> None:
        hook.answers = lambda _received: status(code, Location="/elsewhere")
        made = await one.create(hook.url, status="disabled")
        await one.take_in(1, 2)
        await committed(one)
        async with steps(one, made["id"], 0.001, 0.001) as lane:
            for _ in range(15):
                assert await lane.step()
        assert len({received.body for received in hook.came}) == 1
        assert len(hook.came) == 15
        assert (await one.statistics(made["id"]))["parked"] == 0

    async def test_time_outs_and_broken_answers_never_poison(self, one: Integrations, hook: Receiver) -> None:
        await hook.off()
        made = await one.create(hook.url, status="disabled")
        await one.take_in(1, 2)
        await committed(one)
        async with steps(one, made["id"], 0.001, 0.001) as lane:
            for _ in range(15):
                assert await lane.step()
            await hook.on()
            assert await lane.step() == 0.0
        assert hook.payloads == [1, 2]

    async def test_a_part_that_meets_a_broken_receiver_waits_as_a_whole_batch_does(
        self, one: Integrations, hook: Receiver
    ) -> None:
        hook.answers = refusing("bad")
        made = await one.create(hook.url, status="disabled")
        await one.take_in(1, "bad", 2, 3)
        await committed(one)
        async with steps(one, made["id"]) as lane:
            for _ in range(10):
                await lane.step()
            assert (await lane.lane()).batch.ranges == ((0, 2), (2, 4))  # type: ignore[union-attr]
            hook.answers = lambda _received: status(500)
            assert [await lane.step() for _ in range(12)][-1]
            assert (await lane.lane()).batch.ranges == ((0, 2), (2, 4))  # type: ignore[union-attr]
            hook.answers = refusing("bad")
            while await lane.step() is not None:
                pass
        assert hook.payloads == [1, 2, 3]

    async def test_pauses_grow_to_a_limit_and_the_receiver_may_ask_for_longer_ones(
        self, one: Integrations, hook: Receiver
    ) -> None:
        hook.answers = lambda _received: status(503)
        made = await one.create(hook.url, status="disabled")
        await one.take_in(1)
        await committed(one)
        async with steps(one, made["id"], 1.0, 300.0) as lane:
            pauses = [await lane.step() or 0 for _ in range(12)]
            for tries, pause in enumerate(pauses):
                assert 0.75 * min(2**tries, 300) <= pause <= min(2**tries, 300)
            hook.answers = lambda _received: status(429, Retry_After="1234")
            assert await lane.step() == 1234
            at = (await lane.lane()).next_try_at or 0
            assert abs(at - one.platform.clock.ms() - 1_234_000) < 60_000
            assert (await one.statistics(made["id"]))["next_try_at"] == rfc3339_ms(at)
            hook.answers = lambda _received: status(503, Retry_After="999999")
            assert await lane.step() == 3600
            hook.answers = lambda _received: status(503, Retry_After="1")
            assert (await lane.step() or 0) >= 225
            hook.answers = lambda _received: status(200)
            assert await lane.step() == 0
        assert (await one.statistics(made["id"]))["next_try_at"] is None

    async def test_retry_after_is_waited_for(self, one: Integrations, hook: Receiver) -> None:
        hook.answers = lambda _received: status(503, Retry_After="1")
        await one.create(hook.url)
        await one.take_in(1)
        await hook.requests(1)
        began = asyncio.get_running_loop().time()
        hook.answers = lambda _received: status(200)
        await hook.has([1])
        assert asyncio.get_running_loop().time() - began > 0.9

    async def test_a_restart_does_not_shorten_the_pause_that_a_receiver_asked_for(
        self, home: Path, hook: Receiver
    ) -> None:
        hook.answers = lambda _received: status(503, Retry_After="3000")
        async with integrations(home) as one:
            made = await one.create(hook.url)
            await one.take_in(1)
            await eventually(lambda: failed_once(one, made["id"]))
        hook.answers = lambda _received: status(200)
        async with receiver() as other, integrations(home) as one:
            await one.create(other.url)
            await one.take_in(2)
            await other.has([2])
            assert len(hook.came) == 1
            await one.change(made["id"], status="disabled")
            await one.change(made["id"], status="active")
            await hook.has([1, 2])

    async def test_mending_an_integration_tries_at_once(self, home: Path, hook: Receiver) -> None:
        async with integrations(home, ZDM_WEBHOOK_FIRST_PAUSE_S="60", ZDM_WEBHOOK_LONGEST_PAUSE_S="60") as one:
            made = await one.create(f"http://127.0.0.1:{hook.port + 1}/")
            await one.take_in(1)
            await eventually(lambda: failed_once(one, made["id"]))
            await one.change(made["id"], subtype_configuration={"url": hook.url})
            await hook.has([1])

    async def test_a_name_that_leads_to_a_refused_address_is_told_in_the_log(self, home: Path, hook: Receiver) -> None:
        async with integrations(home, ZDM_OUTBOUND_ALLOW="") as one:
            made = await one.create(f"http://localhost:{hook.port}/")
            await one.take_in(1)
            await eventually(lambda: failed_once(one, made["id"]))
            assert "loopback" in (await one.logs(made["id"]))[0]["message"]
            assert (await one.statistics(made["id"]))["waiting"] == 1
        assert hook.came == []

    async def test_an_echo_of_the_token_is_not_shown(self, one: Integrations, hook: Receiver) -> None:
        hook.answers = lambda received: status(500, f"you sent {received.headers['x-auth-token']}")
        made = await one.create(hook.url, token="very secret")
        await one.take_in(1)
        await eventually(lambda: failed_once(one, made["id"]))
        assert (await one.logs(made["id"]))[0]["message"] == "status 500: you sent ********"


async def hang(_received: Received) -> Any:
    await asyncio.sleep(60)


async def same(found: object, wanted: object) -> bool:
    return found == wanted


async def figure(one: Integrations, identifier: str, name: str, value: int) -> bool:
    return bool((await one.statistics(identifier))[name] == value)


async def failed_once(one: Integrations, identifier: str) -> bool:
    return bool((await one.statistics(identifier))["last_error"])


class TestSwitchingAndDeleting:
    async def test_a_disabled_one_stops_and_goes_on_where_it_stopped(self, one: Integrations, hook: Receiver) -> None:
        made = await one.create(hook.url)
        await one.take_in(1)
        await hook.has([1])
        hook.answers = lambda _received: status(500)
        await one.take_in(2)
        await hook.requests(2)
        await one.change(made["id"], status="disabled")
        await one.take_in(3, 4)
        await one.waiting(made["id"], 3)
        hook.answers = lambda _received: status(200)
        settled = len(hook.came)
        await asyncio.sleep(0.2)
        assert len(hook.came) <= settled + 1  # one may have been on its way
        refused = hook.came[1].body
        await one.change(made["id"], status="active")
        await hook.has([1, 2, 3, 4])
        assert hook.accepted[1].body == refused

    async def test_a_deleted_one_sends_nothing_more_and_its_queue_is_forgotten(
        self, home: Path, hook: Receiver
    ) -> None:
        clock = MovableClock()
        async with integrations(home, clock=clock) as one:
            hook.answers = lambda _received: status(500)
            kept = await one.create(hook.url, status="disabled")
            gone = await one.create(hook.url)
            await one.take_in(1, 2, 3)
            await hook.requests(2)
            dropped = metric("points_dropped_total", reason="deleted")
            await one.call("DELETE", f"/{gone['id']}")
            settled = len(hook.came)
            await one.take_in(4)
            await one.waiting(kept["id"], 4)
            await asyncio.sleep(0.1)
            assert len(hook.came) <= settled + 1
            for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/logs")):
                assert (await one.ask(method, f"/{gone['id']}{path}", {"name": "x"})).status == 404
            clock.ahead_ms = 60_000
            await one.sweep()()
            assert metric("points_dropped_total", reason="deleted") == dropped + 3
            left = await one.kept()
            assert left == {"integrations": 1, "lanes": 1, "chunks": 2, "points": 2, "failures": 0}
            assert metric("points_waiting") == 4

    async def test_deleting_while_data_pours_in_disturbs_no_other(self, home: Path, hook: Receiver) -> None:
        clock = MovableClock()
        async with integrations(home, clock=clock) as one:
            kept = await one.create(hook.url)
            failures = worker_failures()

            async def pour() -> None:
                for part in range(60):
                    await one.take_in(*range(part * 10, part * 10 + 10))

            async def come_and_go() -> None:
                while not pouring.done():
                    made = await one.create(hook.url + "/other")
                    await asyncio.sleep(random.uniform(0, 0.03))
                    await one.call("DELETE", f"/{made['id']}")

            pouring = asyncio.create_task(pour())
            await asyncio.gather(pouring, *(come_and_go() for _ in range(3)))
            await one.delivered(kept["id"], 600)
            assert [n for one in hook.accepted if one.path == "/hook" for n in one.payloads] == list(range(600))
            assert worker_failures() == failures
            clock.ahead_ms = 60_000
            await one.sweep()()
            left = await one.kept()
            assert (left["integrations"], left["lanes"], left["chunks"], left["points"]) == (1, 1, 0, 0)

    async def test_with_its_workspace_an_integration_stops_and_later_goes(self, home: Path, hook: Receiver) -> None:
        clock = MovableClock()
        async with integrations(home, clock=clock) as one:
            hook.answers = lambda _received: status(500)
            await one.create(hook.url)
            await one.take_in(1)
            await hook.requests(1)
            sweep = one.sweep()
            await one.platform.log.append(REGISTRY, [Record(WORKSPACE, None)])
            await one.platform.registry.settled()
            await eventually(lambda: quiet(hook), every_s=0.3)
            await sweep()
            clock.ahead_ms = 3_600_000
            await sweep()
            assert (await one.kept())["points"] == 1
            clock.ahead_ms += 60_000
            await sweep()
            assert set((await one.kept()).values()) == {0}


async def quiet(hook: Receiver) -> bool:
    before = len(hook.came)
    await asyncio.sleep(0.2)
    return len(hook.came) == before


def worker_failures() -> float:
    return sum(
        sample.value
        for metric in PROMETHEUS.collect()
        for sample in metric.samples
        if sample.name == "zdm_worker_failures_total"
    )


class TestRetention:
    async def test_what_waited_too_long_is_dropped_counted_and_told_also_of_a_frozen_batch(
        self, home: Path, hook: Receiver
    ) -> None:
        clock = MovableClock()
        async with integrations(home, clock=clock) as one:
            hook.answers = lambda _received: status(500)
            made = await one.create(hook.url)
            dropped = metric("points_dropped_total", reason="retention")
            await one.take_in(1, 2)
            await hook.requests(1)
            await one.take_in(3)
            await one.waiting(made["id"], 3)
            clock.ahead_ms = 91 * DAY_MS
            await eventually(lambda: figure(one, made["id"], "dropped", 3))
            hook.answers = lambda _received: status(200)
            await one.take_in("fresh")
            await hook.has(["fresh"])
            lines = [line["message"] for line in await one.logs(made["id"]) if line["kind"] == "dropped"]
            assert sum(int(line.split()[0]) for line in lines) == 3
            assert metric("points_dropped_total", reason="retention") == dropped + 3
            left = await one.kept()
            assert (left["chunks"], left["points"]) == (0, 0)

    async def test_the_queue_of_a_disabled_one_does_not_grow_for_ever(self, home: Path, hook: Receiver) -> None:
        clock = MovableClock()
        async with integrations(home, clock=clock) as one:
            made = await one.create(hook.url, status="disabled")
            await one.take_in(1)
            await committed(one)
            clock.ahead_ms = 91 * DAY_MS
            await one.take_in(2)
            await one.waiting(made["id"], 2)
            async with steps(one, made["id"]) as lane:
                await lane.expire()
            statistics = await one.statistics(made["id"])
            assert (statistics["dropped"], statistics["waiting"]) == (1, 1)


class DyingDocuments:
    """Documents that fail after the points of a chunk are written and before the chunk is."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self.dying = False

    async def collection(self, schema: Schema) -> Collection:
        """See the port."""
        collection = await self._documents.collection(schema)
        return collection if schema.name != "integrations_chunks" else DyingCollection(self, collection)

    async def ping(self) -> None:
        """See the port."""


class DyingCollection:
    """See `DyingDocuments`."""

    def __init__(self, owner: DyingDocuments, collection: Collection) -> None:
        self._owner = owner
        self._collection = collection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)

    async def insert_many(self, documents: Sequence[Document]) -> int:
        """See the port."""
        if self._owner.dying:
            raise Unavailable("dying")
        return await self._collection.insert_many(documents)


class TestProcesses:
    async def test_of_several_only_one_delivers_what_waits(self, home: Path, hook: Receiver) -> None:
        await hook.off()
        async with integrations(home, ZDM_INTERNAL_PORT="9001") as second:
            made = await second.create(hook.url)
            async with integrations(home, ZDM_INTERNAL_PORT="9002"):
                await second.take_in(1, 2)
                await eventually(lambda: owned(second))
                await hook.on()
                await second.delivered(made["id"], 2)
                await second.take_in(3)
                await second.delivered(made["id"], 3)
                await asyncio.sleep(1)
                await hook.has([1, 2, 3])

    async def test_what_is_lost_to_another_can_no_longer_be_moved_on(self, one: Integrations, hook: Receiver) -> None:
        queues = one.store.queues
        made = await one.create(hook.url, active=False)
        integration = await one.store.integrations.get(WORKSPACE, made["id"])
        assert integration is not None
        kept = await queues.lane(integration, "another-log.0")
        mine = await queues.claim(kept, "a", ())
        assert mine is not None
        assert await queues.claim(mine, "b", ("a", "b")) is None
        await queues.want(mine)
        assert await queues.wanted("a") == [mine.id]
        await queues.progress(dataclasses.replace(mine, done=7))
        assert await queues.wanted("a") == [mine.id]
        theirs = await queues.claim(mine, "b", ("b",))
        assert theirs is not None
        assert (theirs.done, theirs.wanted, await queues.wanted("b")) == (7, False, [])
        with pytest.raises(LaneLost):
            await queues.progress(dataclasses.replace(mine, done=8))
        await queues.release(mine)
        assert await queues.claim(theirs, "a", ("a", "b")) is None
        await queues.release(theirs)
        assert await queues.claim(await queues.lane(integration, "another-log.0"), "a", ("a", "b")) is not None


async def owned(one: Integrations) -> bool:
    return any(lane.owner for lane in await one.store.queues.lanes())


class TestCrashes:
    async def test_points_written_without_their_chunk_are_neither_lost_nor_mixed_up_with_a_longer_one(
        self, home: Path, hook: Receiver
    ) -> None:
        async with integrations(home) as one:
            await one.create(hook.url)
        async with integrations(home, working=False) as outer:
            dying = DyingDocuments(outer.platform.documents)
            dying.dying = True
            async with integrations(home, documents=dying) as one:
                await one.take_in(1, 2)
                await eventually(lambda: points_kept(one))
        async with integrations(home, working=False) as one:
            await one.take_in(3, 4)
        async with integrations(home) as one:
            await hook.has([1, 2, 3, 4])
            await eventually(lambda: nothing_kept(one))

    async def test_a_store_that_fails_for_a_moment_costs_nothing(self, home: Path, hook: Receiver) -> None:
        async with integrations(home, working=False) as outer:
            dying = DyingDocuments(outer.platform.documents)
            async with integrations(home, documents=dying) as one:
                await one.create(hook.url)
                dying.dying = True
                await one.take_in(1, 2)
                await eventually(lambda: points_kept(one))
                await one.take_in(3)
                dying.dying = False
                await hook.has([1, 2, 3])

    async def test_a_batch_that_was_frozen_and_not_sent_is_sent_as_it_was(self, home: Path, hook: Receiver) -> None:
        await hook.off()
        async with integrations(home, working=False) as one:
            await one.create(hook.url)
            await one.take_in(1, 2)
            async with process(home):
                (lane,) = await eventually(lambda: with_batch(one))
            await one.take_in(3)
            await hook.on()
            async with process(home):
                await hook.has([1, 2, 3])
        assert hook.accepted[0].batch["batch_id"] == lane["batch"]["id"]

    async def test_a_batch_that_was_sent_and_not_marked_comes_again_as_it_was(self, home: Path, hook: Receiver) -> None:
        hook.answers = hang
        async with integrations(home, working=False) as one:
            await one.create(hook.url)
            await one.take_in(1, 2)
            async with process(home):
                (first,) = await hook.requests(1)
            await one.take_in(3)
            hook.answers = lambda _received: status(200)
            async with process(home):
                await hook.has([1, 2, 3])
        assert hook.accepted[0].body == first.body

    async def test_killed_again_and_again_it_delivers_all_in_order_under_the_same_names(
        self, home: Path, hook: Receiver
    ) -> None:
        async with integrations(home, working=False) as one:
            await one.create(hook.url)

            killed = asyncio.Event()

            async def pour() -> int:
                count = 0
                while not killed.is_set():
                    await one.receive(*(one.point(n, device_id=f"dev-{n % 7}") for n in range(count, count + 5)))
                    await asyncio.sleep(0.005)
                    count += 5
                return count

            pouring = asyncio.create_task(pour())
            for _ in range(3):
                async with process(home):
                    before = len(hook.payloads)
                    await eventually(partial(more, hook, before + 50), within_s=30)
                    await asyncio.sleep(random.uniform(0, 0.05))
            killed.set()
            count = await pouring
            async with process(home):
                await eventually(lambda: same(set(hook.payloads), set(range(count))), within_s=30)
        names: dict[int, tuple[str, str]] = {}
        for received in hook.accepted:
            for point in received.batch["result"]:
                name = (received.batch["batch_id"], point["id"])
                assert names.setdefault(point["payload"], name) == name
        assert list(names) == list(range(count))


async def points_kept(one: Integrations) -> bool:
    return (await one.kept())["points"] > 0


async def nothing_kept(one: Integrations) -> bool:
    kept = await one.kept()
    return kept["points"] == 0 == kept["chunks"]


async def with_batch(one: Integrations) -> list[Any]:
    return [lane for lane in await documents_of(one, "lanes") if lane["batch"] and lane["batch"]["tries"]]


async def more(hook: Receiver, count: int) -> bool:
    return len(hook.payloads) >= count


@asynccontextmanager
async def process(home: Path) -> AsyncIterator[None]:
    """Integrations as a process of its own, killed (-9) at the end."""
    environment = {**os.environ, **PATIENCE}
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.integrations", str(home), stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert running.stdout is not None
    try:
        while (line := await running.stdout.readline()) != b"at work\n":
            assert line, "it ended"
        yield
    finally:
        running.kill()
        await running.wait()


class TestANewLog:
    async def test_what_a_log_made_anew_holds_is_delivered_too(self, home: Path, hook: Receiver) -> None:
        async with integrations(home) as one:
            await one.create(hook.url)
            await one.take_in(*range(10))
            await hook.has(list(range(10)))
            number = one.number
        for file in home.glob("log.sqlite*"):
            if file.is_file():
                file.unlink()
        async with integrations(home) as one:
            one.number = number
            await one.take_in(10)
            await hook.has(list(range(11)))


async def test_the_counters_add_up(one: Integrations, hook: Receiver) -> None:
    names = ("points_enqueued_total", "points_delivered_total", "points_parked_total")
    before = {name: metric(name) for name in names}
    hook.answers = refusing("bad")
    made = await one.create(hook.url)
    await one.take_in(1, "bad", 2)
    await one.delivered(made["id"], 2)
    held = await one.create(hook.url, status="disabled")
    await one.take_in(3)
    await one.delivered(made["id"], 3)
    await one.waiting(held["id"], 1)
    await one.sweep()()
    grown = [metric(name) - before[name] for name in names]
    assert grown == [5, 3, 1]
    assert metric("points_waiting") == 1
    statistics = await one.statistics(held["id"])
    assert statistics["oldest_waiting"] is not None
    assert DEVICE in hook.came[0].body.decode()
