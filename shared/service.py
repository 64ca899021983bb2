"""The shape of a service: what its `wiring.py` returns, and what whoever starts it provides."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from shared.clock import Clock
from shared.documents import Documents
from shared.http.routes import Route
from shared.ids import Ids
from shared.log import Log
from shared.registry import Registry
from shared.security.principal import PrincipalSigner


@dataclass(frozen=True)
class Platform:
    """What every service stands on; in the embedded profile they share it."""

    home: Path  # $ZDM_HOME
    log: Log
    documents: Documents
    registry: Registry
    clock: Clock
    ids: Ids
    principals: PrincipalSigner


@dataclass(frozen=True)
class Site:
    """An application and where it listens; `setting` names the variable that says the port."""

    app: web.Application
    host: str
    port: int
    setting: str


@dataclass(frozen=True)
class Worker:
    """A task that runs as long as its service. Restarted with back-off when it fails, which is logged and counted."""

    name: str
    run: Callable[[], Awaitable[None]]


# Empty when ready, else what it waits for.
Readiness = Callable[[], str]


@dataclass(frozen=True)
class Service:
    """A service made but not started. `ready` names things that must be there before it can take work."""

    name: str
    routes: Sequence[Route] = ()
    workers: Sequence[Worker] = ()
    ready: Mapping[str, Readiness] = field(default_factory=dict)
    close: Callable[[], Awaitable[None]] | None = None  # after the workers have ended
