"""HTTP calls to addresses that users name: the policy is asked about the very address that is about to be connected."""

import asyncio
import re
import socket
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver

from shared.clock import Clock, to_ms
from shared.errors import Unavailable
from shared.outbound.policy import AddressRefused, OutboundPolicy

_ANSWER_LIMIT = 64 * 1024
_SECONDS = re.compile(r"[0-9]{1,9}")


class Answer(NamedTuple):
    """What came back. `body`: its beginning, as text."""

    status: int
    retry_after_s: float | None
    body: str


class CallFailed(Unavailable):
    """No answer: nothing listens, the name is unknown, TLS fails, or it took too long."""


@dataclass
class _Addresses:
    """What became of the addresses that a call was led to."""

    refused: AddressRefused | None = None
    tried: bool = False


# Connecting may happen in tasks that the call starts: they inherit this.
_addresses: ContextVar[_Addresses] = ContextVar("outbound_addresses")


class Outbound:
    """Follows no redirect, uses no proxy, verifies TLS, reads 64 KiB of an answer at most and unpacks nothing."""

    def __init__(
        self, policy: OutboundPolicy, clock: Clock, timeout_s: float = 30.0, resolver: AbstractResolver | None = None
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._timeout_s = timeout_s
        self._resolver = resolver
        self._http: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raise `AddressRefused` when every address of the host is refused, `CallFailed` when no answer came."""
        _addresses.set(addresses := _Addresses())
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session().post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                excerpt = await _beginning(answer)
                return Answer(answer.status, self._seconds(answer.headers.get("Retry-After")), excerpt)
        except TimeoutError as error:
            raise CallFailed(f"no whole answer within {self._timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if addresses.refused is not None and not addresses.tried:
                raise addresses.refused from error
            raise CallFailed(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                # Names are resolved for each connection: an answer of a while ago says nothing about now.
                connector=aiohttp.TCPConnector(
                    socket_factory=self._socket, limit=0, use_dns_cache=False, resolver=self._resolver
                ),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding",),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http

    def _socket(self, info: "aiohttp.AddrInfoType") -> socket.socket:
        family, kind, protocol, _, address = info
        addresses = _addresses.get()
        try:
            self._policy.check(str(address[0]))
        except AddressRefused as refused:
            addresses.refused = refused
            # The only kind of error that lets the connector go on to the next address.
            raise OSError(refused.message) from refused
        addresses.tried = True
        return socket.socket(family, kind, protocol)

    def _seconds(self, text: str | None) -> float | None:
        """`Retry-After` in either form (RFC 9110, 10.2.3); None for anything else."""
        if text is None:
            return None
        if _SECONDS.fullmatch(text):
            return float(text)
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        # A zone of "-0000" makes a naive moment, yet the header's dates are always GMT.
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0.0, (to_ms(moment) - self._clock.ms()) / 1000)


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > _ANSWER_LIMIT:
            # The rest may be endless: the connection is of no more use.
            answer.close()
            break
    return bytes(content[:_ANSWER_LIMIT]).decode(errors="replace")
