"""Devices that send numbered messages while things are killed, and the reckoning afterwards."""

import asyncio
import ssl
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from time import monotonic
from typing import Any

import aiohttp

from deploy.simulator.device import ConnectionRefused, Device, tls_context
from deploy.simulator.receiver import receiving
from tests.support.ports import free_ports
from tests.support.system import Installation, Rest, default_workspace, new_device
from tests.support.waiting import eventually

TAG = "count"
_ANSWER_S = 5.0
_RETRY_S = 0.2
_PAGE = 1000
_PATIENCE_S = 180.0


@dataclass
class Sender:
    """A device that sends 0, 1, 2, … at a fixed rate, each until acknowledged, and remembers how often it tried."""

    credential: dict[str, Any]
    context: ssl.SSLContext
    tries: list[int] = field(default_factory=list)
    acknowledged: int = 0
    connections: int = 0

    @property
    def id(self) -> str:
        """The device id."""
        return str(self.credential["devinfo"]["device_id"])

    async def run(self, every_s: float, until: asyncio.Event) -> None:
        """Send until told to stop; the last message is acknowledged too."""
        connection: Device | None = None
        next_at = asyncio.get_running_loop().time()
        while not until.is_set():
            connection = await self._send(connection)
            next_at += every_s
            await asyncio.sleep(max(0.0, next_at - asyncio.get_running_loop().time()))
        if connection is not None:
            connection.close()

    async def _send(self, connection: Device | None) -> Device:
        number = len(self.tries)
        self.tries.append(0)
        while True:
            try:
                if connection is None or connection.lost.is_set():
                    connection = await Device.connect(self.credential, context=self.context)
                    self.connections += 1
                self.tries[number] += 1
                payload = b'{"n":%d}' % number
                await connection.publish(f"j/data/{self.id}/{TAG}", payload, timeout_s=_ANSWER_S)
            except (OSError, ConnectionRefused, TimeoutError):
                if connection is not None:
                    connection.abort()
                    connection = None
                await asyncio.sleep(_RETRY_S)
            else:
                self.acknowledged += 1
                return connection


