"""`make chaos`: the campaign of `test_nothing_lost` for as long and as fast as asked."""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.e2e.campaign import Campaign
from tests.support.system import System, running_system

_DEVICES = 50


async def faults(system: System, campaign: Campaign, duration_s: float) -> None:
    """Kill something every few seconds, chosen at random, until the time is over."""
    deadline = monotonic() + duration_s
    while monotonic() < deadline:
        await asyncio.sleep(random.uniform(3, 8))
        what = random.choice([("services",), ("broker",), ("services", "broker"), ("receiver",)])
        print(
            f"{deadline - monotonic():6.0f} s left: {' and '.join(what)} down, {campaign.inbox.points} delivered",
            flush=True,
        )
        if what == ("receiver",):
            await campaign.receiver_off(random.uniform(1, 10))
            continue
        system.kill(*what)
        await asyncio.sleep(1)
        await system.ready()


async def run(duration_s: float, rate: float, seed: int) -> int:
    """0 when nothing was lost, doubled, renamed or out of order."""
    random.seed(seed)
    print(f"chaos: {_DEVICES} devices, {rate:.0f} messages/s, {duration_s:.0f} s, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="zdm-chaos-") as folder:
        async with running_system(Path(folder) / "home") as system:
            campaign = Campaign(system, _DEVICES, rate)
            reckoning = await campaign.run(lambda: faults(system, campaign, duration_s), drain_s=300)
    print(reckoning)
    return 1 if +reckoning.faults else 0


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=60, help="seconds of sending")
    parser.add_argument("--rate", type=float, default=500, help="messages a second over all devices")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats the choice of faults")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(run(arguments.duration, arguments.rate, arguments.seed)))


if __name__ == "__main__":
    main()
