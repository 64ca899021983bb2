"""HTTP calls to addresses that users name: the policy is asked about the very address that is about to be connected."""

import asyncio
import socket
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from prometheus_client import Counter

from shared.errors import Unavailable
from shared.outbound.policy import AddressRefused, OutboundPolicy

_ANSWER_LIMIT = 64 * 1024
_REFUSED = Counter("zdm_outbound_refused_total", "Connections that the policy refused", ["reason"])


class Answer(NamedTuple):
    """What came back. `body`: its beginning, as text."""

    status: int
    retry_after_s: float | None
    body: str


class CallFailed(Unavailable):
    """No answer: nothing listens, the name is unknown, TLS fails, or it took too long."""


class _Refusal(OSError):
    """A refused address, in the only kind of error that the connector passes on."""

    def __init__(self, refused: AddressRefused) -> None:
        super().__init__(refused.message)
        self.refused = refused


class Outbound:
    """Follows no redirect, uses no proxy, verifies TLS, reads 64 KiB of an answer at most."""

    def __init__(self, policy: OutboundPolicy, timeout_s: float = 30.0) -> None:
        self._policy = policy
        self._timeout_s = timeout_s
        self._http: aiohttp.ClientSession | None = None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raise `AddressRefused` or `CallFailed`."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session().post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                excerpt = await _beginning(answer)
                return Answer(answer.status, _seconds(answer.headers.get("Retry-After")), excerpt)
        except TimeoutError as error:
            raise CallFailed(f"no whole answer within {self._timeout_s:.0f} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if (refused := _refusal_in(error)) is not None:
                _REFUSED.labels(refused.reason).inc()
                raise refused from error
            raise CallFailed(f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=self._socket, limit=0, use_dns_cache=False),
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._http

    def _socket(self, info: "aiohttp.AddrInfoType") -> socket.socket:
        family, kind, protocol, _, address = info
        try:
            self._policy.check(str(address[0]))
        except AddressRefused as refused:
            raise _Refusal(refused) from refused
        return socket.socket(family, kind, protocol)


async def _beginning(answer: aiohttp.ClientResponse) -> str:
    content = bytearray()
    async for piece in answer.content.iter_any():
        content += piece
        if len(content) > _ANSWER_LIMIT:
            # The rest may be endless: the connection is of no more use.
            answer.close()
            break
    return bytes(content[:_ANSWER_LIMIT]).decode(errors="replace")


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None


def _refusal_in(error: BaseException | None) -> AddressRefused | None:
    """The refusal at the root of what the connector raised."""
    while error is not None:
        if isinstance(error, _Refusal):
            return error.refused
        inner = getattr(error, "os_error", None)
        if isinstance(error, ExceptionGroup):
            inner = next((one for one in error.exceptions if _refusal_in(one) is not None), None)
        error = inner if isinstance(inner, BaseException) else error.__cause__
    return None