@dataclass
class Inbox:
    """What the webhook received: per device the numbers in order of arrival, and for each point its names."""

    numbers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    # (device, timestamp_device) -> the (batch id, id) pairs under which it came.
    names: dict[tuple[str, str], set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    points: int = 0

    def take(self, batch: dict[str, Any]) -> None:
        """Note a batch."""
        for point in batch["result"]:
            self.points += 1
            self.numbers[point["device_id"]].append(point["payload"]["n"])
            self.names[point["device_id"], point["timestamp_device"]].add((batch["batch_id"], point["id"]))


@dataclass
class Reckoning:
    """What became of the acknowledged messages. All of `faults` must be zero."""

    sent: int = 0
    repeated_by_device: int = 0
    stored: int = 0
    delivered: int = 0
    delivered_again: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        rows = {name: value for name, value in vars(self).items() if name != "faults"}
        rows |= {name: self.faults[name] for name in FAULTS}
        return "\n".join(f"{name.replace('_', ' '):24} {value:10}" for name, value in rows.items())


FAULTS = (
    "missing_in_storage",
    "missing_at_webhook",
    "stored_twice",
    "stored_out_of_order",
    "delivered_out_of_order",
    "renamed_on_repeat",
)


class Campaign:
    """One run: a workspace, its devices, a webhook and faults while they send."""

    def __init__(self, system: Installation, devices: int, rate: float) -> None:
        self._system = system
        self._count = devices
        self._every_s = devices / rate
        self._port = free_ports(1)[0]
        self._over = asyncio.Event()
        self.inbox = Inbox()
        self.senders: list[Sender] = []
        self.workspace = ""
        self.receiver_on = asyncio.Event()

    async def run(self, faults: Callable[[], Awaitable[None]], *, drain_s: float = 60.0) -> Reckoning:
        """Send until `faults` has returned, wait until all has come through, and reckon."""
        async with self._system.admin() as rest:
            await self._prepare(rest)
            self.receiver_on.set()
            async with asyncio.TaskGroup() as tasks:
                receiver = tasks.create_task(self._receive(), name="receiver")
                sending = [tasks.create_task(sender.run(self._every_s, self._over)) for sender in self.senders]
                await faults()
                self._over.set()
                await asyncio.wait(sending)
                with suppress(AssertionError):  # what is missing then shows in the reckoning
                    await eventually(self._all_delivered, within_s=drain_s, every_s=0.2)
                receiver.cancel()
            await self._system.ready()
            return await self._reckon(rest, monotonic() + drain_s)

    async def _prepare(self, rest: Rest) -> None:
        self.workspace = await default_workspace(rest)
        webhook = {
            "name": "campaign",
            "type": "data_stream",
            "subtype": "webhook",
            "subtype_configuration": {"url": f"http://{self._system.receiver_host}:{self._port}/"},
        }
        await rest.call("POST", f"/v3/workspaces/{self.workspace}/integrations", webhook)
        for number in range(self._count):
            credential = await new_device(rest, self.workspace, f"sender-{number}")
            self.senders.append(Sender(credential, tls_context(credential["cacert"])))

    async def _receive(self) -> None:
        while True:
            await self.receiver_on.wait()
            async with receiving(self.inbox.take, self._port, self._system.receiver_host):
                while self.receiver_on.is_set():
                    await asyncio.sleep(0.05)

    async def receiver_off(self, seconds: float) -> None:
        """The webhook's receiver is down for a while."""
        self.receiver_on.clear()
        await asyncio.sleep(seconds)
        self.receiver_on.set()

    async def _all_delivered(self) -> bool:
        return all(len(set(self.inbox.numbers[sender.id])) >= len(sender.tries) for sender in self.senders)

    async def _reckon(self, rest: Rest, deadline: float) -> Reckoning:
        """What storage has not taken by the deadline is missing."""
        reckoning = Reckoning(delivered=self.inbox.points)
        reckoning.faults["renamed_on_repeat"] = sum(len(names) > 1 for names in self.inbox.names.values())
        for sender in self.senders:
            stored = await self._stored(rest, sender.id)
            while len(set(stored)) < len(sender.tries) and monotonic() < deadline:
                await asyncio.sleep(1)
                stored = await self._stored(rest, sender.id)
            self._reckon_device(reckoning, sender, stored)
        return reckoning

    def _reckon_device(self, reckoning: Reckoning, sender: Sender, stored: list[int]) -> None:
        expected, delivered = set(range(len(sender.tries))), self.inbox.numbers[sender.id]
        copies = Counter(stored)
        reckoning.sent += sender.acknowledged
        reckoning.repeated_by_device += sum(tries - 1 for tries in sender.tries)
        reckoning.stored += len(stored)
        reckoning.delivered_again += len(delivered) - len(set(delivered))
        faults = reckoning.faults
        faults["missing_in_storage"] += len(expected - set(stored))
        faults["missing_at_webhook"] += len(expected - set(delivered))
        # A message that the device had to send again may be there as often as it was sent (at least once).
        faults["stored_twice"] += sum(copies[number] > tries for number, tries in enumerate(sender.tries))
        faults["stored_out_of_order"] += _falls(stored)
        faults["delivered_out_of_order"] += _falls(list(dict.fromkeys(delivered)))

    async def _stored(self, rest: Rest, device: str) -> list[int]:
        numbers: list[int] = []
        path = f"/v3/timeseries/{self.workspace}/data"
        while True:
            query = {"device": device, "size": _PAGE, "sort": "timestamp_device", "from": len(numbers) // _PAGE}
            page = await eventually(partial(_page, rest, path, query), within_s=_PATIENCE_S, every_s=1)
            numbers += [point["payload"]["n"] for point in page["result"]]
            if len(page["result"]) < _PAGE:
                return numbers


async def _page(rest: Rest, path: str, query: dict[str, Any]) -> dict[str, Any]:
    """Empty when a database that has just come back is still too slow."""
    with suppress(aiohttp.ClientPayloadError):
        status, answer = await rest.ask("GET", path, **query)
        if status != 503:
            assert status == 200, answer
            return dict(answer)
    return {}


def _falls(numbers: list[int]) -> int:
    return sum(later < earlier for earlier, later in pairwise(numbers))
