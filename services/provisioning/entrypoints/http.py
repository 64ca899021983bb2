"""Workspaces, fleets, devices and their credentials over REST (spec: rest-v3 3, 4, 5, 8.3, 8.4)."""

from collections.abc import AsyncIterator, Mapping, Sequence

import orjson

from services.provisioning.domain.ports import Presences
from services.provisioning.domain.presence import Presence
from services.provisioning.domain.things import Device, Fleet, Workspace
from services.provisioning.domain.use_cases.certificates import Listed, ManageCertificates
from services.provisioning.domain.use_cases.credentials import Endpoints, IssueCredential
from services.provisioning.domain.use_cases.devices import ManageDevices
from services.provisioning.domain.use_cases.fleets import ManageFleets
from services.provisioning.domain.use_cases.workspaces import ManageWorkspaces
from services.provisioning.entrypoints.models import (
    CertificateBody,
    CertificatesAnswer,
    CertificateView,
    CredentialAnswer,
    CredentialBody,
    CredentialView,
    DeviceAnswer,
    DeviceBody,
    DeviceChange,
    DevicesAnswer,
    DeviceView,
    FleetAnswer,
    FleetsAnswer,
    FleetView,
    IssuedAnswer,
    NamedBody,
    NamedChange,
    WorkspaceAnswer,
    WorkspacesAnswer,
    WorkspaceView,
)
from services.provisioning.metrics import CERTIFICATES_ISSUED, CERTIFICATES_REVOKED, CREDENTIALS
from shared.clock import NEVER, rfc3339_ms
from shared.errors import Forbidden
from shared.http.dispatch import json_list
from shared.http.routes import Answer, Audience, Nothing, Request, Route, Stream
from shared.registry import Registry
from shared.security.principal import Kind

_CHUNK = 500
_NOBODY = Presence("", "")


class WorkspaceHandlers:
    """Parse, call, render."""

    def __init__(self, workspaces: ManageWorkspaces, registry: Registry, *, api_keys_make_workspaces: bool) -> None:
        self._workspaces = workspaces
        self._registry = registry
        self._keys_may = api_keys_make_workspaces

    async def list(self, request: Request[Nothing, Nothing]) -> Answer:
        """All of the account; with an API key, its own alone."""
        principal = request.principal
        if principal.workspace_id is not None:
            found: Sequence[Workspace] = [await self._workspaces.get(principal.workspace_id)]
        else:
            found = await self._workspaces.of_account(principal.account_id)
        return WorkspacesAnswer(workspaces=[_workspace(workspace) for workspace in found])

    async def get(self, request: Request[Nothing, Nothing]) -> Answer:
        """One."""
        return WorkspaceAnswer(workspace=_workspace(await self._workspaces.get(request.path["workspace_id"])))

    async def create(self, request: Request[NamedBody, Nothing]) -> Answer:
        """With its default fleet."""
        if request.principal.kind is Kind.API_KEY and not self._keys_may:
            raise Forbidden("An API key belongs to one workspace and may not make others; log in instead")
        made = await self._workspaces.create(
            request.principal.account_id, request.body.name, request.body.description or ""
        )
        return WorkspaceAnswer(workspace=_workspace(made))

    async def change(self, request: Request[NamedChange, Nothing]) -> Answer:
        """Name, description."""
        changed = await self._workspaces.change(
            request.path["workspace_id"], request.body.name, request.body.description
        )
        await self._registry.settled()
        return WorkspaceAnswer(workspace=_workspace(changed))

    async def delete(self, request: Request[Nothing, Nothing]) -> Answer:
        """With all that is in it."""
        await self._workspaces.delete(request.path["workspace_id"])
        return Nothing()


class FleetHandlers:
    """Parse, call, render."""

    def __init__(self, fleets: ManageFleets, registry: Registry) -> None:
        self._fleets = fleets
        self._registry = registry

    async def list(self, request: Request[Nothing, Nothing]) -> Answer:
        """All of the workspace."""
        found = await self._fleets.of_workspace(request.path["workspace_id"])
        return FleetsAnswer(fleets=[_fleet(fleet) for fleet in found])

    async def get(self, request: Request[Nothing, Nothing]) -> Answer:
        """One."""
        return FleetAnswer(fleet=_fleet(await self._fleets.get(request.path["workspace_id"], request.path["fleet_id"])))

    async def create(self, request: Request[NamedBody, Nothing]) -> Answer:
        """A new one."""
        body = request.body
        made = await self._fleets.create(request.path["workspace_id"], body.name, body.description or "")
        return FleetAnswer(fleet=_fleet(made))

    async def change(self, request: Request[NamedChange, Nothing]) -> Answer:
        """Name, description."""
        path, body = request.path, request.body
        changed = await self._fleets.change(path["workspace_id"], path["fleet_id"], body.name, body.description)
        await self._registry.settled()
        return FleetAnswer(fleet=_fleet(changed))

    async def delete(self, request: Request[Nothing, Nothing]) -> Answer:
        """Unless it is the last or has devices."""
        await self._fleets.delete(request.path["workspace_id"], request.path["fleet_id"])
        return Nothing()


