"""Several brokers at once: each is told everything, and one that is away or stuck is no trouble to the others."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client import generate_latest

from deploy.simulator.device import ConnectionRefused, Device
from tests.support.provisioning import Broker, Caller, Provisioning, broker, provisioning
from tests.support.waiting import eventually

NAMES = ("broker", "broker-2")
CUT_S = 1.0
# The answer waits a second for a broker that is stuck, whose link takes ten to give up.
WAITED_FOR_S, STUCK_S = 0.2, 5.0


class Field(NamedTuple):
    """Two brokers, and provisioning in step with them."""

    one: Broker
    two: Broker
    provisioning: Provisioning
    person: Caller
    workspace: str

    async def device(self) -> dict[str, Any]:
        """The `zdevice.json` of a new one."""
        device = await self.person.device(self.workspace)
        return dict((await self.person.call("POST", f"/devices/{device}/credentials"))["credential"])

    async def disable(self, credential: dict[str, Any]) -> None:
        device = credential["devinfo"]["device_id"]
        await self.person.call("PUT", f"/workspaces/{self.workspace}/devices/{device}", {"enabled": False})

    def waiting_for(self) -> set[str]:
        """Who is away, as `/readyz` has it."""
        return {name for name, check in self.provisioning.service.ready.items() if check()}

    async def waits_for(self, *names: str) -> None:
        async def look() -> bool:
            return self.waiting_for() == set(names)

        await eventually(look, within_s=20, every_s=0.01)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Field]:
    home = tmp_path / "home"
    workers = [f"provisioning-{name}" for name in NAMES]
    async with (
        broker(home) as one,
        broker(home, "broker-2") as two,
        provisioning(home, *workers, **one.environment, ZDM_BROKERS=",".join(NAMES)) as service,
    ):
        person = service.session()
        field = Field(one, two, service, person, await person.workspace())
        await field.waits_for()
        yield field


async def connect(one: Broker, credential: dict[str, Any]) -> Device:
    return await Device.connect({**credential, "endpoint": {**credential["endpoint"], "port": one.token_port}})


async def is_refused(one: Broker, credential: dict[str, Any]) -> None:
    with pytest.raises((ConnectionRefused, ConnectionError)):
        await connect(one, credential)


async def test_what_is_answered_holds_at_each(there: Field) -> None:
    credential = await there.device()
    sessions = [await connect(one, credential) for one in (there.one, there.two)]
    await there.disable(credential)
    async with asyncio.timeout(CUT_S):
        await asyncio.gather(*(session.lost.wait() for session in sessions))
    for one in (there.one, there.two):
        await is_refused(one, credential)


async def test_each_has_a_secret_of_its_own_and_is_named_in_the_metrics(there: Field) -> None:
    assert len({(there.one.home / name / "service.key").read_text() for name in NAMES}) == len(NAMES)
    text = generate_latest().decode()
    assert all(f'zdm_provisioning_broker_lag{{broker="{name}"}} 0.0' in text for name in NAMES)


@pytest.mark.parametrize("away", NAMES)
async def test_one_that_is_away_is_named_and_told_later(there: Field, away: str) -> None:
    gone, other = (there.one, there.two) if away == there.one.name else (there.two, there.one)
    credential = await there.device()
    session = await connect(other, credential)
    await gone.kill()
    await there.waits_for(away)
    await there.disable(credential)
    async with asyncio.timeout(CUT_S):
        await session.lost.wait()
    await gone.start()
    await there.waits_for()
    await is_refused(gone, credential)


async def test_one_that_is_stuck_holds_up_the_answer_for_a_moment_and_the_other_not_at_all(there: Field) -> None:
    credential = await there.device()
    session = await connect(there.one, credential)
    there.two.signal(signal.SIGSTOP)
    disabling = asyncio.create_task(there.disable(credential))
    async with asyncio.timeout(CUT_S):
        await session.lost.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(disabling), WAITED_FOR_S)
    async with asyncio.timeout(STUCK_S):
        await disabling
    there.two.signal(signal.SIGCONT)
    await there.waits_for()
    await is_refused(there.two, credential)
