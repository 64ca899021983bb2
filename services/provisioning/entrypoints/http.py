"""Provisioning's operations (spec: rest-v3 3, 4, 5, 8.3, 8.4)."""

from services.provisioning.domain.things import Device
from services.provisioning.domain.use_cases.credentials import DeviceCertificates, DeviceKeys
from services.provisioning.domain.use_cases.devices import Devices
from services.provisioning.domain.use_cases.workspaces import Fleets, Workspaces
from services.provisioning.entrypoints.views import (
    CertificateBody,
    CertificatesAnswer,
    CertificateView,
    CredentialAnswer,
    CredentialBody,
    DeviceAnswer,
    DeviceBody,
    DeviceChange,
    DevicesAnswer,
    DeviceView,
    FleetAnswer,
    FleetsAnswer,
    FleetView,
    NameBody,
    NameChange,
    NewCertificateAnswer,
    WorkspaceAnswer,
    WorkspacesAnswer,
    WorkspaceView,
)
from shared.http.routes import Answer, Nothing, Request, Route
from shared.registry import Registry
from shared.security.tenancy import Tenancy

_None = Request[Nothing, Nothing]


class WorkspaceHandlers:
    """Workspaces and fleets."""

    def __init__(self, workspaces: Workspaces, fleets: Fleets, registry: Registry) -> None:
        self._workspaces = workspaces
        self._fleets = fleets
        self._registry = registry

    async def list_workspaces(self, request: _None) -> Answer:
        """The caller's."""
        found = await self._workspaces.of(request.principal)
        return WorkspacesAnswer(workspaces=[WorkspaceView.of(one) for one in found])

    async def get_workspace(self, request: _None) -> Answer:
        """One."""
        return _workspace(WorkspaceView.of(await self._workspaces.get(request.path["workspace_id"])))

    async def create_workspace(self, request: Request[NameBody, Nothing]) -> Answer:
        """With its default fleet."""
        body = request.body
        return _workspace(
            WorkspaceView.of(await self._workspaces.create(request.principal, body.name, body.description or ""))
        )

    async def change_workspace(self, request: Request[NameChange, Nothing]) -> Answer:
        """Rename or describe."""
        body, identifier = request.body, request.path["workspace_id"]
        return _workspace(WorkspaceView.of(await self._workspaces.change(identifier, body.name, body.description)))

    async def delete_workspace(self, request: _None) -> Answer:
        """With all that is in it."""
        return _workspace(WorkspaceView.of(await self._workspaces.delete(request.path["workspace_id"])))

    async def list_fleets(self, request: _None) -> Answer:
        """Of a workspace."""
        found = await self._fleets.of(request.path["workspace_id"])
        return FleetsAnswer(fleets=[FleetView.of(one) for one in found])

    async def get_fleet(self, request: _None) -> Answer:
        """One."""
        return FleetAnswer(fleet=FleetView.of(await self._fleets.get(request.path["fleet_id"])))

    async def create_fleet(self, request: Request[NameBody, Nothing]) -> Answer:
        """A new one."""
        workspace = self._registry.workspace(request.path["workspace_id"])
        account_id = workspace.account_id if workspace else request.principal.account_id
        body = request.body
        fleet = await self._fleets.create(account_id, request.path["workspace_id"], body.name, body.description or "")
        return FleetAnswer(fleet=FleetView.of(fleet))

    async def change_fleet(self, request: Request[NameChange, Nothing]) -> Answer:
        """Rename or describe."""
        body = request.body
        changed = await self._fleets.change(request.path["fleet_id"], body.name, body.description)
        return FleetAnswer(fleet=FleetView.of(changed))

    async def delete_fleet(self, request: _None) -> Answer:
        """An empty one that is not the last."""
        return FleetAnswer(fleet=FleetView.of(await self._fleets.delete(request.path["fleet_id"])))


