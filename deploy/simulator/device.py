"""A virtual device: MQTT 3.1.1 over TLS or TCP, spare enough to run thousands in one process.

It follows the device protocol: client id, user name and topics carry the device id; data goes to
`j/data/<id>/<tag>` at QoS 1, requests to `j/up/<id>`, answers come on `j/dn/<id>`.
"""

import asyncio
import base64
import itertools
import ssl
import struct
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any, Self, cast

import jwt
import orjson

_CONNACK, _PUBLISH, _PUBACK, _SUBACK, _PINGRESP = 0x20, 0x30, 0x40, 0x90, 0xD0
_TOKEN_LIFETIME_S = 3600
_KEEP_ALIVE_S = 60


class ConnectionRefused(Exception):
    """The broker answered CONNECT with `code`, or closed the connection instead (code -1)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"connection refused, code {code}")
        self.code = code


def token(credential: dict[str, Any]) -> str:
    """The MQTT password that `zdevice.json` stands for (spec: mqtt-device-protocol 4)."""
    devinfo = credential["devinfo"]
    if devinfo["mode"] == "cloud_token":
        return str(credential["prvkey"])
    claims = {"sub": devinfo["device_id"], "key": devinfo["key_id"], "exp": int(time()) + _TOKEN_LIFETIME_S}
    secret = base64.b64decode(credential["prvkey"])
    return jwt.encode(claims, secret, algorithm="HS256" if devinfo["key_type"] == "sym" else "ES256")


def tls_context(authority: str, certificate: tuple[str, str] | None = None) -> ssl.SSLContext:
    """Trust `authority` (PEM) alone; `certificate`: chain and key as PEM, for mutual TLS."""
    context = ssl.create_default_context(cadata=authority)
    if certificate is not None:
        with tempfile.TemporaryDirectory() as folder:
            chain, key = Path(folder) / "chain.pem", Path(folder) / "key.pem"
            chain.write_text(certificate[0])
            key.write_text(certificate[1])
            context.load_cert_chain(chain, key)
    return context


class Device(asyncio.Protocol):
    """One connection of one device. `on_message(topic, payload)` gets what comes down; `lost` is set when it ends."""

    def __init__(self, device_id: str, on_message: Callable[[str, bytes], None] | None = None) -> None:
        self.id = device_id
        self.lost = asyncio.Event()
        self._on_message = on_message
        self._buffer = bytearray()
        self._waiting: dict[tuple[int, int], asyncio.Future[int]] = {}
        self._message_ids = itertools.cycle(range(1, 65536))
        self._transport: asyncio.Transport | None = None
        self._pinging: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(
        cls,
        credential: dict[str, Any],
        *,
        context: ssl.SSLContext | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
        timeout_s: float = 10.0,
    ) -> Self:
        """Connect as `zdevice.json` says; raise `ConnectionRefused`, or `OSError` when there is no broker."""
        endpoint = credential["endpoint"]
        secure = endpoint["mode"] == "secure"
        return await cls.open(
            credential["devinfo"]["device_id"],
            token(credential),
            endpoint["host"],
            endpoint["port"],
            context=(context or tls_context(credential["cacert"])) if secure else None,
            on_message=on_message,
            timeout_s=timeout_s,
        )

    @classmethod
    async def open(
        cls,
        device_id: str,
        password: str | None,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext | None = None,
        on_message: Callable[[str, bytes], None] | None = None,
        timeout_s: float = 10.0,
    ) -> Self:
        """Connect with a ready password, or with none (mutual TLS)."""
        device = cls(device_id, on_message)
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: device, host, port, ssl=context)
            code = await device._ask(_CONNACK, 0, _connect_packet(device_id, password))
        if code != 0:
            device.close()
            raise ConnectionRefused(code)
        device._ping_later()
        return device

    async def publish(self, topic: str, payload: bytes, *, timeout_s: float = 30.0, qos: int = 1) -> None:
        """Return once acknowledged; raise `ConnectionError` when the connection ends first."""
        if qos == 0:
            self._write(_publish_packet(topic, payload, None))
            return
        message_id = next(self._message_ids)
        async with asyncio.timeout(timeout_s):
            await self._ask(_PUBACK, message_id, _publish_packet(topic, payload, message_id))

    async def data(self, tag: str, value: object) -> None:
        """Send a data point."""
        await self.publish(f"j/data/{self.id}/{tag}", orjson.dumps(value))

    async def up(self, key: str, value: object) -> None:
        """Send an envelope."""
        await self.publish(f"j/up/{self.id}", orjson.dumps({"key": key, "value": value}))

    async def subscribe(self, topic: str | None = None) -> int:
        """Subscribe at QoS 1, to its own down topic if none is given; the code granted (0x80: refused)."""
        message_id = next(self._message_ids)
        body = struct.pack("!H", message_id) + _text(topic or f"j/dn/{self.id}") + b"\x01"
        async with asyncio.timeout(10):
            return await self._ask(_SUBACK, message_id, _packet(0x82, body))

    def close(self) -> None:
        """Leave cleanly."""
        if self._transport is not None and not self._transport.is_closing():
            self._write(b"\xe0\x00")
            self._transport.close()

    def abort(self) -> None:
        """Vanish."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        if self._pinging is not None:
            self._pinging.cancel()
        for (kind, _), waiting in self._waiting.items():
            if not waiting.done():
                waiting.set_exception(ConnectionRefused(-1) if kind == _CONNACK else ConnectionError("connection lost"))
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (packet := _take_packet(self._buffer)) is not None:
            self._received(*packet)

    # Inside.

    def _received(self, first: int, body: bytes) -> None:
        kind = first & 0xF0
        if kind == _PUBLISH:
            self._message(first, body)
        elif kind == _CONNACK:
            self._answered(kind, 0, body[1])
        elif kind in (_PUBACK, _SUBACK):
            self._answered(kind, int.from_bytes(body[:2], "big"), body[2] if kind == _SUBACK else 0)

    def _message(self, first: int, body: bytes) -> None:
        length = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        if first & 0x06:
            self._write(b"\x40\x02" + rest[:2])
            rest = rest[2:]
        if self._on_message is not None:
            self._on_message(topic, bytes(rest))

    async def _ask(self, kind: int, message_id: int, packet: bytes) -> int:
        waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[kind, message_id] = waiting
        try:
            self._write(packet)
            return await waiting
        finally:
            self._waiting.pop((kind, message_id), None)

    def _answered(self, kind: int, message_id: int, code: int) -> None:
        waiting = self._waiting.get((kind, message_id))
        if waiting is not None and not waiting.done():
            waiting.set_result(code)

    def _write(self, packet: bytes) -> None:
        if self._transport is None or self.lost.is_set():
            raise ConnectionError("not connected")
        self._transport.write(packet)

    def _ping_later(self) -> None:
        self._pinging = asyncio.get_running_loop().call_later(_KEEP_ALIVE_S * 0.75, self._ping)

    def _ping(self) -> None:
        with suppress(ConnectionError):
            self._write(b"\xc0\x00")
            self._ping_later()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("!H", len(encoded)) + encoded


