"""Calls to real servers on this machine: what is connected, and what answers of every kind come to."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from socket import AF_INET, AI_NUMERICHOST

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import REGISTRY as PROMETHEUS

from shared.clock import SystemClock
from shared.outbound.client import CallFailed, Outbound
from shared.outbound.policy import AddressRefused, OutboundPolicy
from tests.support.pki import key_pem, name, p256_key
from tests.support.receiver import HOST, Receiver, receiver, saying, speaking, status

LOOPBACK = OutboundPolicy((ip_network("127.0.0.0/8"), ip_network("::1")))
METADATA = "169.254.169.254"
OK = b"HTTP/1.1 200 OK\r\n"


class Names(AbstractResolver):
    """Names with the addresses that each look-up gives in turn; the last ones for good."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self._answers = answers

    async def resolve(self, host: str, port: int = 0, family: int = AF_INET) -> list[ResolveResult]:
        """See aiohttp."""
        answers = self._answers[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            ResolveResult(hostname=host, host=one, port=port, family=AF_INET, proto=0, flags=AI_NUMERICHOST)
            for one in addresses
        ]

    async def close(self) -> None:
        """See aiohttp."""


@asynccontextmanager
async def outbound(
    policy: OutboundPolicy = LOOPBACK, timeout_s: float = 10.0, **names: list[list[str]]
) -> AsyncIterator[Outbound]:
    one = Outbound(policy, SystemClock(), timeout_s, Names(**names) if names else None)
    try:
        yield one
    finally:
        await one.close()


@pytest.fixture
async def here() -> AsyncIterator[Receiver]:
    async with receiver() as one:
        yield one


def refusals(reason: str) -> float:
    return PROMETHEUS.get_sample_value("zdm_outbound_refused_total", {"reason": reason}) or 0


