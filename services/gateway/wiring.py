"""What the gateway is made of."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import structlog

from services.gateway.adapters.store import open_store
from services.gateway.domain.use_cases.api_keys import ApiKeys
from services.gateway.domain.use_cases.authenticate import Authenticate
from services.gateway.domain.use_cases.first_account import FirstAccount
from services.gateway.domain.use_cases.key_uses import KeyUses
from services.gateway.domain.use_cases.login import Login, Logout
from services.gateway.entrypoints.door import Door
from services.gateway.entrypoints.http import Handlers, routes
from services.gateway.settings import GatewaySettings
from shared.http.routes import Route
from shared.http.upstreams import Remote
from shared.security.passwords import Passwords
from shared.security.tenancy import Tenancy
from shared.service import Platform, Service, Site, Worker

logger = structlog.get_logger()


class Gateway(NamedTuple):
    """The service, and where the outside reaches it."""

    service: Service
    site: Site


async def wire(settings: GatewaySettings, platform: Platform, others: Sequence[Route] = ()) -> Gateway:
    """`others`: the routes of services in this process; those in other processes are in the settings."""
    store, passwords, clock = await open_store(platform.documents), Passwords(), platform.clock
    first = FirstAccount(store.accounts, passwords, platform.log, clock, platform.ids, platform.home)
    password = settings.admin_password.get_secret_value() if settings.admin_password else None
    if (note := await first(settings.admin_email, password)) is not None:
        logger.info("first_login_written", path=str(note))
    uses = KeyUses(store.keys, clock)
    authenticate = Authenticate(store.sessions, store.keys, uses, platform.registry, clock)
    login = Login(store.accounts, store.sessions, passwords, clock, settings.session_days)
    keys = ApiKeys(store.keys, authenticate, clock, platform.ids)
    own = routes(Handlers(store.accounts, login, Logout(store.sessions, authenticate), keys))
    remotes = [Remote(name, url, platform.principals) for name, url in settings.upstreams.items()]
    tenancy = Tenancy(platform.registry)
    door = Door([*own, *others], remotes, authenticate, tenancy, settings.trusted_proxies)

    async def close() -> None:
        for remote in remotes:
            await remote.close()

    service = Service(
        "gateway",
        workers=[
            Worker("gateway-key-uses", uses.run),
            *(Worker(f"gateway-discover-{remote.name}", partial(remote.discover, door.learn)) for remote in remotes),
        ],
        ready={remote.name: remote.waiting_for for remote in remotes},
        close=close,
    )
    return Gateway(service, Site(door.app(), settings.http_host, settings.http_port, "ZDM_HTTP_PORT"))