def _packet(first: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | 0x80 if length else digit)
        if not length:
            return bytes([first, *digits]) + body


def _connect_packet(device_id: str, password: str | None) -> bytes:
    flags = 0x02 | (0x80 | 0x40 if password is not None else 0)
    body = _text("MQTT") + bytes([4, flags]) + struct.pack("!H", _KEEP_ALIVE_S) + _text(device_id)
    if password is not None:
        body += _text(device_id) + _text(password)
    return _packet(0x10, body)


def _publish_packet(topic: str, payload: bytes, message_id: int | None) -> bytes:
    if message_id is None:
        return _packet(_PUBLISH, _text(topic) + payload)
    return _packet(_PUBLISH | 0x02, _text(topic) + struct.pack("!H", message_id) + payload)


def _take_packet(buffer: bytearray) -> tuple[int, bytes] | None:
    """First byte and body of the packet at the front, taken out; None while it is not whole."""
    length = 0
    for position in range(1, min(5, len(buffer))):
        length |= (buffer[position] & 0x7F) << 7 * (position - 1)
        if not buffer[position] & 0x80:
            end = position + 1 + length
            if len(buffer) < end:
                return None
            packet = buffer[0], bytes(buffer[position + 1 : end])
            del buffer[:end]
            return packet
    return None