class TestWhatIsConnected:
    async def test_an_allowed_address_gets_the_body_and_the_headers(self, here: Receiver) -> None:
        async with outbound() as calls:
            answer = await calls.post(here.url, b"body", {"X-One": "1"})
        assert (answer.status, answer.body, answer.retry_after_s) == (200, "{}", None)
        assert (here.came[0].body, here.came[0].headers["x-one"]) == (b"body", "1")

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "0x7f.1",
            "a@127.0.0.1",
            "\uff11\uff12\uff17.0.0.1",
            "127\u30020\u30020\u30021",
            "localhost",
            "LOCALHOST",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
        ],
    )
    async def test_nothing_on_this_machine_is_connected_however_it_is_spelled(self, here: Receiver, host: str) -> None:
        before = refusals("loopback") + refusals("unspecified")
        async with outbound(OutboundPolicy()) as calls:
            with pytest.raises(AddressRefused):
                await calls.post(f"http://{host}:{here.port}/", b"", {})
        assert here.came == []
        assert refusals("loopback") + refusals("unspecified") > before

    @pytest.mark.parametrize("host", ["127.1", "2130706433", "017700000001", "127.0.0.1.", "localhost.", "0"])
    async def test_neither_is_it_by_spellings_that_not_every_resolver_takes(self, here: Receiver, host: str) -> None:
        async with outbound(OutboundPolicy()) as calls:
            with pytest.raises((AddressRefused, CallFailed)):
                await calls.post(f"http://{host}:{here.port}/", b"", {})
        assert here.came == []

    async def test_a_name_is_judged_by_the_address_it_leads_to(self, here: Receiver) -> None:
        before = refusals("loopback")
        async with outbound(OutboundPolicy(), evil=[[HOST]]) as calls:
            with pytest.raises(AddressRefused, match="loopback"):
                await calls.post(f"http://evil:{here.port}/", b"", {})
        assert here.came == []
        assert refusals("loopback") == before + 1

    async def test_a_name_whose_addresses_are_refused_for_different_reasons_is_refused(self) -> None:
        async with outbound(OutboundPolicy(), evil=[[HOST, METADATA]]) as calls:
            with pytest.raises(AddressRefused):
                await calls.post("http://evil/", b"", {})

    @pytest.mark.parametrize("addresses", [[METADATA, HOST], [HOST, METADATA]])
    async def test_of_a_good_and_a_refused_address_only_the_good_one_is_called(
        self, here: Receiver, addresses: list[str]
    ) -> None:
        async with outbound(mixed=[addresses]) as calls:
            assert (await calls.post(f"http://mixed:{here.port}/", b"", {})).status == 200
        assert len(here.came) == 1

    async def test_that_a_good_address_does_not_answer_is_no_refusal(self, here: Receiver) -> None:
        await here.off()
        async with outbound(mixed=[[METADATA, HOST]]) as calls:
            with pytest.raises(CallFailed):
                await calls.post(f"http://mixed:{here.port}/", b"", {})

    async def test_a_name_that_leads_elsewhere_the_second_time_is_judged_again(self, here: Receiver) -> None:
        here.answers = lambda _received: status(200, Connection="close")
        before = refusals("cloud_metadata")
        async with outbound(rebinds=[[HOST], [METADATA]]) as calls:
            await calls.post(f"http://rebinds:{here.port}/", b"", {})
            with pytest.raises(AddressRefused, match="cloud_metadata"):
                await calls.post(f"http://rebinds:{here.port}/", b"", {})
        assert refusals("cloud_metadata") == before + 1

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_an_answer_and_is_not_followed(self, here: Receiver, code: int) -> None:
        here.answers = lambda _received: status(code, Location=f"{here.url}/elsewhere")
        async with outbound() as calls:
            assert (await calls.post(here.url, b"", {})).status == code
        assert [received.path for received in here.came] == ["/hook"]

    async def test_no_proxy_of_the_environment_is_used(self, here: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
        async with receiver() as proxy, outbound() as calls:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("ALL_PROXY", proxy.url)
            assert (await calls.post(here.url, b"", {})).status == 200
            assert proxy.came == []

    async def test_cookies_are_not_kept(self, here: Receiver) -> None:
        here.answers = lambda _received: status(200, Set_Cookie="a=b; Path=/")
        async with outbound() as calls:
            await calls.post(here.url, b"", {})
            await calls.post(here.url, b"", {})
        assert "cookie" not in here.came[1].headers

    async def test_a_certificate_that_nobody_vouches_for_is_refused(self, tmp_path: Path) -> None:
        async with (
            speaking(saying(OK + b"Content-Length: 0\r\n\r\n"), ssl=self_signed(tmp_path)) as port,
            outbound() as calls,
        ):
            with pytest.raises(CallFailed, match="Certificate"):
                await calls.post(f"https://{HOST}:{port}/", b"", {})

    async def test_nobody_who_listens_is_a_failed_call(self, here: Receiver) -> None:
        await here.off()
        async with outbound() as calls:
            with pytest.raises(CallFailed):
                await calls.post(here.url, b"", {})

    @pytest.mark.parametrize("url", ["http://no-such-name.invalid/", "http://a..b/", "http://[::1/", "x"])
    async def test_a_name_or_url_of_no_meaning_is_a_failed_call(self, url: str) -> None:
        async with outbound() as calls:
            with pytest.raises(CallFailed):
                await calls.post(url, b"", {})


def self_signed(folder: Path) -> ssl.SSLContext:
    key = p256_key()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name(HOST))
        .issuer_name(name(HOST))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    both = folder / "server.pem"
    both.write_bytes(key_pem(key).encode() + certificate.public_bytes(Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context


async def failed(port: int, timeout_s: float = 10.0) -> CallFailed:
    """How a call to this port fails."""
    async with outbound(timeout_s=timeout_s) as calls:
        with pytest.raises(CallFailed) as caught:
            await calls.post(f"http://{HOST}:{port}/", b"", {})
    return caught.value


class TestAnswers:
    @pytest.mark.parametrize(
        "speaks",
        [
            saying(b"", pause_s=60),
            saying(b"HTTP", pause_s=60),
            saying(OK + b"Content-Length: 1000000\r\n\r\n", b"x", pause_s=0.05, endlessly=True),
            saying(OK, b"X-Slow: 1\r\n", pause_s=0.05, endlessly=True),
            saying(b"HTTP/1.1 100 Continue\r\n\r\n", pause_s=0.001, endlessly=True),
            saying(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", pause_s=0.05, endlessly=True),
        ],
        ids=["no head", "half a head", "a byte at a time", "header by header", "only interim", "chunk by chunk"],
    )
    async def test_an_answer_that_takes_too_long_is_given_up(self, speaks: object) -> None:
        async with speaking(speaks) as port:  # type: ignore[arg-type]
            assert "within 0.3 s" in (await failed(port, timeout_s=0.3)).message

    @pytest.mark.parametrize(
        "speaks",
        [
            saying(b""),
            saying(b"what?\r\n\r\n"),
            saying(b"HTTP/1.1 999999 OK\r\n\r\n"),
            saying(OK + b"Content-Length: 10\r\n\r\n", b"short"),
            saying(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"),
            saying(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
            saying(OK + b"Content-Length: -1\r\n\r\n"),
            saying(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            saying(OK + b"X: " + b"y" * 100_000 + b"\r\n\r\n"),
            saying(OK, b"X-Many: 1\r\n" * 10_000, endlessly=True),
            saying(OK + b"X-Endless: ", b"y" * 10_000, endlessly=True),
        ],
        ids=[
            "nothing",
            "no HTTP",
            "no status",
            "cut short",
            "cut chunk",
            "no chunk",
            "negative",
            "two lengths",
            "huge header",
            "endless headers",
            "endless header",
        ],
    )
    async def test_an_answer_that_is_none_is_a_failed_call(self, speaks: object) -> None:
        async with speaking(speaks) as port:  # type: ignore[arg-type]
            await failed(port)

    async def test_of_an_endless_answer_only_the_beginning_is_read(self) -> None:
        endless = saying(
            OK + b"Transfer-Encoding: chunked\r\n\r\n", b"2710\r\n" + b"x" * 10_000 + b"\r\n", endlessly=True
        )
        async with speaking(endless) as port, outbound() as calls:
            answer = await calls.post(f"http://{HOST}:{port}/", b"", {})
        assert (answer.status, answer.body) == (200, "x" * 65536)

    async def test_a_packed_answer_is_neither_asked_for_nor_unpacked(self, here: Receiver) -> None:
        bomb = gzip.compress(b"0" * 10_000_000)
        head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
        async with speaking(saying(head + bomb)) as port, outbound() as calls:
            assert len((await calls.post(f"http://{HOST}:{port}/", b"", {})).body) <= len(bomb)
            await calls.post(here.url, b"", {})
        assert "accept-encoding" not in here.came[0].headers

    async def test_an_answer_that_is_no_text_is_an_answer(self, here: Receiver) -> None:
        async with speaking(saying(OK + b"Content-Length: 2\r\n\r\n\xff\xfe")) as port, outbound() as calls:
            assert (await calls.post(f"http://{HOST}:{port}/", b"", {})).body == "\ufffd\ufffd"

    async def test_a_connection_is_used_again(self) -> None:
        talks = 0

        async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal talks
            talks += 1
            while True:
                writer.write(OK + b"Content-Length: 0\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")

        async with speaking(twice) as port, outbound() as calls:
            for _ in range(3):
                await calls.post(f"http://{HOST}:{port}/", b"", {})
        assert talks == 1


class ClockAt:
    """A clock that stands."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self) -> datetime:
        """That moment."""
        return self._moment

    def ms(self) -> int:
        """That moment."""
        return int(self._moment.timestamp() * 1000)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("999999999", 999999999.0),
        ("Tue, 15 Nov 1994 08:12:31 GMT", 31.0),
        ("Tuesday, 15-Nov-94 08:12:31 GMT", 31.0),
        ("Tue Nov 15 08:12:31 1994", 31.0),
        ("Tue, 15 Nov 1994 08:00:00 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("nan", None),
        ("inf", None),
        ("1" * 100, None),
        ("soon", None),
        ("Tue, 99 Nov 1994 08:12:31 GMT", None),
    ],
)
async def test_retry_after_is_read_in_seconds_and_as_a_date(here: Receiver, said: str, seconds: float | None) -> None:
    here.answers = lambda _received: status(503, Retry_After=said)
    calls = Outbound(LOOPBACK, ClockAt(datetime(1994, 11, 15, 8, 12, tzinfo=UTC)), 10.0)
    try:
        assert (await calls.post(here.url, b"", {})).retry_after_s == seconds
    finally:
        await calls.close()
