"""Everything that provisioning keeps, in the document store."""

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Generic, NamedTuple, TypeVar

from services.provisioning.domain.credentials import Certificate, DeviceKey
from services.provisioning.domain.ports import Moved
from services.provisioning.domain.presence import Presence
from services.provisioning.domain.things import Device, Fleet, Thing, Workspace
from shared.clock import Clock
from shared.documents import Collection, Document, Documents, In, Index, Schema, Where, every, first

_TOLD = Index(("told",))
_WORKSPACES = Schema("provisioning_workspaces", (Index(("account_id",)), _TOLD))
_FLEETS = Schema("provisioning_fleets", (Index(("workspace_id", "id")), _TOLD))
_DEVICES = Schema("provisioning_devices", (Index(("workspace_id", "id")), Index(("fleet_id",)), _TOLD))
# The one place with secrets of devices.
_KEYS = Schema("provisioning_keys", (Index(("device_id",)),))
_CERTIFICATES = Schema("provisioning_certificates", (Index(("device_id",)),))
_PRESENCE = Schema("provisioning_presence")
_BOOTS = Schema("provisioning_boots")
_BROKERS = Schema("provisioning_brokers")

_BELIEVED_MS = 1000

T = TypeVar("T", bound=Thing)


class ThingStore(Generic[T]):
    """See `ports.Things`."""

    def __init__(self, collection: Collection, build: Callable[[Document], T]) -> None:
        self._collection = collection
        self._build = build

    async def add(self, thing: T) -> None:
        """See the port."""
        await self._collection.insert(asdict(thing))

    async def get(self, identifier: str) -> T | None:
        """See the port."""
        document = await self._collection.get(identifier)
        return None if document is None else self._build(document)

    async def get_many(self, identifiers: Sequence[str]) -> dict[str, T]:
        """See the port."""
        found = await self._collection.get_many(identifiers)
        return {identifier: self._build(document) for identifier, document in found.items()}

    async def save(self, thing: T) -> None:
        """See the port."""
        if await self._collection.change(thing.id, asdict(thing), where={"revision": thing.revision - 1}) is None:
            raise Moved(f"{thing.id} was changed by somebody else at the same time")

    async def mark_told(self, thing: T) -> bool:
        """See the port."""
        return await self._collection.change(thing.id, {"told": True}, where={"revision": thing.revision}) is not None

    async def untold(self, limit: int) -> Sequence[T]:
        """See the port."""
        return [self._build(document) for document in await every(self._collection, {"told": False}, limit=limit)]

    async def untold_count(self) -> int:
        """See the port."""
        return await self._collection.count({"told": False})

    async def identifiers(self) -> AsyncIterator[str]:
        """See the port."""
        async for document in self._collection.find(order=["id"]):
            yield document["id"]

    async def remove(self, identifiers: Iterable[str]) -> None:
        """See the port."""
        await self._collection.delete_many({"id": In(list(identifiers))})

    async def _some(self, where: Where, limit: int | None = None) -> list[T]:
        return [self._build(document) for document in await every(self._collection, where, ["id"], limit)]


class WorkspaceStore(ThingStore[Workspace]):
    """See `ports.Workspaces`."""

    async def of_account(self, account_id: str) -> Sequence[Workspace]:
        """See the port."""
        return await self._some({"account_id": account_id, "deleted": False})


class FleetStore(ThingStore[Fleet]):
    """See `ports.Fleets`."""

    async def of_workspace(self, workspace_id: str) -> list[Fleet]:
        """See the port."""
        return await self._some({"workspace_id": workspace_id, "deleted": False})

    async def all_of_workspace(self, workspace_id: str) -> Sequence[Fleet]:
        """See the port."""
        return await self._some({"workspace_id": workspace_id})


class DeviceStore(ThingStore[Device]):
    """See `ports.Devices`."""

    async def save(self, thing: Device) -> None:
        """See the port."""
        changes = asdict(thing)
        # Only `next_key` moves the counter: a save of what was read before must not turn it back.
        del changes["last_key"]
        if await self._collection.change(thing.id, changes, where={"revision": thing.revision - 1}) is None:
            raise Moved(f"{thing.id} was changed by somebody else at the same time")

    async def of_workspace(self, workspace_id: str) -> AsyncIterator[Device]:
        """See the port."""
        where: Where = {"workspace_id": workspace_id, "deleted": False}
        async for document in self._collection.find(where, order=["id"]):
            yield self._build(document)

    async def some_of_workspace(self, workspace_id: str, limit: int) -> Sequence[Device]:
        """See the port."""
        return await self._some({"workspace_id": workspace_id}, limit)

    async def in_fleet(self, fleet_id: str) -> bool:
        """See the port."""
        return await first(self._collection, {"fleet_id": fleet_id, "deleted": False}) is not None

    async def next_key(self, identifier: str) -> int | None:
        """See the port."""
        changed = await self._collection.change(identifier, add={"last_key": 1}, where={"deleted": False})
        return None if changed is None else int(changed["last_key"])


