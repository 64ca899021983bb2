"""What an installation has, it has again after it was stopped, and with newer images."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest

from deploy.simulator.device import Device
from tests.support.compose import IMAGES, ComposeSystem, docker, remove_images, running_compose
from tests.support.system import Rest, default_workspace, new_device, stored

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

PATIENCE_S = 30.0


class Owned(NamedTuple):
    """What somebody has in an installation."""

    workspace: str
    credential: dict[str, Any]
    key: str
    password: str

    @property
    def device(self) -> str:
        return str(self.credential["devinfo"]["device_id"])


@pytest.fixture(scope="module")
async def system(version: str) -> AsyncIterator[ComposeSystem]:
    async with running_compose(ComposeSystem(version)) as system:
        yield system


@pytest.fixture(scope="module")
async def owned(system: ComposeSystem) -> Owned:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        credential = await new_device(rest, workspace, "kept")
        key = (await rest.call("POST", f"/v3/workspaces/{workspace}/apikeys", {"name": "kept"}))["key"]
        made = Owned(workspace, credential, key, system.password)
        await send(made, 1)
        await stored(rest, workspace, made.device, within_s=PATIENCE_S)
        return made


@pytest.fixture
def newer(version: str) -> Iterator[str]:
    """Tag of images in which something has changed."""
    yield (tag := f"{version}-newer")
    remove_images(tag)


async def send(owned: Owned, number: int) -> None:
    session = await Device.connect(owned.credential)
    await session.data("count", {"n": number})
    session.close()


async def numbers(rest: Rest, owned: Owned, count: int) -> list[int]:
    found = await stored(rest, owned.workspace, owned.device, count, within_s=PATIENCE_S)
    return [point["payload"]["n"] for point in found]


async def test_all_is_there_after_compose_down_and_up(system: ComposeSystem, owned: Owned) -> None:
    await system.down()
    assert not await system.containers("gateway")
    await system.up()
    assert system.password == owned.password
    async with system.admin() as rest:
        assert await numbers(rest, owned, 1) == [1]
        await send(owned, 2)
        assert await numbers(rest, owned, 2) == [1, 2]
    async with system.as_key(owned.key) as rest:
        assert await numbers(rest, owned, 2) == [1, 2]


async def test_newer_images_start_on_the_data_of_older_ones(system: ComposeSystem, owned: Owned, newer: str) -> None:
    async with system.admin() as rest:
        before = len(await numbers(rest, owned, 1))
    for image in IMAGES:
        changed = f"FROM {image}:{system.version}\nUSER 0\nRUN touch /newer\nUSER 10001:10001\n"
        await docker("build", "--quiet", "--tag", f"{image}:{newer}", "-", given=changed.encode())
    system.version = newer
    await system.up()
    for service in ("storage", "mosquitto", "proxy"):
        [container] = await system.containers(service)
        assert (await system.inspect(container))["Config"]["Image"].endswith(newer)
    async with system.admin() as rest:
        await send(owned, 3)
        assert len(await numbers(rest, owned, before + 1)) == before + 1
    await system.removed()
