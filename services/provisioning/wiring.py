"""What provisioning is made of."""

import secrets
from functools import partial

from services.provisioning.adapters.authority import open_authority
from services.provisioning.adapters.broker_link import BrokerLink
from services.provisioning.adapters.store import open_store
from services.provisioning.domain.use_cases.credentials import DeviceCertificates, DeviceKeys, Endpoints
from services.provisioning.domain.use_cases.devices import Devices
from services.provisioning.domain.use_cases.presence import FollowPresence
from services.provisioning.domain.use_cases.telling import Telling
from services.provisioning.domain.use_cases.workspaces import Fleets, Workspaces
from services.provisioning.entrypoints.consumers import consume_accounts, consume_presence
from services.provisioning.entrypoints.http import DeviceHandlers, WorkspaceHandlers, routes
from services.provisioning.settings import ProvisioningSettings
from shared.broker_control import BrokerControl
from shared.security.secrets import load_or_create
from shared.security.tenancy import Tenancy
from shared.service import Platform, Service, Worker

USER = "zdm-provisioning"


async def wire(settings: ProvisioningSettings, platform: Platform) -> Service:
    """Certificates and the services' secret are there when this returns: the broker waits for them."""
    clock, ids, registry, log = platform.clock, platform.ids, platform.registry, platform.log
    load_or_create(platform.home / "secrets" / "broker-service.key", lambda: secrets.token_hex(32).encode())
    authority = open_authority(platform.home / "pki", settings.public_host, clock, settings.certificate_days)
    store = await open_store(platform.documents)

    telling = Telling(store.workspaces, store.fleets, store.devices, store.credentials, log)
    devices = Devices(store.devices, store.fleets, store.credentials, store.presence, telling, clock, ids)
    fleets = Fleets(store.fleets, devices, telling, clock, ids)
    workspaces = Workspaces(store.workspaces, fleets, telling, clock, ids, keys_may_make=settings.keys_make_workspaces)
    endpoints = Endpoints(settings.public_host, settings.token_port, settings.plain_port, authority.server_ca)
    keys = DeviceKeys(devices, store.devices, store.credentials, endpoints, clock, ids)
    certificates = DeviceCertificates(devices, store.credentials, authority, clock)
    link = BrokerLink(BrokerControl(USER, platform.home), log)

    tenancy = Tenancy(registry)
    return Service(
        "provisioning",
        routes=routes(
            WorkspaceHandlers(workspaces, fleets, registry),
            DeviceHandlers(devices, keys, certificates, registry, tenancy),
        ),
        workers=[
            Worker("accounts", partial(consume_accounts, log, workspaces)),
            Worker("presence", partial(consume_presence, log, FollowPresence(store.presence))),
            Worker("telling", telling.keep_telling),
            Worker("broker-link", link.run),
        ],
        ready={"broker": link.waiting_for},
    )
