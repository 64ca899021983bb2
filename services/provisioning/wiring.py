"""What provisioning is made of."""

import asyncio
import secrets
from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from services.provisioning.adapters import pki
from services.provisioning.adapters.authority import DeviceAuthority
from services.provisioning.adapters.broker_link import BrokerLink, BrokerLinks
from services.provisioning.adapters.keymaker import RandomKeymaker
from services.provisioning.adapters.store import Store, open_store
from services.provisioning.domain.use_cases.certificates import ManageCertificates
from services.provisioning.domain.use_cases.credentials import Endpoints, IssueCredential
from services.provisioning.domain.use_cases.devices import ManageDevices
from services.provisioning.domain.use_cases.fleets import ManageFleets
from services.provisioning.domain.use_cases.note_presence import NotePresence
from services.provisioning.domain.use_cases.tell import Tell
from services.provisioning.domain.use_cases.tell_anew import TellAnew
from services.provisioning.domain.use_cases.tell_the_rest import TellTheRest
from services.provisioning.domain.use_cases.workspaces import ManageWorkspaces
from services.provisioning.entrypoints.consumers import (
    consume_accounts,
    consume_presence,
    tell_periodically,
)
from services.provisioning.entrypoints.http import (
    CredentialHandlers,
    DeviceHandlers,
    FleetHandlers,
    WorkspaceHandlers,
    routes,
)
from services.provisioning.metrics import DEVICES
from services.provisioning.settings import ProvisioningSettings
from shared.broker_control import BrokerControl
from shared.brokers import Broker
from shared.security.secrets import load_or_create
from shared.service import Platform, Service, Worker

_USER = "zdm-provisioning"


async def wire(settings: ProvisioningSettings, platform: Platform) -> Service:
    """Certificates and secrets that the broker needs to start are in place when this returns."""
    home, log, registry, clock, ids = platform.home, platform.log, platform.registry, platform.clock, platform.ids
    brokers = [Broker(home, name) for name in settings.brokers]
    await asyncio.to_thread(_make_secrets, brokers)
    made = await asyncio.to_thread(pki.prepare, home / "pki", settings.public_host, clock.now())
    store = await open_store(platform.documents, clock)
    workspaces, fleets, devices, keys, certificates, presences, _ = store
    links = BrokerLinks(_link(broker, platform, store) for broker in brokers)
    tell = Tell(workspaces, fleets, devices, keys, certificates, presences, log)
    manage_workspaces = ManageWorkspaces(workspaces, fleets, devices, tell, clock, ids)
    manage_fleets = ManageFleets(workspaces, fleets, devices, tell, clock, ids)
    manage_devices = ManageDevices(workspaces, fleets, devices, tell, links, clock, ids)
    issue = IssueCredential(devices, keys, RandomKeymaker(), tell, links, made.server_authority, clock, ids)
    authority = DeviceAuthority(made.device_authority, timedelta(days=settings.device_certificate_days), clock)
    manage_certificates = ManageCertificates(devices, certificates, authority, tell, links, clock)
    endpoints = Endpoints(settings.public_host, settings.token_port, settings.plain_port)
    rest = TellTheRest(workspaces, fleets, devices, tell, manage_workspaces)
    anew = TellAnew(registry, workspaces, fleets, devices, tell, log)
    DEVICES.set_function(lambda: len(registry.devices))
    return Service(
        "provisioning",
        routes(
            WorkspaceHandlers(manage_workspaces, registry, api_keys_make_workspaces=settings.api_keys_make_workspaces),
            FleetHandlers(manage_fleets, registry),
            DeviceHandlers(manage_devices, manage_workspaces, manage_fleets, presences, registry),
            CredentialHandlers(issue, endpoints, manage_certificates),
        ),
        workers=[
            Worker("provisioning-accounts", partial(consume_accounts, log, manage_workspaces)),
            Worker(
                "provisioning-presence", partial(consume_presence, log, registry, NotePresence(presences, registry))
            ),
            Worker("provisioning-tell", partial(tell_periodically, anew, rest)),
            *(Worker(f"provisioning-{link.name}", link.run) for link in links),
        ],
        ready={link.name: link.waiting_for for link in links},
    )


def _link(broker: Broker, platform: Platform, store: Store) -> BrokerLink:
    lock = broker.folder / "provisioning.lock"
    control = BrokerControl(_USER, broker)
    return BrokerLink(broker.name, control, lock, platform.log, platform.registry, store.brokers, platform.clock)


def _make_secrets(brokers: Iterable[Broker]) -> None:
    for broker in brokers:
        load_or_create(broker.secret, lambda: secrets.token_hex(32).encode())