class DeviceHandlers:
    """Parse, call, render."""

    def __init__(
        self,
        devices: ManageDevices,
        workspaces: ManageWorkspaces,
        fleets: ManageFleets,
        presences: Presences,
        registry: Registry,
    ) -> None:
        self._devices = devices
        self._workspaces = workspaces
        self._fleets = fleets
        self._presences = presences
        self._registry = registry

    async def list(self, request: Request[Nothing, Nothing]) -> Answer:
        """All of the workspace, however many."""
        return Stream(json_list(b'{"devices":[', self._rendered(request.path["workspace_id"]), b"]}"))

    async def get(self, request: Request[Nothing, Nothing]) -> Answer:
        """One."""
        return await self._answer(await self._devices.get(request.path["device_id"]))

    async def create(self, request: Request[DeviceBody, Nothing]) -> Answer:
        """A new one."""
        body = request.body
        made = await self._devices.create(request.path["workspace_id"], body.name, body.fleet_id, body.phys_id or "")
        return await self._answer(made)

    async def change(self, request: Request[DeviceChange, Nothing]) -> Answer:
        """Name, fleet, whether it may connect."""
        body = request.body
        changed = await self._devices.change(
            request.path["device_id"],
            name=body.name,
            fleet_id=body.fleet_id,
            enabled=body.enabled,
            phys_id=body.phys_id,
        )
        return await self._answer(changed)

    async def delete(self, request: Request[Nothing, Nothing]) -> Answer:
        """With its credentials; its session is cut."""
        await self._devices.delete(request.path["device_id"])
        return Nothing()

    async def _answer(self, device: Device) -> Answer:
        presence = await self._presences.get(device.id)
        return DeviceAnswer(device=await self._view(device, presence, await self._presences.boots()))

    async def _rendered(self, workspace_id: str) -> AsyncIterator[bytes]:
        chunk: list[Device] = []
        async for device in self._devices.of_workspace(workspace_id):
            chunk.append(device)
            if len(chunk) == _CHUNK:
                for item in await self._items(chunk):
                    yield item
                chunk = []
        for item in await self._items(chunk):
            yield item

    async def _items(self, devices: Sequence[Device]) -> Sequence[bytes]:
        known = await self._presences.get_many([device.id for device in devices])
        boots = await self._presences.boots()
        views = [await self._view(device, known.get(device.id), boots) for device in devices]
        return [orjson.dumps(view.model_dump()) for view in views]

    async def _view(self, device: Device, presence: Presence | None, boots: Mapping[str, int]) -> DeviceView:
        seen = presence or _NOBODY
        return DeviceView(
            id=device.id,
            name=device.name,
            account_id=device.account_id,
            fleet_id=device.fleet_id,
            fleet_name=await self._fleet_name(device),
            workspace_id=device.workspace_id,
            workspace_name=await self._workspace_name(device),
            created_at=device.created_at,
            phys_id=device.phys_id,
            identities=None,
            enabled=device.enabled,
            is_connected=seen.is_connected(boots.get(seen.spool, 0)),
            last_connected_at=_moment(seen.connected_at),
            last_seen_at=_moment(seen.seen_at),
            remote_address=seen.remote_address,
        )

    async def _fleet_name(self, device: Device) -> str:
        if (entry := self._registry.fleet(device.fleet_id)) is not None:
            return entry.name
        return (await self._fleets.get(device.workspace_id, device.fleet_id)).name

    async def _workspace_name(self, device: Device) -> str:
        if (entry := self._registry.workspace(device.workspace_id)) is not None:
            return entry.name
        return (await self._workspaces.get(device.workspace_id)).name