class KeyStore:
    """See `ports.Keys`."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def add(self, key: DeviceKey) -> None:
        """See the port."""
        await self._collection.insert({"id": _key_id(key.device_id, key.number), **asdict(key)})

    async def of_devices(self, devices: Iterable[Device]) -> Mapping[str, Sequence[DeviceKey]]:
        """See the port."""
        wanted = [_key_id(device.id, number) for device in devices for number in device.keys]
        found: defaultdict[str, list[DeviceKey]] = defaultdict(list)
        for document in (await self._collection.get_many(wanted)).values():
            found[document["device_id"]].append(DeviceKey(**_without_id(document)))
        return found

    async def remove(self, device_id: str, numbers: Iterable[int]) -> None:
        """See the port."""
        await self._collection.delete_many({"id": In([_key_id(device_id, number) for number in numbers])})

    async def remove_of(self, device_ids: Sequence[str]) -> None:
        """See the port."""
        await self._collection.delete_many({"device_id": In(device_ids)})


class CertificateStore:
    """See `ports.Certificates`."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def add(self, certificate: Certificate) -> None:
        """See the port."""
        await self._collection.insert({"id": certificate.serial, **asdict(certificate)})

    async def get(self, serial: str) -> Certificate | None:
        """See the port."""
        document = await self._collection.get(serial)
        return None if document is None else Certificate(**_without_id(document))

    async def of_device(self, device_id: str) -> Sequence[Certificate]:
        """See the port."""
        found = await every(self._collection, {"device_id": device_id}, ["created_at"])
        return [Certificate(**_without_id(document)) for document in found]

    async def remove_of(self, device_ids: Sequence[str]) -> None:
        """See the port."""
        await self._collection.delete_many({"device_id": In(device_ids)})


class PresenceStore:
    """See `ports.Presences`."""

    def __init__(self, collection: Collection, boots: Collection, clock: Clock) -> None:
        self._collection = collection
        self._boots = boots
        self._clock = clock
        self._known_boots: Mapping[str, int] = {}
        self._known_at = -_BELIEVED_MS

    async def get(self, device_id: str) -> Presence | None:
        """See the port."""
        document = await self._collection.get(device_id)
        return None if document is None else Presence(**_without_id(document))

    async def get_many(self, device_ids: Sequence[str]) -> dict[str, Presence]:
        """See the port."""
        found = await self._collection.get_many(device_ids)
        return {identifier: Presence(**_without_id(document)) for identifier, document in found.items()}

    async def put(self, presences: Sequence[Presence]) -> None:
        """See the port."""
        await self._collection.put_many([{"id": one.device_id, **asdict(one)} for one in presences])

    async def boots(self) -> Mapping[str, int]:
        """See the port."""
        now = self._clock.ms()
        if now - self._known_at >= _BELIEVED_MS:
            self._known_boots = {document["id"]: document["boot"] for document in await every(self._boots)}
            self._known_at = now
        return self._known_boots

    async def put_boots(self, boots: Mapping[str, int]) -> None:
        """See the port."""
        await self._boots.put_many([{"id": spool, "boot": boot} for spool, boot in boots.items()])
        self._known_at = -_BELIEVED_MS

    async def remove_of(self, device_ids: Sequence[str]) -> None:
        """See the port."""
        await self._collection.delete_many({"id": In(device_ids)})


class BrokerStore:
    """When a broker was last known to be in step."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection

    async def in_step_at(self, broker: str) -> int:
        """Ms since 1970; 0 for never."""
        document = await self._collection.get(broker)
        return 0 if document is None else int(document["in_step_at"])

    async def note_in_step(self, broker: str, at: int) -> None:
        """Remember."""
        await self._collection.put_many([{"id": broker, "in_step_at": at}])


class Store(NamedTuple):
    """All of it."""

    workspaces: WorkspaceStore
    fleets: FleetStore
    devices: DeviceStore
    keys: KeyStore
    certificates: CertificateStore
    presences: PresenceStore
    brokers: BrokerStore


async def open_store(documents: Documents, clock: Clock) -> Store:
    """Open the collections, making them when missing."""
    return Store(
        WorkspaceStore(await documents.collection(_WORKSPACES), lambda document: Workspace(**document)),
        FleetStore(await documents.collection(_FLEETS), lambda document: Fleet(**document)),
        DeviceStore(await documents.collection(_DEVICES), _device),
        KeyStore(await documents.collection(_KEYS)),
        CertificateStore(await documents.collection(_CERTIFICATES)),
        PresenceStore(await documents.collection(_PRESENCE), await documents.collection(_BOOTS), clock),
        BrokerStore(await documents.collection(_BROKERS)),
    )


def _device(document: Document) -> Device:
    document["keys"] = tuple(document["keys"])
    document["certificates"] = tuple(document["certificates"])
    return Device(**document)


def _key_id(device_id: str, number: int) -> str:
    return f"{device_id}/{number}"


def _without_id(document: Document) -> Document:
    return {name: value for name, value in document.items() if name != "id"}
