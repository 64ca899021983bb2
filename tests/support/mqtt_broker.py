"""A broker with our plugin and devices that it knows; the test itself stands for provisioning and ingestion."""

import base64
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ssl import SSLContext
from time import time
from typing import Any, NamedTuple

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from deploy.simulator.device import tls_context
from services.ingestion.adapters.segment import HEADER_SIZE, parse
from services.ingestion.domain.records import CONNECTED, DISCONNECTED, HANDED_OVER, PUBLISH, SpoolRecord
from services.provisioning.adapters.pki import Pair, Pki, prepare
from services.provisioning.adapters.x509 import certificate_pem, self_signed_authority, signed_by
from shared import brokers, frames
from shared.broker_control import BrokerControl
from shared.errors import Unavailable
from shared.frames import Applied, Down, Entry, Key, Place, Sent
from tests.support import mqtt
from tests.support.mqtt import Connection
from tests.support.pki import key_pem, name, p256_key
from tests.support.provisioning import Broker
from tests.support.waiting import eventually

REMOVED, ACTIVE, DISABLED = 0, 1, 2
_LOG_ID = "the-log"


class Member(NamedTuple):
    """A device that the broker knows, with a symmetric key of number 1."""

    id: str
    key: bytes
    address: str = ""

    @property
    def data(self) -> str:
        """A topic of its own."""
        return f"j/data/{self.name}/env"

    @property
    def down(self) -> str:
        """Where it is spoken to."""
        return f"j/dn/{self.name}"

    @property
    def name(self) -> str:
        """What it calls itself."""
        return self.address or self.id

    def token(self, *, secret: bytes | None = None, algorithm: str = "HS256", **claims: Any) -> str:
        """A good one, but for what is given."""
        good = {"sub": self.id, "key": 1, "exp": int(time()) + 3600}
        return jwt.encode(good | claims, self.key if secret is None else secret, algorithm=algorithm)


