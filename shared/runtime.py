"""What starts services: opens what they stand on, supervises their workers, serves their health, ends them in order."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import TypeVar

import structlog
import uvloop
from aiohttp import web
from prometheus_client import Gauge, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from shared import logs
from shared.clock import SystemClock
from shared.documents.open import open_documents
from shared.http.server import internal_app, serve
from shared.http.upstreams import operations_route
from shared.ids import Ids
from shared.log.open import open_log
from shared.outage import Outage
from shared.registry import Registry
from shared.security.principal import PrincipalSigner
from shared.security.secrets import load_or_create
from shared.security.tenancy import Tenancy
from shared.service import Platform, Readiness, Service, Site, Worker
from shared.settings import Installation, Settings, WrongSetting
from shared.tasks import keep_running, pauses
from shared.watch import Watch

logger = structlog.get_logger()

S = TypeVar("S", bound=Settings)
T = TypeVar("T")

_CLOSE_S = 10.0
_LOOK_EVERY_S = 0.1

_READY = Gauge("zdm_ready", "1 when the process can take work")


@asynccontextmanager
async def open_platform(installation: Installation) -> AsyncIterator[Platform]:
    """Log, documents and secrets of the installation, opened; its registry, not yet run."""
    home = installation.home.absolute()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(
            open_log(
                installation.log_address,
                partitions=installation.log_partitions,
                replication=installation.log_replication,
            )
        )
        documents = await stack.enter_async_context(open_documents(installation.documents_address))
        secret = load_or_create(home / "secrets" / "principal.key", lambda: os.urandom(32))
        yield Platform(home, log, documents, Registry(log), clock, Ids(clock), PrincipalSigner(secret, clock))


class Health:
    """Whether the process is alive and can take work."""

    def __init__(self, platform: Platform, services: Sequence[Service], watch: Watch) -> None:
        self._checks: dict[str, Readiness] = watch.checks() | {"registry": _registry_is_read(platform.registry)}
        for service in services:
            self._checks |= {f"{service.name}.{name}": check for name, check in service.ready.items()}
        _READY.set_function(lambda: not self.waiting_for())

    def waiting_for(self) -> dict[str, str]:
        """What is not there yet: name and reason."""
        return {name: reason for name, check in self._checks.items() if (reason := check())}

    async def healthz(self, _request: web.Request) -> web.Response:
        """Alive."""
        return web.json_response({"status": "alive"})

    async def readyz(self, _request: web.Request) -> web.Response:
        """200 when it can take work; 503 names what it waits for."""
        waiting = self.waiting_for()
        status = "waiting" if waiting else "ready"
        return web.json_response({"status": status, "waiting_for": waiting}, status=503 if waiting else 200)

    def add_to(self, app: web.Application) -> None:
        """Serve both on `app`."""
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)


def _registry_is_read(registry: Registry) -> Readiness:
    def waiting_for() -> str:
        if registry.ready.is_set():
            return ""
        return "provisioning has not told of everything yet" if registry.read.is_set() else "the registry is being read"

    return waiting_for


@asynccontextmanager
async def begin(installation: Installation) -> AsyncIterator[Platform]:
    """Logging and metrics set up, and the platform open."""
    logs.configure(installation.log_level, installation.log_format)
    # When a counter was made doubles the page and says nothing that `process_start_time_seconds` does not.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    async with open_platform(installation) as platform:
        yield platform


async def run(
    installation: Installation,
    platform: Platform,
    services: Sequence[Service],
    sites: Sequence[Site] = (),
    internal: web.Application | None = None,
    greeting: str = "",
) -> None:
    """Serve and work until cancelled; then end the workers, the sites and the services, each within a deadline.

    Metrics and health are on the internal port, beside what `internal` serves there.
    """
    inside = Site(
        web.Application() if internal is None else internal,
        installation.internal_host,
        installation.internal_port,
        "ZDM_INTERNAL_PORT",
    )
    inside.app.router.add_get("/metrics", _metrics)
    watch = Watch({"log": platform.log.ping, "documents": platform.documents.ping})
    health = Health(platform, services, watch)
    async with AsyncExitStack() as stack:
        for service in services:
            if service.close is not None:
                stack.push_async_callback(_closed, service.name, service.close)
        for site in (inside, *sites):
            health.add_to(site.app)
            await stack.enter_async_context(_listening(site))
        async with asyncio.TaskGroup() as tasks:
            workers = [
                Worker("registry", platform.registry.run),
                Worker("watch", watch.run),
                *(worker for one in services for worker in one.workers),
            ]
            for worker in workers:
                tasks.create_task(keep_running(worker.name, worker.run), name=worker.name)
            tasks.create_task(_announce(health, greeting), name="announce")


@asynccontextmanager
async def _listening(site: Site) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serve(site.app, site.host, site.port))
        except OSError as error:
            complaint = f"{site.setting}: cannot listen on {site.host} port {site.port}: {error.strerror}"
            raise WrongSetting([complaint]) from error
        yield


async def _closed(name: str, close: Callable[[], Awaitable[None]]) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await close()
    except TimeoutError:
        logger.error("service_not_closed_in_time", service=name, seconds=_CLOSE_S)


async def _metrics(_request: web.Request) -> web.Response:
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _announce(health: Health, greeting: str) -> None:
    """Say once what is being waited for, when it takes a while, and once that all is ready."""
    began = asyncio.get_running_loop().time()
    said = ""
    while waiting := health.waiting_for():
        words = ", ".join(f"{name}: {reason}" for name, reason in waiting.items())
        if words != said and asyncio.get_running_loop().time() - began > 1:
            logger.info("waiting", waiting_for=words)
            said = words
        await asyncio.sleep(_LOOK_EVERY_S)
    logger.info("ready", seconds=round(asyncio.get_running_loop().time() - began, 2))
    if greeting:
        print(greeting, file=sys.stderr, flush=True)  # noqa: T201 (for the person who started it)


def start(main: Callable[[Mapping[str, str]], Awaitable[None]]) -> None:
    """Run `main` with the environment until SIGTERM or SIGINT; a wrong setting ends with status 2 and is named."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_told(main))
    except WrongSetting as wrong:
        for complaint in wrong.complaints:
            print(f"wrong setting: {complaint}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


async def _until_told(main: Callable[[Mapping[str, str]], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    working = asyncio.ensure_future(main(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, working.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await working
    logger.info("stopped")


async def made(name: str, make: Callable[[], Awaitable[T]]) -> T:
    """What `make` makes, tried until all that it needs answers."""
    return await Outage(name).outlast(make, pauses())


def run_alone(name: str, settings_type: type[S], wire: Callable[[S, Platform], Awaitable[Service]]) -> None:
    """One service as a process of its own: its workers, and its routes on the internal port for the gateway alone."""

    async def main(environment: Mapping[str, str]) -> None:
        installation, settings = Installation.load(environment), settings_type.load(environment)
        async with begin(installation) as platform:
            structlog.contextvars.bind_contextvars(service=name)
            service = await made(name, lambda: wire(settings, platform))
            told = operations_route(service.routes, version("zdevicemanager"))
            app = internal_app([*service.routes, told], platform.principals, Tenancy(platform.registry))
            await run(installation, platform, [service], internal=app)

    start(main)
