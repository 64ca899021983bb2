"""`make chaos-compose`: the campaign of `test_faults` for as long and as fast as asked, with faults by chance."""

import argparse
import asyncio
import random
import sys
from time import monotonic

from tests.containers.faults import MORTALS, cut_off, killed, say
from tests.e2e.campaign import Campaign
from tests.support.compose import SERVICES, ComposeSystem, built_images, running_compose

_DEVICES = 50
_LONGEST_S = 20.0


async def faults(system: ComposeSystem, campaign: Campaign, duration_s: float) -> None:
    """One every few seconds until the time is over."""
    deadline = monotonic() + duration_s
    while monotonic() < deadline:
        await asyncio.sleep(random.uniform(3, 8))
        seconds = random.uniform(0, _LONGEST_S)
        match random.choice(("kill", "kill", "kill both", "cut", "receiver")):
            case "kill":
                [one] = random.sample(MORTALS, 1)
                say(campaign, f"{one} is killed, for {seconds:.0f} s")
                await killed(system, one, down_s=seconds)
            case "kill both":
                both = random.sample(MORTALS, 2)
                say(campaign, f"{both[0]} and {both[1]} are killed, for {seconds:.0f} s")
                await killed(system, *both, down_s=seconds)
            case "cut":
                one = random.choice(SERVICES)
                say(campaign, f"{one} is cut off, for {seconds:.0f} s")
                await cut_off(system, one, seconds=seconds)
            case "receiver":
                say(campaign, f"the receiver is away, for {seconds:.0f} s")
                await campaign.receiver_off(seconds)


async def run(duration_s: float, rate: float, seed: int) -> int:
    """0 when nothing was lost, doubled, renamed or out of order."""
    random.seed(seed)
    print(f"chaos: {_DEVICES} devices, {rate:.0f} messages/s, {duration_s:.0f} s, seed {seed}", flush=True)
    with built_images() as version:
        async with running_compose(ComposeSystem(version)) as system:
            campaign = Campaign(system, _DEVICES, rate)
            reckoning = await campaign.run(lambda: faults(system, campaign, duration_s), drain_s=duration_s + 300)
    print(reckoning)
    return 1 if +reckoning.faults else 0


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=300, help="seconds of sending")
    parser.add_argument("--rate", type=float, default=100, help="messages a second over all devices")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="repeats the choice of faults")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(run(arguments.duration, arguments.rate, arguments.seed)))


if __name__ == "__main__":
    main()
