"""A connection to the broker's control topic (docs/protocols.md 3): a request goes out, its answer comes back.

paho's thread meets the loop here and nowhere else. Whoever needs the connection decides when to make it again.
"""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
import structlog
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from shared.brokers import Broker
from shared.errors import Unavailable
from shared.frames import Answer, answers

logger = structlog.get_logger()

TOPIC = "$CONTROL/zdm/v1"
# A publish to the control topic may have this many bytes (docs/protocols.md 3).
PUBLISH_LIMIT = 512 * 1024

_CONNECT_S = 5.0
_ANSWER_S = 10.0
_KEEP_ALIVE_S = 30
_IN_FLIGHT = 16


class BrokerControl:
    """As one of our services (`zdm-ingestion`, `zdm-provisioning`), over the unix socket in the broker's folder."""

    def __init__(self, user: str, broker: Broker, answer_s: float = _ANSWER_S) -> None:
        self._user = user
        self._answer_s = answer_s
        self._socket = broker.socket
        self._secret = broker.secret
        self._requests = itertools.count(1)
        self._room = asyncio.Semaphore(_IN_FLIGHT)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._client: paho.Client | None = None
        self._connected = asyncio.Event()
        self._lost = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._connected.is_set() and not self._lost.is_set()

    async def connect(self) -> None:
        """Raise `Unavailable` when the broker does not let us in within a few seconds, or there is no secret yet."""
        await self.close()
        try:
            secret = self._secret.read_text().strip()
        except OSError as error:
            raise Unavailable(f"The broker cannot be asked yet: {error}") from error
        loop = asyncio.get_running_loop()
        self._connected, self._lost = asyncio.Event(), asyncio.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, self._user, transport="unix", reconnect_on_failure=False)
        client.username_pw_set(self._user, secret)
        connected, lost = self._connected, self._lost

        # These four run in paho's thread: they touch nothing but the loop's front door.
        def on_connect(_client: object, _data: object, _flags: object, reason: ReasonCode, _props: object) -> None:
            _call(loop, (lost if reason.is_failure else connected).set)

        def on_disconnect(*_: object) -> None:
            _call(loop, lost.set)

        def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
            _call(loop, self._answered, bytes(message.payload))

        client.on_connect, client.on_disconnect, client.on_message = on_connect, on_disconnect, on_message
        self._client = client
        try:
            async with asyncio.timeout(_CONNECT_S):
                await asyncio.to_thread(client.connect, str(self._socket), 1, _KEEP_ALIVE_S)
                client.loop_start()
                await _first(connected, lost)
        except (OSError, TimeoutError) as error:
            await self.close()
            raise Unavailable(f"The broker does not answer: {error or 'no answer in time'}") from error
        if not connected.is_set():
            await self.close()
            raise Unavailable("The broker refuses the connection")

    async def request(self, encode: Callable[[int], bytes]) -> Answer:
        """The answer to the frame that `encode` makes of a request number: `PUBLISH_LIMIT` bytes at most.

        Raise `Unavailable` when there is no connection, it ends, or no answer comes in time; what was asked may then
        have been done all the same. A few requests may be under way at once, the next ones wait to be let in.
        """
        async with self._room:
            return await self._asked(encode)

    async def _asked(self, encode: Callable[[int], bytes]) -> Answer:
        if self._client is None or not self.connected:
            raise Unavailable("There is no connection to the broker")
        number = next(self._requests)
        payload = encode(number)
        if len(payload) > PUBLISH_LIMIT:
            raise ValueError(f"{len(payload)} bytes are too many for one publish to the control topic")
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            # QoS 0: the answer is the acknowledgement, and nothing may be sent twice.
            self._client.publish(TOPIC, payload, qos=0)
            async with asyncio.timeout(self._answer_s):
                return await self._unless_lost(waiting)
        except TimeoutError:
            await self.close()
            raise Unavailable("The broker does not answer") from None
        finally:
            del self._waiting[number]

    async def lost(self) -> None:
        """Return when the connection has ended."""
        await self._lost.wait()

    async def close(self) -> None:
        """End the connection and paho's thread."""
        client, self._client = self._client, None
        self._lost.set()
        if client is not None:
            client.on_disconnect = None
            client.disconnect()
            await asyncio.to_thread(client.loop_stop)

    async def _unless_lost(self, waiting: "asyncio.Future[Answer]") -> Answer:
        losing = asyncio.ensure_future(self._lost.wait())
        try:
            both: set[asyncio.Future[Any]] = {waiting, losing}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            losing.cancel()
        if not waiting.done():
            raise Unavailable("The connection to the broker ended")
        return waiting.result()

    def _answered(self, payload: bytes) -> None:
        for answer in answers(payload):
            waiting = self._waiting.get(answer.request)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
        loop.call_soon_threadsafe(function, *arguments)


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
