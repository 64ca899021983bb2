"""The test that counts, on the real Compose file: whatever is killed or cut off, nothing acknowledged is lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.containers.faults import cut_off, killed, say
from tests.e2e.campaign import Campaign
from tests.support.compose import SERVICES, STORES, ComposeSystem, running_compose

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1200)]

DEVICES = 50
RATE = 100.0
SERVICE_DOWN_S = 2.0
STORE_DOWN_S = 20.0
CUT_S = 30.0


@pytest.fixture(scope="module")
async def system(version: str) -> AsyncIterator[ComposeSystem]:
    async with running_compose(ComposeSystem(version)) as system:
        yield system


async def test_no_acknowledged_message_is_lost_whatever_is_killed_or_cut_off(system: ComposeSystem) -> None:
    campaign = Campaign(system, DEVICES, RATE)
    reckoning = await campaign.run(lambda: each_in_turn(system, campaign), drain_s=240)
    print(reckoning)
    assert not +reckoning.faults
    assert reckoning.sent > 60 * RATE


async def each_in_turn(system: ComposeSystem, campaign: Campaign) -> None:
    await asyncio.sleep(3)
    for service in SERVICES:
        say(campaign, f"{service} is killed")
        await killed(system, service, down_s=SERVICE_DOWN_S)
    for service in ("mosquitto", *STORES):
        say(campaign, f"{service} is killed")
        await killed(system, service, down_s=STORE_DOWN_S)
    say(campaign, "ingestion is cut off")
    await cut_off(system, "ingestion", seconds=CUT_S)
    say(campaign, "all is back")
    await asyncio.sleep(3)
