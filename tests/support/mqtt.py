"""A client that says what it likes: MQTT packet by packet, of version 3.1, 3.1.1 or 5, right or wrong."""

import asyncio
import itertools
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Self

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT, AUTH = 0x82, 0x90, 0xC0, 0xE0, 0xF0
V31, V311, V5 = 3, 4, 5
# What `connect` answers where the broker closed the connection without a CONNACK.
CLOSED = -1
REFUSED = 5
CLIENT_ID = "\0"  # as user name: the same as the client id
_ANSWER_S = 10.0


class Packet(NamedTuple):
    """What came: `first` byte and the rest behind the length."""

    first: int
    body: bytes

    @property
    def kind(self) -> int:
        """Without flags."""
        return self.first & 0xF0


class Message(NamedTuple):
    """A PUBLISH that came."""

    topic: str
    payload: bytes
    is_repeated: bool


class Will(NamedTuple):
    """Of a CONNECT. `properties`: for MQTT 5, encoded."""

    topic: str
    payload: bytes = b'{"will":1}'
    qos: int = 1
    is_retained: bool = False
    properties: bytes = b""


class Connection:
    """One connection; not more than one coroutine reads at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int) -> None:
        self._reader = reader
        self._writer = writer
        self._version = version
        self._ids = itertools.count(1)
        self._messages: list[Message] = []
        self.session_present = False

    @classmethod
    async def open(cls, at: int | Path, *, context: ssl.SSLContext | None = None, version: int = V311) -> Self:
        """Connect to a port of this machine or a unix socket; raise `OSError` when the handshake already fails."""
        async with _in_time():
            if isinstance(at, Path):
                return cls(*await asyncio.open_unix_connection(at), version)
            return cls(*await asyncio.open_connection("localhost", at, ssl=context), version)

    async def write(self, *packets: bytes) -> None:
        """Send bytes as they are. That the other side has gone shows when reading."""
        try:
            for packet in packets:
                self._writer.write(packet)
                await self._writer.drain()
        except OSError:
            pass

    async def read(self) -> Packet | None:
        """The next packet; None when the broker has closed the connection."""
        try:
            async with _in_time():
                first = (await self._reader.readexactly(1))[0]
                return Packet(first, await self._reader.readexactly(await self._length()))
        except (OSError, asyncio.IncompleteReadError):
            return None

    async def answer(self, *kinds: int) -> Packet | None:
        """The next packet of one of these kinds; messages that come before it are kept."""
        while (packet := await self.read()) is not None and packet.kind not in kinds:
            self._keep(packet)
        return packet

    async def is_closed(self) -> bool:
        """Whether the broker closes the connection; raise `AssertionError` when it does nothing."""
        return await self.answer(AUTH) is None

    async def connect(
        self,
        client_id: str,
        password: str | None = None,
        *,
        user: str | None = CLIENT_ID,
        clean: bool = True,
        will: Will | None = None,
        properties: bytes = b"",
        keep_alive_s: int = 60,
    ) -> int:
        """The code of the CONNACK. `user`: None for none, the client id if not given."""
        name = client_id if user is CLIENT_ID else user
        flags = clean << 1 | (name is not None) << 7 | (password is not None) << 6
        body = text(client_id)
        if will is not None:
            flags |= 4 | will.qos << 3 | will.is_retained << 5
            body += (self._properties(will.properties) + text(will.topic)) + binary(will.payload)
        body += b"".join(binary(field.encode()) for field in (name, password) if field is not None)
        protocol = text("MQIsdp") if self._version & 0x7F == V31 else text("MQTT")
        head = protocol + struct.pack("!BBH", self._version, flags, keep_alive_s) + self._properties(properties)
        await self.write(packet(CONNECT, head + body))
        answer = await self.answer(CONNACK)
        if answer is None:
            return CLOSED
        self.session_present = bool(answer.body[0])
        return answer.body[1]

    async def publish(
        self, topic: str, payload: bytes = b"{}", *, qos: int = 1, is_retained: bool = False, properties: bytes = b""
    ) -> int | None:
        """The reason code of what acknowledges it (0 before MQTT 5); None when the connection is closed instead."""
        await self.write(self.publish_packet(topic, payload, qos, is_retained, properties))
        answer = await self.answer(PUBACK, PUBREC)
        if answer is None:
            return None
        if answer.kind == PUBREC and (len(answer.body) < 3 or answer.body[2] < 0x80):
            await self.write(packet(PUBREL, answer.body[:2]))
            assert (await self.answer(PUBCOMP)) is not None
        return answer.body[2] if len(answer.body) > 2 else 0

    def publish_packet(
        self, topic: str, payload: bytes = b"{}", qos: int = 1, is_retained: bool = False, properties: bytes = b""
    ) -> bytes:
        """For `write`."""
        number = struct.pack("!H", next(self._ids)) if qos else b""
        first = PUBLISH | qos << 1 | is_retained
        return packet(first, text(topic) + number + self._properties(properties) + payload)

    async def subscribe(self, topic: str, qos: int = 1) -> int | None:
        """The code of the SUBACK; None when the connection is closed instead."""
        number = struct.pack("!H", next(self._ids))
        await self.write(packet(SUBSCRIBE, number + self._properties(b"") + text(topic) + bytes([qos])))
        answer = await self.answer(SUBACK)
        return None if answer is None else answer.body[-1]

    async def messages(self) -> list[Message]:
        """What has come so far. The broker answers a ping after all that it had sent before."""
        await self.write(packet(PINGREQ, b""))
        assert await self.answer(0xD0) is not None
        messages, self._messages = self._messages, []
        return messages

    async def leave(self) -> None:
        """With a DISCONNECT."""
        await self.write(packet(DISCONNECT, b""))
        self._writer.close()

    def vanish(self) -> None:
        """Without one."""
        self._writer.transport.abort()

    async def _length(self) -> int:
        length, shift = 0, 0
        while True:
            digit = (await self._reader.readexactly(1))[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return length

    def _properties(self, properties: bytes) -> bytes:
        return bytes([len(properties)]) + properties if self._version == V5 else b""

    def _keep(self, packet: Packet) -> None:
        if packet.kind != PUBLISH:
            return
        length = int.from_bytes(packet.body[:2], "big")
        topic, rest = packet.body[2 : 2 + length].decode(), packet.body[2 + length :]
        if packet.first & 0x06:
            rest = rest[2:]
        if self._version == V5:
            rest = rest[1 + rest[0] :]
        self._messages.append(Message(topic, rest, bool(packet.first & 0x08)))


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield
    except TimeoutError:  # which is an `OSError`, as a closed connection is
        raise AssertionError("the broker does nothing") from None


def binary(data: bytes) -> bytes:
    """With its length before it."""
    return struct.pack("!H", len(data)) + data


def text(value: str) -> bytes:
    """UTF-8 with its length before it."""
    return binary(value.encode())


def packet(first: int, body: bytes) -> bytes:
    """With its length."""
    return bytes([first]) + length_of(len(body)) + body


def length_of(length: int) -> bytes:
    """The length of a packet as it is written."""
    digits = bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | 0x80 if length else digit)
        if not length:
            return bytes(digits)
