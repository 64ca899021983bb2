"""The test that counts: what was acknowledged is stored and delivered, whatever is killed."""

import asyncio
from pathlib import Path

import pytest

from tests.e2e.campaign import Campaign
from tests.support.system import System, running_system

DEVICES = 50
RATE = 500.0


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_acknowledged_message_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    async with running_system(tmp_path / "home") as system:
        campaign = Campaign(system, DEVICES, RATE)
        reckoning = await campaign.run(lambda: kill_each_and_both(system, campaign))
        print(reckoning)
        assert not +reckoning.faults
        assert reckoning.sent > 2000


async def kill_each_and_both(system: System, campaign: Campaign) -> None:
    await asyncio.sleep(3)
    system.kill("services")
    await asyncio.sleep(1)
    await system.ready()
    system.kill("broker")
    await asyncio.sleep(1)
    await system.ready()
    await asyncio.sleep(2)
    system.kill("services", "broker")
    await asyncio.sleep(1)
    await system.ready()
    await campaign.receiver_off(3)
    system.kill("services")
    await asyncio.sleep(1)
    await system.ready()
    await asyncio.sleep(3)