class DeviceHandlers:
    """Devices and what they prove themselves with."""

    def __init__(
        self,
        devices: Devices,
        keys: DeviceKeys,
        certificates: DeviceCertificates,
        registry: Registry,
        tenancy: Tenancy,
    ) -> None:
        self._devices = devices
        self._keys = keys
        self._certificates = certificates
        self._registry = registry
        self._tenancy = tenancy

    async def list_devices(self, request: _None) -> Answer:
        """Of a workspace."""
        found = await self._devices.of_workspace(request.path["workspace_id"])
        presence = await self._devices.presence(found)
        return DevicesAnswer(devices=[DeviceView.of(one, presence[one.id], self._registry) for one in found])

    async def get_device(self, request: _None) -> Answer:
        """One."""
        return await self._answer(await self._devices.get(request.path["device_id"]))

    async def create_device(self, request: Request[DeviceBody, Nothing]) -> Answer:
        """In the given fleet or the default one."""
        workspace_id, fleet_id = request.path["workspace_id"], request.body.fleet_id
        if fleet_id is not None:
            await self._tenancy.fleet(request.principal, fleet_id, workspace_id)
        device = await self._devices.create(request.principal.account_id, workspace_id, request.body.name, fleet_id)
        return await self._answer(device)

    async def change_device(self, request: Request[DeviceChange, Nothing]) -> Answer:
        """Rename, move, switch."""
        body = request.body
        if body.fleet_id is not None:
            await self._tenancy.fleet(request.principal, body.fleet_id, request.path["workspace_id"])
        changed = await self._devices.change(
            request.path["device_id"], name=body.name, fleet_id=body.fleet_id, enabled=body.enabled
        )
        return await self._answer(changed)

    async def delete_device(self, request: _None) -> Answer:
        """Cut off, and forgotten."""
        device = await self._devices.get(request.path["device_id"])
        answer = await self._answer(device)
        await self._devices.delete(device.id)
        return answer

    async def create_credential(self, request: Request[CredentialBody, Nothing]) -> Answer:
        """A new `zdevice.json`."""
        body = request.body
        document = await self._keys.issue(
            request.path["device_id"],
            body.provision_mode,
            body.endpoint_mode,
            # The server signs a cloud token itself, with a key that it keeps.
            "ES256" if body.key_type == "asym" and body.provision_mode == "device_token" else "HS256",
            revoke_previous=body.revoke_previous,
        )
        return CredentialAnswer(credential=document)

    async def create_certificate(self, request: Request[CertificateBody, Nothing]) -> Answer:
        """Signed by the device CA."""
        issued = await self._certificates.issue(request.path["device_id"], request.body.csr)
        return NewCertificateAnswer(
            certificate=issued.certificate, chain=issued.chain, serial=issued.serial, expire_at=issued.expire_at
        )

    async def list_certificates(self, request: _None) -> Answer:
        """Of a device."""
        found = await self._certificates.of(request.path["device_id"])
        return CertificatesAnswer(certificates=[CertificateView.of(one) for one in found])

    async def delete_certificate(self, request: _None) -> Answer:
        """Revoked."""
        await self._certificates.revoke(request.path["device_id"], request.path["serial"])
        return Nothing()

    async def _answer(self, device: Device) -> Answer:
        presence = await self._devices.presence([device])
        await self._named(device)
        return DeviceAnswer(device=DeviceView.of(device, presence[device.id], self._registry))

    async def _named(self, device: Device) -> None:
        """Its fleet may be so new that the registry has yet to hear of it."""
        if self._registry.fleet(device.fleet_id) is None:
            await self._registry.settled()


def routes(workspaces: WorkspaceHandlers, devices: DeviceHandlers) -> list[Route]:
    """All for members: a session or an API key."""
    all_workspaces, workspace = "/v3/workspaces", "/v3/workspaces/{workspace_id}"
    all_fleets, fleet = f"{workspace}/fleets", workspace + "/fleets/{fleet_id}"
    all_devices, device = f"{workspace}/devices", workspace + "/devices/{device_id}"
    certificates, certificate = f"{device}/certificates", device + "/certificates/{serial}"
    credentials, short = f"{device}/credentials", ("/v3/devices/{device_id}/credentials",)
    w, d = workspaces, devices
    return [
        Route("GET", all_workspaces, w.list_workspaces, "List the workspaces", WorkspacesAnswer),
        Route("POST", all_workspaces, w.create_workspace, "Make a workspace", WorkspaceAnswer, NameBody),
        Route("GET", workspace, w.get_workspace, "Get a workspace", WorkspaceAnswer),
        Route("PUT", workspace, w.change_workspace, "Change a workspace", WorkspaceAnswer, NameChange),
        Route("DELETE", workspace, w.delete_workspace, "Delete a workspace and all in it", WorkspaceAnswer),
        Route("GET", all_fleets, w.list_fleets, "List the fleets", FleetsAnswer),
        Route("POST", all_fleets, w.create_fleet, "Make a fleet", FleetAnswer, NameBody),
        Route("GET", fleet, w.get_fleet, "Get a fleet", FleetAnswer),
        Route("PUT", fleet, w.change_fleet, "Change a fleet", FleetAnswer, NameChange),
        Route("DELETE", fleet, w.delete_fleet, "Delete an empty fleet", FleetAnswer),
        Route("GET", all_devices, d.list_devices, "List the devices", DevicesAnswer),
        Route("POST", all_devices, d.create_device, "Make a device", DeviceAnswer, DeviceBody),
        Route("GET", device, d.get_device, "Get a device", DeviceAnswer),
        Route("PUT", device, d.change_device, "Rename, move or switch a device", DeviceAnswer, DeviceChange),
        Route("DELETE", device, d.delete_device, "Delete a device", DeviceAnswer),
        Route(
            "POST",
            credentials,
            d.create_credential,
            "Make a zdevice.json",
            CredentialAnswer,
            CredentialBody,
            aliases=short,
        ),
        Route("GET", certificates, d.list_certificates, "List a device's certificates", CertificatesAnswer),
        Route("POST", certificates, d.create_certificate, "Sign a certificate", NewCertificateAnswer, CertificateBody),
        Route("DELETE", certificate, d.delete_certificate, "Revoke a certificate"),
    ]


def _workspace(view: WorkspaceView) -> Answer:
    return WorkspaceAnswer(workspace=view)
