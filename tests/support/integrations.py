"""Integrations as it runs, over a real log and documents, with REST in front of it.

`python -m tests.support.integrations HOME` runs it as a process of its own, which may be killed.
"""

import asyncio
import dataclasses
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from services.integrations.adapters.store import Store, open_store
from services.integrations.adapters.webhook import Webhook
from services.integrations.domain.ports import Sink
from services.integrations.domain.queue import Lane
from services.integrations.domain.use_cases.deliver import Deliver
from services.integrations.domain.use_cases.sweep import Sweep
from services.integrations.domain.verdict import BackOff
from services.integrations.entrypoints.consumer import GROUP
from services.integrations.settings import IntegrationsSettings
from services.integrations.wiring import wire
from shared.clock import SystemClock
from shared.documents import Documents, Schema, every
from shared.ids import Ids
from shared.messages.devices import DataReceived
from shared.messages.registry import RegistryEntry
from shared.messages.topics import DATA
from shared.outbound.client import Outbound
from shared.outbound.policy import OutboundPolicy
from shared.security.principal import Kind, Principal
from shared.service import Platform, Service
from tests.support.http import Answer, Server, running_platform, serving_routes, workspace
from tests.support.waiting import eventually
from tests.support.workers import at_work

WORKSPACE, OTHER = "wks-1", "wks-2"
DEVICE = "dev-000000000001"
SPOOL = "00112233445566ff"
PATH = f"/v3/workspaces/{WORKSPACE}/integrations"
PATIENCE = {
    # The receivers of tests are on this machine, and wait for nobody.
    "ZDM_OUTBOUND_ALLOW": "127.0.0.0/8",
    "ZDM_WEBHOOK_FIRST_PAUSE_S": "0.01",
    "ZDM_WEBHOOK_LONGEST_PAUSE_S": "0.02",
}


class MovableClock(SystemClock):
    """The machine's clock, put forward."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return super().ms() + self.ahead_ms


def fleet(identifier: str, workspace_id: str, account_id: str) -> RegistryEntry:
    """A fleet as provisioning would tell of it."""
    return RegistryEntry(
        kind="fleet",
        id=identifier,
        account_id=account_id,
        workspace_id=workspace_id,
        fleet_id=identifier,
        name=identifier,
        revision=1,
    )


ENTRIES = (
    workspace(WORKSPACE, "acc-1"),
    workspace(OTHER, "acc-2"),
    fleet("flt-1", WORKSPACE, "acc-1"),
    fleet("flt-2", WORKSPACE, "acc-1"),
    fleet("flt-9", OTHER, "acc-2"),
)


class Integrations:
    """The service, what it stands on, and ways to look into it."""

    def __init__(self, platform: Platform, service: Service, store: Store, server: Server, number: int) -> None:
        self.platform = platform
        self.service = service
        self.store = store
        self.server = server
        self.number = number

    async def ask(self, method: str, path: str = "", body: Any = None) -> Answer:
        """REST below the workspace's integrations; whatever comes back."""
        return await self.server.ask(method, PATH + path, json=body)

    async def call(self, method: str, path: str = "", body: Any = None) -> Any:
        """The JSON of a 200."""
        answer = await self.ask(method, path, body)
        assert answer.status == 200, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.json

    async def create(self, url: str, **more: Any) -> Any:
        """A new integration."""
        token = {"token": more.pop("token")} if "token" in more else {}
        body = {"name": "hook", "subtype_configuration": {"url": url, **token}, **more}
        return (await self.call("POST", "", body))["integration"]

    async def change(self, identifier: str, **changes: Any) -> Any:
        """A changed integration."""
        return (await self.call("PUT", f"/{identifier}", changes))["integration"]

    async def statistics(self, identifier: str) -> Any:
        """How its queue stands."""
        return (await self.call("GET", f"/{identifier}"))["integration"]["statistics"]

    async def logs(self, identifier: str) -> Any:
        """Its error log."""
        return (await self.call("GET", f"/{identifier}/logs"))["logs"]

    def point(self, content: Any = None, **more: Any) -> DataReceived:
        """What ingestion would say of the next message."""
        self.number += 1
        at = self.platform.clock.ms()
        return DataReceived(
            id=f"{SPOOL}-{self.number:016x}",
            workspace_id=WORKSPACE,
            fleet_id="flt-1",
            device_id=DEVICE,
            device_name="filler-01",
            tag="env",
            timestamp_device=at,
            timestamp_in=at,
            payload=orjson.dumps(content).decode(),
        )._replace(**more)

    async def receive(self, *points: DataReceived) -> None:
        """Put points into the log."""
        await self.platform.log.append(DATA, [point.record() for point in points])

    async def take_in(self, *payloads: Any, **more: Any) -> None:
        """Put points of these payloads into the log."""
        await self.receive(*(self.point(payload, **more) for payload in payloads))

    async def waiting(self, identifier: str, count: int) -> None:
        """Wait until so many points wait."""

        async def look() -> bool:
            return bool((await self.statistics(identifier))["waiting"] == count)

        await eventually(look, every_s=0.01)

    async def delivered(self, identifier: str, count: int) -> None:
        """Wait until so many points are delivered and marked so."""

        async def look() -> bool:
            return bool((await self.statistics(identifier))["delivered"] == count)

        await eventually(look, every_s=0.01)

    async def kept(self) -> dict[str, int]:
        """How many documents there are of each kind."""
        counts = {}
        for kind in ("integrations", "lanes", "chunks", "points", "failures"):
            counts[kind] = await (await self.platform.documents.collection(Schema(f"integrations_{kind}"))).count()
        return counts

    def sweep(self) -> Sweep:
        """The sweep, run when asked."""
        return Sweep(self.store.integrations, self.store.queues, self.platform.registry, self.platform.clock)


