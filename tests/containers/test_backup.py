"""What was backed up is there again in empty volumes, and the rest survives the loss of the log."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.simulator.device import Device
from deploy.simulator.receiver import receiving
from tests.support.compose import CommandFailed, ComposeSystem, docker, run, running_compose
from tests.support.ports import free_ports
from tests.support.system import Rest, default_workspace, new_device, stored

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

PATIENCE_S = 60.0


class Customer:
    """A device, an API key and a webhook, all made before whatever happens."""

    def __init__(self, system: ComposeSystem) -> None:
        self._system = system
        self.batches: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        # Unlike those of other networks, this one's addresses stay when the network is made anew.
        self._host, [self._port] = str(system.edge[1]), free_ports(1)

    async def begin(self) -> None:
        """With nobody at the webhook."""
        async with self._system.admin() as rest:
            self.workspace = await default_workspace(rest)
            self.credential = await new_device(rest, self.workspace, "kept")
            path = f"/v3/workspaces/{self.workspace}"
            self.key = (await rest.call("POST", f"{path}/apikeys", {"name": "kept"}))["key"]
            hook = {"url": f"http://{self._host}:{self._port}/"}
            body = {"name": "hook", "type": "data_stream", "subtype": "webhook", "subtype_configuration": hook}
            await rest.call("POST", f"{path}/integrations", body)

    async def send(self, *numbers: int) -> None:
        """As the device, with the credentials of the beginning."""
        session = await Device.connect(self.credential)
        for number in numbers:
            await session.data("count", {"n": number})
        session.close()

    async def stored(self, count: int) -> list[int]:
        """What the API key finds, oldest first, once there is so much."""
        async with self._system.as_key(self.key) as rest:
            return [point["payload"]["n"] for point in await self._points(rest, count)]

    async def delivered(self, count: int) -> list[int]:
        """What comes to the webhook but zeros, now that somebody is there."""
        found: list[int] = []
        async with receiving(self.batches.put_nowait, self._port, self._host), asyncio.timeout(PATIENCE_S):
            while len(found) < count:
                found += [n for point in (await self.batches.get())["result"] if (n := point["payload"]["n"])]
        return found

    async def _points(self, rest: Rest, count: int) -> list[dict[str, Any]]:
        device = self.credential["devinfo"]["device_id"]
        return await stored(rest, self.workspace, device, count, within_s=PATIENCE_S)


@pytest.fixture(scope="module")
async def system(version: str) -> AsyncIterator[ComposeSystem]:
    async with running_compose(ComposeSystem(version)) as system:
        yield system


@pytest.fixture(scope="module")
async def customer(system: ComposeSystem) -> Customer:
    customer = Customer(system)
    await customer.begin()
    return customer


async def test_a_backup_brings_all_back_into_empty_volumes(
    system: ComposeSystem, customer: Customer, tmp_path: Path
) -> None:
    file, password = tmp_path / "backup.tar.gz", system.password
    await customer.send(1, 2, 3)
    assert await customer.stored(3) == [1, 2, 3]
    staying = await Device.connect(customer.credential)
    backup = asyncio.create_task(run("deploy/compose/backup", str(file), environment=system.environment))
    while not backup.done():
        await staying.data("other", {"n": 0})
        await asyncio.sleep(0.5)
    await backup
    assert file.stat().st_mode & 0o077 == 0
    assert not staying.lost.is_set()
    staying.close()
    await system.healthy()
    with pytest.raises(CommandFailed, match="stop it first"):
        await run("deploy/compose/restore", str(file), environment=system.environment)
    await system.down()
    with pytest.raises(CommandFailed, match="there is data already"):
        await run("deploy/compose/restore", str(file), environment=system.environment)
    await system.removed()

    await run("deploy/compose/restore", str(file), environment=system.environment)
    await system.up()
    assert system.password == password
    assert (await customer.stored(3))[:3] == [1, 2, 3]
    await customer.send(4)
    assert await customer.delivered(4) == [1, 2, 3, 4]


async def test_without_its_log_all_goes_on_but_for_what_was_only_in_it(
    system: ComposeSystem, customer: Customer
) -> None:
    before = len(await customer.stored(1))
    await system.down()
    await docker("volume", "rm", f"{system.project}_kafka")
    await system.up()
    await customer.send(5, 6)
    assert (await customer.stored(before + 2))[-2:] == [5, 6]
    assert await customer.delivered(2) == [5, 6]
