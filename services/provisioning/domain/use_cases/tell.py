"""Telling everyone of workspaces, fleets and devices, and brokers of what they must know of devices.

A change is saved untold, then told, then marked as told; whatever dies in between, `TellTheRest` finds it. All tells of
this process go one after the other, what waits meanwhile going together, so that an older state never follows a newer.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from services.provisioning.domain.credentials import DeviceKey
from services.provisioning.domain.ports import Certificates, Devices, Fleets, Keys, Presences, Things, Workspaces
from services.provisioning.domain.things import DEFAULT, Device, Fleet, Thing, Workspace, default_fleet_id
from shared.errors import Conflict
from shared.log import Log, Record
from shared.messages.registry import AccessGranted, AccessKey, RegistryEntry
from shared.messages.topics import ACCESS, REGISTRY

T = TypeVar("T", bound=Thing)


@dataclass
class _Batch:
    workspaces: set[str] = field(default_factory=set)
    fleets: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    told: bool = False


class Tell:
    """Says what there is now of these ids, and that those which are deleted or unknown are gone."""

    def __init__(
        self,
        workspaces: Workspaces,
        fleets: Fleets,
        devices: Devices,
        keys: Keys,
        certificates: Certificates,
        presences: Presences,
        log: Log,
    ) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._devices = devices
        self._keys = keys
        self._certificates = certificates
        self._presences = presences
        self._log = log
        self._one_at_a_time = asyncio.Lock()
        self._next = _Batch()

    async def __call__(
        self, *, workspaces: Iterable[str] = (), fleets: Iterable[str] = (), devices: Iterable[str] = ()
    ) -> None:
        """Return once it is in the log. Deleted fleets and devices are forgotten then, with all that they had."""
        batch = self._next
        batch.workspaces |= set(workspaces)
        batch.fleets |= set(fleets)
        batch.devices |= set(devices)
        async with self._one_at_a_time:
            if batch.told:
                return
            if batch is self._next:
                self._next = _Batch()
            await self._tell(batch)
            batch.told = True

    async def _tell(self, batch: _Batch) -> None:
        workspaces, fleets, devices = batch.workspaces, batch.fleets, batch.devices
        while workspaces or fleets or devices:
            known = await self._workspaces.get_many(sorted(workspaces))
            fleets |= await self._missing_fleets(known.values())
            known_fleets = await self._fleets.get_many(sorted(fleets))
            known_devices = await self._devices.get_many(sorted(devices))
            entries = [
                *(_record(identifier, _workspace(known.get(identifier))) for identifier in sorted(workspaces)),
                *(_record(identifier, _fleet(known_fleets.get(identifier))) for identifier in sorted(fleets)),
                *(_record(identifier, _device(known_devices.get(identifier))) for identifier in sorted(devices)),
            ]
            await self._log.append(REGISTRY, entries)
            await self._log.append(ACCESS, await self._access(sorted(devices), known_devices))
            # What somebody has changed meanwhile may have been told before us by another process: again.
            workspaces = await _moved(self._workspaces, known.values())
            fleets = await _moved(self._fleets, known_fleets.values())
            devices = await _moved(self._devices, known_devices.values())
            await self._forget(known_fleets.values(), known_devices.values())

    async def _missing_fleets(self, workspaces: Iterable[Workspace]) -> set[str]:
        """A workspace has a fleet: make the first one where whoever made the workspace did not get that far."""
        made = set()
        for workspace in workspaces:
            if workspace.deleted or await self._fleets.of_workspace(workspace.id):
                continue
            fleet = Fleet(
                id=default_fleet_id(workspace.id),
                account_id=workspace.account_id,
                workspace_id=workspace.id,
                name=DEFAULT,
                created_at=workspace.created_at,
            )
            try:
                await self._fleets.add(fleet)
            except Conflict:  # somebody else was quicker
                continue
            made.add(fleet.id)
        return made

    async def _access(self, identifiers: Sequence[str], known: dict[str, Device]) -> list[Record]:
        live = {device.id: device for device in known.values() if not device.deleted}
        keys = await self._keys.of_devices(live.values())
        return [
            _record(identifier, _granted(live.get(identifier), keys.get(identifier, ()))) for identifier in identifiers
        ]

    async def _forget(self, fleets: Iterable[Fleet], devices: Iterable[Device]) -> None:
        gone = [device.id for device in devices if device.deleted]
        if gone:
            await self._keys.remove_of(gone)
            await self._certificates.remove_of(gone)
            await self._presences.remove_of(gone)
            # Last: as long as it is there, untold, all this is done again.
            await self._devices.remove(gone)
        if gone_fleets := [fleet.id for fleet in fleets if fleet.deleted]:
            await self._fleets.remove(gone_fleets)


async def _moved(things: Things[T], told: Iterable[T]) -> set[str]:
    """Mark those that live as told; the ids of those that are no longer what was told."""
    live = [thing for thing in told if not thing.deleted]
    marked = await asyncio.gather(*(things.mark_told(thing) for thing in live))
    return {thing.id for thing, done in zip(live, marked, strict=True) if not done}


def _record(identifier: str, message: RegistryEntry | AccessGranted | None) -> Record:
    return Record(identifier, None) if message is None else message.record(identifier)


def _workspace(workspace: Workspace | None) -> RegistryEntry | None:
    if workspace is None or workspace.deleted:
        return None
    return RegistryEntry(
        kind="workspace",
        id=workspace.id,
        account_id=workspace.account_id,
        workspace_id=workspace.id,
        name=workspace.name,
        revision=workspace.revision,
    )


def _fleet(fleet: Fleet | None) -> RegistryEntry | None:
    if fleet is None or fleet.deleted:
        return None
    return RegistryEntry(
        kind="fleet",
        id=fleet.id,
        account_id=fleet.account_id,
        workspace_id=fleet.workspace_id,
        fleet_id=fleet.id,
        name=fleet.name,
        revision=fleet.revision,
    )


def _device(device: Device | None) -> RegistryEntry | None:
    if device is None or device.deleted:
        return None
    return RegistryEntry(
        kind="device",
        id=device.id,
        account_id=device.account_id,
        workspace_id=device.workspace_id,
        fleet_id=device.fleet_id,
        name=device.name,
        enabled=device.enabled,
        revision=device.revision,
    )


def _granted(device: Device | None, keys: Iterable[DeviceKey]) -> AccessGranted | None:
    if device is None:
        return None
    return AccessGranted(
        device_id=device.id,
        enabled=device.enabled,
        keys=tuple(AccessKey(id=key.number, type=key.algorithm, key_base64=key.key_base64) for key in keys),
        certificates=device.certificates,
    )