class CredentialHandlers:
    """Parse, call, render."""

    def __init__(self, issue: IssueCredential, endpoints: Endpoints, certificates: ManageCertificates) -> None:
        self._issue = issue
        self._endpoints = endpoints
        self._certificates = certificates

    async def create(self, request: Request[CredentialBody, Nothing]) -> Answer:
        """A new key."""
        body = request.body
        endpoint = self._endpoints.insecure() if body.endpoint_mode == "insecure" else self._endpoints.secure()
        made = await self._issue(
            request.path["device_id"], body.mode, body.kind, endpoint, revoke_previous=body.revoke_previous or False
        )
        CREDENTIALS.labels(body.mode.value, body.kind.value).inc()
        return CredentialAnswer(credential=CredentialView.model_validate(made))

    async def sign(self, request: Request[CertificateBody, Nothing]) -> Answer:
        """A client certificate."""
        issued = await self._certificates.issue(request.path["device_id"], request.body.csr)
        CERTIFICATES_ISSUED.inc()
        return IssuedAnswer(
            certificate=issued.pem, chain=issued.chain, serial=issued.serial, expire_at=rfc3339_ms(issued.expires_at)
        )

    async def certificates(self, request: Request[Nothing, Nothing]) -> Answer:
        """Revoked ones too."""
        found = await self._certificates.of_device(request.path["device_id"])
        return CertificatesAnswer(certificates=[_certificate(listed) for listed in found])

    async def revoke(self, request: Request[Nothing, Nothing]) -> Answer:
        """Counts no longer; a session that it opened is cut."""
        await self._certificates.revoke(request.path["device_id"], request.path["serial"].lower())
        CERTIFICATES_REVOKED.inc()
        return Nothing()


def routes(
    workspaces: WorkspaceHandlers, fleets: FleetHandlers, devices: DeviceHandlers, credentials: CredentialHandlers
) -> list[Route]:
    """All of them, by audience."""
    every, one = "/v3/workspaces", "/v3/workspaces/{workspace_id}"
    all_fleets, fleet = f"{one}/fleets", f"{one}/fleets/{{fleet_id}}"
    all_devices, device = f"{one}/devices", f"{one}/devices/{{device_id}}"
    keys, short = f"{device}/credentials", ("/v3/devices/{device_id}/credentials",)
    certificates, certificate = f"{device}/certificates", f"{device}/certificates/{{serial}}"
    sign = credentials.sign
    return [
        # Sessions only: a key would delete what it belongs to.
        Route("DELETE", one, workspaces.delete, "Delete a workspace and all in it", audience=Audience.USER),
        # Sessions and API keys.
        Route("GET", every, workspaces.list, "List workspaces", WorkspacesAnswer),
        Route("POST", every, workspaces.create, "Make a workspace", WorkspaceAnswer, NamedBody),
        Route("GET", one, workspaces.get, "Get a workspace", WorkspaceAnswer),
        Route("PUT", one, workspaces.change, "Change a workspace", WorkspaceAnswer, NamedChange),
        Route("GET", all_fleets, fleets.list, "List fleets", FleetsAnswer),
        Route("POST", all_fleets, fleets.create, "Make a fleet", FleetAnswer, NamedBody),
        Route("GET", fleet, fleets.get, "Get a fleet", FleetAnswer),
        Route("PUT", fleet, fleets.change, "Change a fleet", FleetAnswer, NamedChange),
        Route("DELETE", fleet, fleets.delete, "Delete an empty fleet"),
        Route("GET", all_devices, devices.list, "List devices", DevicesAnswer),
        Route("POST", all_devices, devices.create, "Make a device", DeviceAnswer, DeviceBody),
        Route("GET", device, devices.get, "Get a device", DeviceAnswer),
        Route("PUT", device, devices.change, "Change, move, disable or enable a device", DeviceAnswer, DeviceChange),
        Route("DELETE", device, devices.delete, "Delete a device and its credentials"),
        Route("POST", keys, credentials.create, "Make a zdevice.json", CredentialAnswer, CredentialBody, aliases=short),
        Route("GET", certificates, credentials.certificates, "List client certificates", CertificatesAnswer),
        Route("POST", certificates, sign, "Sign a client certificate", IssuedAnswer, CertificateBody),
        Route("DELETE", certificate, credentials.revoke, "Revoke a client certificate"),
    ]


def _workspace(workspace: Workspace) -> WorkspaceView:
    return WorkspaceView(
        id=workspace.id,
        name=workspace.name,
        account_id=workspace.account_id,
        description=workspace.description,
        created_at=workspace.created_at,
    )


def _fleet(fleet: Fleet) -> FleetView:
    return FleetView(
        id=fleet.id,
        name=fleet.name,
        description=fleet.description,
        account_id=fleet.account_id,
        workspace_id=fleet.workspace_id,
        created_at=fleet.created_at,
    )


def _certificate(listed: Listed) -> CertificateView:
    certificate = listed.certificate
    return CertificateView(
        serial=certificate.serial,
        fingerprint=certificate.fingerprint,
        certificate=certificate.pem,
        revoked=listed.revoked,
        created_at=certificate.created_at,
        expire_at=rfc3339_ms(certificate.expires_at),
    )


def _moment(ms: int) -> str:
    return rfc3339_ms(ms) if ms else NEVER
