"""Several of a service share the work and stand in for each other; a second ingestion stands by."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from tests.containers.faults import say
from tests.e2e.campaign import Campaign
from tests.support.compose import ComposeSystem, running_compose
from tests.support.waiting import eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

DEVICES = 50
RATE = 100.0
PATIENCE_S = 60.0
# What shows that one took part.
WORK = {
    "storage": "zdm_storage_points_stored_total",
    "integrations": "zdm_integrations_points_enqueued_total",
    "gateway": "zdm_http_requests_total",
}
TAKEOVERS = 3
# Promised within 2 s on a machine of its own; this one may be shared.
TAKEOVER_S = 6.0


@pytest.fixture(scope="module")
async def system(version: str) -> AsyncIterator[ComposeSystem]:
    scale = dict.fromkeys((*WORK, "ingestion"), 2)
    async with running_compose(ComposeSystem(version, scale=scale)) as system:
        yield system


async def test_replicas_share_the_work_and_stand_in_for_each_other_without_losing_anything(
    system: ComposeSystem,
) -> None:
    campaign = Campaign(system, DEVICES, RATE)

    async def faults() -> None:
        for service, metric in WORK.items():
            await eventually(partial(all_work, system, service, metric), within_s=PATIENCE_S, every_s=1)
        for service in WORK:
            say(campaign, f"one {service} is killed")
            await one_is_killed(system, service)
        await takeovers(system, campaign)

    reckoning = await campaign.run(faults, drain_s=240)
    print(reckoning)
    assert not +reckoning.faults
    assert reckoning.sent > 20 * RATE


async def all_work(system: ComposeSystem, service: str, metric: str) -> bool:
    """Whether each has done some; asks the gateways something, for they have nothing to do by themselves."""
    async with system.admin() as rest:
        for _ in range(4):
            await rest.call("GET", "/v3/workspaces")
    pages = [await system.metrics_of(container) for container in await system.containers(service)]
    done = [sum(value for name, value in page.items() if name.startswith(metric)) for page in pages]
    return len(done) == 2 and all(done)


async def one_is_killed(system: ComposeSystem, service: str) -> None:
    """The other does the work of both meanwhile, and people notice nothing."""
    one, other = await system.containers(service)
    before = await amount(system, other, service)
    await system.kill_containers(one)
    async with system.admin() as rest:
        for _ in range(20):
            await rest.call("GET", "/v3/workspaces")
            await asyncio.sleep(0.1)

    async def goes_on() -> bool:
        return await amount(system, other, service) > before

    await eventually(goes_on, within_s=PATIENCE_S, every_s=1)
    await system.begin(service)


async def amount(system: ComposeSystem, container: str, service: str) -> float:
    page = await system.metrics_of(container)
    return sum(value for name, value in page.items() if name.startswith(WORK[service]))


async def takeovers(system: ComposeSystem, campaign: Campaign) -> None:
    for _ in range(TAKEOVERS):
        holder, other = await roles(system)
        killed_at = datetime.now(UTC)
        await system.kill_containers(holder)

        async def held() -> datetime | None:
            return await held_since(system, other, killed_at)  # noqa: B023 (awaited before the next round)

        since = await eventually(held, within_s=PATIENCE_S)
        assert since is not None
        took = since - killed_at
        say(campaign, f"the other ingestion took over in {took.total_seconds():.2f} s")
        assert took < timedelta(seconds=TAKEOVER_S)
        await system.begin("ingestion")


async def roles(system: ComposeSystem) -> tuple[str, str]:
    """Who reads the spool, and who stands by."""
    containers = await system.containers("ingestion")
    last = {container: await spool_events(system, container) for container in containers}

    [holder] = [container for container in containers if last[container][-1][1] == "spool_held"]
    [other] = [container for container in containers if last[container][-1][1] == "spool_standing_by"]
    return holder, other


async def spool_events(system: ComposeSystem, container: str) -> list[tuple[datetime, str]]:
    events = await system.logged(container)
    names = ("spool_held", "spool_standing_by")
    return [(datetime.fromisoformat(one["timestamp"]), one["event"]) for one in events if one["event"] in names]


async def held_since(system: ComposeSystem, container: str, after: datetime) -> datetime | None:
    events = await spool_events(system, container)
    return next((at for at, event in events if event == "spool_held" and at > after), None)
