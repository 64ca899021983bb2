"""A fleet of many devices at the start: full sync to the broker, time until ready, memory."""

import base64
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

from services.provisioning.domain.things import Device
from shared.documents import Schema
from shared.messages.registry import AccessGranted, AccessKey, RegistryEntry
from shared.messages.topics import ACCESS, REGISTRY
from shared.runtime import open_platform
from shared.settings import Installation
from tests.bench.processes import rss_mb
from tests.support.system import System, default_workspace

_BATCH = 5000


@dataclass
class FleetStart:
    """What was measured."""

    sync_s: float
    start_s: float
    services_mb: float
    broker_mb: float
    empty_broker_mb: float


async def measure(home: Path, count: int) -> FleetStart:
    """An installation is made, stopped, filled with `count` devices, and started twice: once to sync, once as usual."""
    system = await System(home).start()
    async with system.admin() as rest:
        workspace = (await rest.call("GET", f"/v3/workspaces/{await default_workspace(rest)}/fleets"))["fleets"][0]
    empty = rss_mb(system.pid("broker"))
    await system.stop()
    await _fill(home, count, workspace["account_id"], workspace["workspace_id"], workspace["id"])
    sync_s = await _timed_start(system)
    await system.stop()
    start_s = await _timed_start(system)
    found = FleetStart(sync_s, start_s, rss_mb(system.pid("services")), rss_mb(system.pid("broker")), empty)
    await system.stop()
    return found


async def _timed_start(system: System) -> float:
    began = monotonic()
    await system.launch()
    await system.ready(within_s=300)
    return monotonic() - began


async def _fill(home: Path, count: int, account: str, workspace: str, fleet: str) -> None:
    """Devices as provisioning keeps and tells them, written in bulk."""
    async with open_platform(Installation.load({"ZDM_HOME": str(home)})) as platform:
        collection = await platform.documents.collection(Schema("provisioning_devices"))
        for start in range(0, count, _BATCH):
            devices = [
                _device(number, account, workspace, fleet) for number in range(start, min(start + _BATCH, count))
            ]
            await collection.put_many([asdict(device) for device in devices])
            await platform.log.append(REGISTRY, [_registry(device).record(device.id) for device in devices])
            await platform.log.append(ACCESS, [_access(device).record(device.id) for device in devices])


def _device(number: int, account: str, workspace: str, fleet: str) -> Device:
    return Device(
        id=f"dev-{number:012d}",
        account_id=account,
        workspace_id=workspace,
        fleet_id=fleet,
        name=f"device-{number}",
        created_at="2026-01-01T00:00:00.000000Z",
        told=True,
    )


def _registry(device: Device) -> RegistryEntry:
    return RegistryEntry(
        kind="device",
        id=device.id,
        account_id=device.account_id,
        workspace_id=device.workspace_id,
        fleet_id=device.fleet_id,
        name=device.name,
        revision=device.revision,
    )


def _access(device: Device) -> AccessGranted:
    key = AccessKey(id=1, type="HS256", key_base64=base64.b64encode(os.urandom(32)).decode())
    return AccessGranted(device_id=device.id, enabled=True, keys=(key,))
