"""Provisioning's documents."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic

from services.provisioning.domain.ports import T
from services.provisioning.domain.things import Device, DeviceCertificate, DeviceKey, Fleet, Presence, Workspace
from shared.documents import Collection, Document, Documents, Index, Schema, every

_UNTOLD = Index(("told",))
_WORKSPACES = Schema("provisioning_workspaces", (Index(("account_id",)), _UNTOLD))
_FLEETS = Schema("provisioning_fleets", (Index(("workspace_id",)), _UNTOLD))
_DEVICES = Schema("provisioning_devices", (Index(("workspace_id",)), Index(("fleet_id",)), _UNTOLD))
_KEYS = Schema("provisioning_keys", (Index(("device_id", "number")),))
_CERTIFICATES = Schema("provisioning_certificates", (Index(("device_id",)),))
_PRESENCE = Schema("provisioning_presence", (Index(("spool", "connected")),))
_BOOTS = Schema("provisioning_boots")


class ThingsStore(Generic[T]):
    """See `Things`."""

    def __init__(self, kind: type[T], collection: Collection) -> None:
        self._kind: type[T] = kind
        self._collection = collection

    async def add(self, thing: T) -> None:
        """See the port."""
        await self._collection.insert(asdict(thing))

    async def get(self, identifier: str) -> T | None:
        """See the port."""
        document = await self._collection.get(identifier)
        return None if document is None or document["deleted"] else self._kind(**document)

    async def of(self, **where: str) -> Sequence[T]:
        """See the port."""
        return [self._kind(**found) for found in await every(self._collection, {**where, "deleted": False}, ["id"])]

    async def change(self, identifier: str, changes: Mapping[str, Any]) -> T | None:
        """See the port."""
        return self._found(
            await self._collection.change(
                identifier, {**changes, "told": False}, add={"revision": 1}, where={"deleted": False}
            )
        )

    async def claim(self, identifier: str, field: str) -> int | None:
        """See the port."""
        document = await self._collection.change(identifier, add={field: 1}, where={"deleted": False})
        return None if document is None else int(document[field]) - 1

    async def untold(self, limit: int) -> Sequence[T]:
        """See the port."""
        return [self._kind(**found) for found in await every(self._collection, {"told": False}, limit=limit)]

    async def told(self, thing: T) -> None:
        """See the port."""
        if thing.deleted:
            await self._collection.delete(thing.id, where={"revision": thing.revision})
        else:
            await self._collection.change(thing.id, {"told": True}, where={"revision": thing.revision})

    def _found(self, document: Document | None) -> T | None:
        return None if document is None else self._kind(**document)


class CredentialsStore:
    """See `Credentials`."""

    def __init__(self, keys: Collection, certificates: Collection) -> None:
        self._keys = keys
        self._certificates = certificates

    async def add_key(self, key: DeviceKey) -> None:
        """See the port."""
        await self._keys.insert(asdict(key))

    async def keys(self, device_id: str) -> Sequence[DeviceKey]:
        """See the port."""
        return [DeviceKey(**found) for found in await every(self._keys, {"device_id": device_id}, ["number"])]

    async def remove_keys(self, device_id: str, but: int | None = None) -> None:
        """See the port."""
        for key in await self.keys(device_id):
            if key.number != but:
                await self._keys.delete(key.id)

    async def add_certificate(self, certificate: DeviceCertificate) -> None:
        """See the port."""
        await self._certificates.insert(asdict(certificate))

    async def certificates(self, device_id: str) -> Sequence[DeviceCertificate]:
        """See the port."""
        found = await every(self._certificates, {"device_id": device_id}, ["created_at"])
        return [DeviceCertificate(**document) for document in found]

    async def revoke(self, device_id: str, serial: str) -> bool:
        """See the port."""
        return await self._certificates.change(serial, {"revoked": True}, where={"device_id": device_id}) is not None

    async def remove_certificates(self, device_id: str) -> None:
        """See the port."""
        await self._certificates.delete_many({"device_id": device_id})


class PresenceStore:
    """See `Presences`."""

    def __init__(self, presence: Collection, boots: Collection) -> None:
        self._presence = presence
        self._boots = boots

    async def get(self, device_id: str) -> Presence:
        """See the port."""
        document = await self._presence.get(device_id)
        return Presence(device_id) if document is None else Presence(**document)

    async def get_many(self, device_ids: Sequence[str]) -> Mapping[str, Presence]:
        """See the port."""
        found = await self._presence.get_many(device_ids)
        return {one: Presence(**found[one]) if one in found else Presence(one) for one in device_ids}

    async def put_many(self, presences: Sequence[Presence]) -> None:
        """See the port."""
        await self._presence.put_many([asdict(presence) for presence in presences])

    async def connected_at(self, spool: str) -> Sequence[Presence]:
        """See the port."""
        return [Presence(**found) for found in await every(self._presence, {"spool": spool, "connected": True})]

    async def boot(self, spool: str) -> int:
        """See the port."""
        document = await self._boots.get(spool)
        return 0 if document is None else int(document["boot"])

    async def booted(self, spool: str, boot: int) -> None:
        """See the port."""
        await self._boots.put_many([{"id": spool, "boot": boot}])

    async def remove(self, device_id: str) -> None:
        """See the port."""
        await self._presence.delete(device_id)


class Store:
    """All that provisioning keeps."""

    def __init__(
        self,
        workspaces: ThingsStore[Workspace],
        fleets: ThingsStore[Fleet],
        devices: ThingsStore[Device],
        credentials: CredentialsStore,
        presence: PresenceStore,
    ) -> None:
        self.workspaces = workspaces
        self.fleets = fleets
        self.devices = devices
        self.credentials = credentials
        self.presence = presence


async def open_store(documents: Documents) -> Store:
    """Open the collections, making them when missing."""
    return Store(
        ThingsStore(Workspace, await documents.collection(_WORKSPACES)),
        ThingsStore(Fleet, await documents.collection(_FLEETS)),
        ThingsStore(Device, await documents.collection(_DEVICES)),
        CredentialsStore(await documents.collection(_KEYS), await documents.collection(_CERTIFICATES)),
        PresenceStore(await documents.collection(_PRESENCE), await documents.collection(_BOOTS)),
    )