@asynccontextmanager
async def integrations(
    home: Path,
    *,
    clock: SystemClock | None = None,
    documents: Documents | None = None,
    working: bool = True,
    **environment: str,
) -> AsyncIterator[Integrations]:
    """Integrations at work."""
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(running_platform(home, *ENTRIES))
        clock = clock or SystemClock()
        platform = dataclasses.replace(platform, clock=clock, ids=Ids(clock))
        store = await open_store(platform.documents, platform.clock)
        if documents is not None:
            platform = dataclasses.replace(platform, documents=documents)
        service = await wire(IntegrationsSettings.load({**PATIENCE, **environment}), platform)
        caller = Principal(Kind.SESSION, "acc-1", None)
        server = await stack.enter_async_context(serving_routes(platform, service.routes, caller))
        ends = await platform.log.end(DATA)
        one = Integrations(platform, service, store, server, 1000 * (1 + max(ends.values(), default=-1)))
        if working:
            await stack.enter_async_context(at_work(service))
        yield one


class Steps:
    """A lane, driven step by step in place of the dispatcher."""

    def __init__(self, one: Integrations, identifier: str, sink: Sink, first_s: float, longest_s: float) -> None:
        self._one = one
        self._identifier = identifier
        clock, store = one.platform.clock, one.store
        back_off = BackOff(first_s, longest_s)
        self._deliver = Deliver(store.queues, store.failures, sink, back_off, clock, Ids(clock), 90)

    async def lane(self) -> Lane:
        """As kept, once the dispatcher has it: later it would take it out of our hands."""

        async def look() -> Lane | None:
            (lane,) = await self._one.store.queues.lanes_of(self._identifier)
            return lane if lane.owner else None

        lane = await eventually(look)
        assert lane is not None
        return lane

    async def step(self) -> float | None:
        """One step; its pause."""
        integration = await self._one.store.integrations.get(WORKSPACE, self._identifier)
        assert integration is not None
        return (await self._deliver(integration, await self.lane())).pause_s

    async def expire(self) -> Lane:
        """Drop what is too old."""
        return await self._deliver.expire(await self.lane())


@asynccontextmanager
async def steps(
    one: Integrations, identifier: str, first_s: float = 1.0, longest_s: float = 300.0
) -> AsyncIterator[Steps]:
    """Step the lane of an integration that is disabled: its points are queued, and nobody else sends them."""
    settings = IntegrationsSettings.load(PATIENCE)
    outbound = Outbound(OutboundPolicy(settings.outbound_allow), one.platform.clock, 5.0)
    try:
        yield Steps(one, identifier, Webhook(outbound, one.platform.clock), first_s, longest_s)
    finally:
        await outbound.close()


async def committed(one: Integrations) -> None:
    """Wait until all that is in the log has been queued."""
    end = max((await one.platform.log.end(DATA)).values())

    async def look() -> bool:
        return bool(await one.platform.log.committed(DATA, GROUP) >= end)  # type: ignore[attr-defined]

    await eventually(look, every_s=0.01)


async def documents_of(one: Integrations, kind: str) -> list[Any]:
    """Documents as kept."""
    return await every(await one.platform.documents.collection(Schema(f"integrations_{kind}")))


async def _run(home: Path) -> None:
    async with running_platform(home) as platform:
        settings = IntegrationsSettings.load(os.environ)
        async with at_work(await wire(settings, platform)):
            print("at work", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))