class Ground:
    """Where tests meet a broker."""

    def __init__(self, broker: Broker, pki: Pki) -> None:
        self.broker = broker
        self.home = broker.home
        self.pki = pki
        self.control = BrokerControl("zdm-provisioning", brokers.Broker(broker.home))
        self._place = self._gaps = 0
        self._known: dict[str, Entry] = {}

    async def start(self) -> None:
        """Start the broker and wait for it."""
        self._gaps = 0
        await self.broker.start()
        await self.up()

    async def up(self) -> None:
        """Wait for a broker that is starting."""

        async def look() -> bool:
            try:
                await self.control.connect()
            except (Unavailable, OSError):
                return False
            return True

        await eventually(look)

    async def restart(self) -> None:
        """kill -9, and start again."""
        await self.broker.kill()
        await self.start()

    async def close(self) -> None:
        """The end of all."""
        await self.control.close()
        await self.broker.kill()

    def memory(self) -> int:
        """Bytes of the broker's process."""
        assert self.broker._process is not None
        lines = Path(f"/proc/{self.broker._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

    # As provisioning

    async def member(self, address: str = "", certificates: tuple[bytes, ...] = ()) -> Member:
        """A new device that is known at once."""
        one = Member(f"dev-{secrets.token_hex(6)}", secrets.token_bytes(32), address)
        await self.know(Entry(ACTIVE, one.id, address, [Key(1, "HS256", one.key)], certificates))
        return one

    async def know(self, *entries: Entry) -> None:
        """Apply these."""
        first = self._place == 0
        span = self._place, self._place + 1
        parts = [frames.entry(entry) for entry in entries]
        answer = await self.control.request(
            lambda request: frames.apply(request, _LOG_ID, span, parts, first=first, last=first)
        )
        assert isinstance(answer, Applied)
        assert answer.status == 0
        self._place += 1
        self._known |= {entry.device_id: entry for entry in entries}

    async def set_state(self, one: Member, state: int) -> None:
        """Disable it, enable it, remove it."""
        await self.know(self._known[one.id]._replace(state=state))

    async def is_at(self) -> Place:
        """How far the broker says it is."""
        answer = await self.control.request(frames.hello)
        assert isinstance(answer, Place)
        return answer

    # As ingestion

    async def send(self, *downs: Down) -> int:
        """Hand these over; the status."""
        answer = await self.control.request(lambda request: frames.send(request, downs))
        assert isinstance(answer, Sent)
        return answer.status

    def records(self, device: str | None = None, *kinds: int) -> list[SpoolRecord]:
        """What the spool has, of this device and these kinds."""
        records: list[SpoolRecord] = []
        for path in sorted((self.home / "spool").glob("*.spool")):
            records += parse(path.read_bytes()[HEADER_SIZE:], 0).records
        return [one for one in records if device in (None, one.device) and (not kinds or one.kind in kinds)]

    def published(self, one: Member) -> list[tuple[str, bytes]]:
        """Topics and payloads."""
        return [(record.detail, record.payload) for record in self.records(one.id, PUBLISH)]

    def presence(self, one: Member) -> list[str]:
        """`connected`, and the reasons of `disconnected`."""
        records = self.records(one.id, CONNECTED, DISCONNECTED)
        return ["connected" if record.kind == CONNECTED else record.detail for record in records]

    def handed(self, one: Member) -> list[tuple[str, bool]]:
        """Ids of messages, and whether to a live session."""
        return [(record.detail, bool(record.flags)) for record in self.records(one.id, HANDED_OVER)]

    async def has_left(self, one: Member, *reasons: str) -> None:
        """Wait until its presence ends so."""

        async def look() -> bool:
            return tuple(self.presence(one)[-len(reasons) :]) == reasons

        await eventually(look, every_s=0.01)

    # What is counted

    async def counters(self) -> Counter[str]:
        """All that has happened so far is in them: the file is written once a second."""
        answer = await self.control.request(lambda request: frames.apply(request, "another log", (1, 2), []))
        assert isinstance(answer, Applied)
        self._gaps += 1

        async def look() -> bool:
            return self._read_counters()[_GAPS] == self._gaps

        await eventually(look)
        return self._read_counters()

    def _read_counters(self) -> Counter[str]:
        try:
            lines = (self.home / "broker/counters").read_text().splitlines()
        except FileNotFoundError:
            return Counter()
        return Counter({key: int(value) for key, value in (line.rsplit(" ", 1) for line in lines)})

    # As a device

    async def connected(self, one: Member, **more: Any) -> Connection:
        """On the port without TLS, with a good token."""
        version = more.pop("version", mqtt.V311)
        connection = await Connection.open(self.broker.plain_port, version=version)
        code = await connection.connect(one.name, one.token(), **more)
        assert code == 0
        return connection

    def trusting(self, certificate: "Shown | None" = None) -> SSLContext:
        """What a device needs for TLS."""
        chain = None if certificate is None else (certificate.chain, certificate.key)
        return tls_context(self.pki.server_authority, chain)


_GAPS = 'control_refused_total{reason="gap"}'


class Shown(NamedTuple):
    """A certificate with its chain and its key, PEM."""

    chain: str
    key: str
    fingerprint: bytes


def certificate(
    issuer: Pair,
    common_name: str,
    *,
    begins: timedelta = timedelta(minutes=-5),
    ends: timedelta = timedelta(days=1),
    self_signed: bool = False,
) -> Shown:
    """For a new key, signed by `issuer` or by itself."""
    key, now = p256_key(), datetime.now(UTC)
    if self_signed:
        made = self_signed_authority(common_name, key, now, ends)
    else:
        usage = (False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))
        made = signed_by(
            issuer.certificate, issuer.key, name(common_name), key.public_key(), now + begins, now + ends, [usage]
        )
    chain = certificate_pem(made).decode() + certificate_pem(issuer.certificate).decode()
    return Shown(chain, key_pem(key), made.fingerprint(hashes.SHA256()))


def token_without_signature(one: Member) -> str:
    """`alg` none, as the specification of JWT allows."""
    _, claims, _ = one.token().split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    return f"{none}.{claims}."


@asynccontextmanager
async def ground(home: Path, settings: Mapping[str, str] | None = None) -> AsyncIterator[Ground]:
    """A broker that is up and knows nobody yet."""
    pki = prepare(home / "pki", "localhost", datetime.now(UTC))
    (home / "broker").mkdir(mode=0o700, exist_ok=True)
    (home / "broker/service.key").write_text(secrets.token_hex(32))
    broker = Broker(home)
    broker.environment |= settings or {}
    one = Ground(broker, pki)
    try:
        await one.start()
        yield one
    finally:
        await one.close()
