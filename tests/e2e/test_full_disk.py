"""A disk that runs full under the whole system: nothing acknowledged is not kept, and all goes on when it is freed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.simulator.device import ConnectionRefused, Device
from tests.support.disk import MIB, SmallDisk, small_disk
from tests.support.system import System, default_workspace, new_device, running_system
from tests.support.waiting import eventually


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path) as disk:
        yield disk


class Sender:
    """Sends numbered messages, remembers which were acknowledged, connects again when cut off."""

    def __init__(self, credential: dict[str, Any]) -> None:
        self._credential = credential
        self._session: Device | None = None
        self._number = 0
        self.acknowledged: list[int] = []

    async def send(self) -> bool:
        """Whether the next one was acknowledged."""
        self._number += 1
        try:
            if self._session is None or self._session.lost.is_set():
                self._session = await Device.connect(self._credential)
            await self._session.data("n", self._number)
        except (ConnectionRefused, OSError):
            self._session = None
            return False
        self.acknowledged.append(self._number)
        return True

    async def refused(self) -> bool:
        """The opposite."""
        return not await self.send()


async def test_a_full_disk_refuses_and_a_freed_one_goes_on(disk: SmallDisk) -> None:
    async with running_system(disk.folder / "home", {"ZDM_SPOOL_FREE_BYTES": str(4 * MIB)}) as system:
        async with system.admin() as rest:
            workspace = await default_workspace(rest)
            sender = Sender(await new_device(rest, workspace, "steady"))
            assert await sender.send()

            disk.fill()
            await eventually(sender.refused, within_s=20)

            async def says_so() -> bool:
                status, answer = await rest.ask("POST", "/v3/workspaces", {"name": "no room"})
                return status == 503 and answer["code"] == "out_of_space"

            await eventually(says_so, within_s=20)
            assert (await system.metrics())["zdm_broker_spool_refusing"] == 1
            status, _ = await rest.ask("GET", f"/v3/timeseries/{workspace}/data")
            assert status == 200

            async def is_named() -> bool:
                status, answer = await rest.ask("GET", "/readyz")
                return status == 503 and "full" in answer["waiting_for"].get("documents", "")

            await eventually(is_named)

            disk.free()
            await eventually(sender.send, within_s=20)
            await rest.call("POST", "/v3/workspaces", {"name": "room"})

            async def all_there() -> bool:
                found = (await rest.call("GET", f"/v3/timeseries/{workspace}/data", sort="timestamp_device"))["result"]
                return [point["payload"] for point in found] == sender.acknowledged

            await eventually(all_there)
        await system.ready()
        await nothing_crashed(system)


async def nothing_crashed(system: System) -> None:
    said = system.log_file.read_text()
    assert "Traceback" not in said
    assert "starting it again" not in said
