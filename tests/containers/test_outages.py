"""Kafka or MongoDB away for long: devices notice nothing, people are told, and all comes through afterwards."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any

import aiohttp
import pytest

from tests.containers.faults import say
from tests.e2e.campaign import Campaign
from tests.support.compose import SERVICES, ComposeSystem, running_compose
from tests.support.system import Rest, default_workspace
from tests.support.waiting import eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

DEVICES = 50
RATE = 100.0
# How long each is away: ZDM_TEST_OUTAGE_S=600 for a longer look.
OUTAGE_S = float(os.environ.get("ZDM_TEST_OUTAGE_S", "60"))
NOTICED_S = 40.0
ANSWER_S = 15.0
MOST_MEMORY = 90.0
# What each is to the services.
MEANING = {"kafka": "log", "mongo": "documents"}


@pytest.fixture(scope="module")
async def system(version: str) -> AsyncIterator[ComposeSystem]:
    async with running_compose(ComposeSystem(version)) as system:
        yield system


async def test_devices_are_acknowledged_and_people_told_while_kafka_or_mongodb_is_away(system: ComposeSystem) -> None:
    campaign = Campaign(system, DEVICES, RATE)

    async def outages() -> None:
        async with system.admin() as rest:
            await asyncio.sleep(3)
            for store in MEANING:
                say(campaign, f"{store} goes")
                await outage(system, campaign, rest, store)
                say(campaign, f"{store} is back")

    reckoning = await campaign.run(outages, drain_s=OUTAGE_S + 240)
    print(reckoning)
    assert not +reckoning.faults
    # Acknowledged at the first try, all the way.
    assert reckoning.repeated_by_device == 0
    for service in (*SERVICES, "mosquitto"):
        [container] = await system.containers(service)
        seen = await system.inspect(container)
        assert (seen["RestartCount"], seen["State"]["OOMKilled"]) == (0, False), service


async def outage(system: ComposeSystem, campaign: Campaign, rest: Rest, store: str) -> None:
    before = Counter({sender.id: sender.connections for sender in campaign.senders})
    events = {service: await outage_events(system, service, store) for service in SERVICES}
    ends = monotonic() + OUTAGE_S
    await system.kill(store)
    await eventually(lambda: all_say(system, store, is_up=False), within_s=NOTICED_S, every_s=1)
    await people_are_told(system, rest, store)
    while monotonic() < ends:
        acknowledged = {sender.id: sender.acknowledged for sender in campaign.senders}
        await asyncio.sleep(5)
        memory = await system.memory()
        assert max(memory.values()) < MOST_MEMORY, memory
        assert all(sender.acknowledged > acknowledged[sender.id] for sender in campaign.senders)
    print({name.rsplit("-", 2)[1]: share for name, share in memory.items()}, flush=True)
    assert before == Counter({sender.id: sender.connections for sender in campaign.senders})
    await system.begin(store)
    await eventually(lambda: all_say(system, store, is_up=True), within_s=NOTICED_S, every_s=1)
    await system.ready()
    for service in SERVICES:
        said = await outage_events(system, service, store) - events[service]
        # Each of its parts that noticed says so once, going and coming.
        assert said["outage_began"] == said["outage_ended"] >= 1, (service, said)
        assert said["outage_began"] <= 3, (service, said)


async def all_say(system: ComposeSystem, store: str, *, is_up: bool) -> bool:
    return all([await says(system, service, store) is is_up for service in SERVICES])


async def says(system: ComposeSystem, service: str, store: str) -> bool | None:
    """Whether it says that it is there, in its metrics and its readiness alike; None when they differ."""
    [container] = await system.containers(service)
    waiting = MEANING[store] in await system.waiting_for(container)
    up = (await system.metrics_of(container))[f'zdm_dependency_up{{of="{MEANING[store]}"}}'] == 1
    return up if up is not waiting else None


async def people_are_told(system: ComposeSystem, rest: Rest, store: str) -> None:
    async with aiohttp.ClientSession(system.url, headers=rest.headers) as http:
        async with http.get("/readyz") as answer:
            assert answer.status == 503
            assert MEANING[store] in (await answer.json())["waiting_for"]
        if store == "kafka":  # what is only read needs none
            workspace = await default_workspace(rest)
            asked: list[tuple[str, str, Any]] = [("POST", f"/v3/workspaces/{workspace}/devices", {"name": "too early"})]
        else:
            asked = [("GET", "/v3/workspaces", None), ("POST", "/v3/auth/login", login(system))]
        for method, path, body in asked:
            began = monotonic()
            async with http.request(method, path, json=body) as answer:
                assert (answer.status, (await answer.json())["code"]) == (503, "unavailable"), path
                assert int(answer.headers["Retry-After"]) >= 1
            assert monotonic() - began < ANSWER_S, path


def login(system: ComposeSystem) -> dict[str, str]:
    return {"email": system.email, "password": system.password}


async def outage_events(system: ComposeSystem, service: str, store: str) -> Counter[str]:
    [container] = await system.containers(service)
    events = await system.logged(container)
    return Counter(str(event["event"]) for event in events if event.get("of") == MEANING[store])
