"""What befalls an installation while its devices send."""

import asyncio

from tests.e2e.campaign import Campaign
from tests.support.compose import SERVICES, STORES, ComposeSystem

# Whatever may be killed and come back without a device noticing more than a pause.
MORTALS = (*SERVICES, "mosquitto", *STORES)


async def killed(system: ComposeSystem, *services: str, down_s: float) -> None:
    """Killed all at once, and started again after a while."""
    await system.kill(*services)
    await asyncio.sleep(down_s)
    await system.begin(*services)


async def cut_off(system: ComposeSystem, service: str, *, seconds: float) -> None:
    """Away from Kafka and MongoDB, and alive."""
    async with system.cut_off(service, "data"):
        await asyncio.sleep(seconds)
    await system.healthy()


def say(campaign: Campaign, what: str) -> None:
    """Where the campaign is."""
    sent = sum(sender.acknowledged for sender in campaign.senders)
    print(f"{sent:8} acknowledged, {campaign.inbox.points:8} delivered: {what}", flush=True)
