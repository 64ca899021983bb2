"""Who the broker lets in, on which port, and what each may do: one defined answer each, and a counter that shows it."""

import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import time

import pytest
from cryptography.hazmat.primitives import serialization

from services.provisioning.adapters.pki import Pair
from services.provisioning.adapters.x509 import self_signed_authority
from shared.frames import Entry, Key
from tests.support.mqtt import CLIENT_ID, CLOSED, REFUSED, V5, V31, V311, Connection
from tests.support.mqtt_broker import (
    ACTIVE,
    DISABLED,
    REMOVED,
    Ground,
    Member,
    Shown,
    certificate,
    ground,
    token_without_signature,
)
from tests.support.pki import key_pem, p256_key

SERVICE = "zdm-ingestion"
# As permissive as a machine may be: what is refused here, we refuse.
PERMISSIVE = """openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1
CipherString = DEFAULT@SECLEVEL=0
"""


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    folder = tmp_path_factory.mktemp("access")
    (folder / "openssl.cnf").write_text(PERMISSIVE)
    async with ground(folder / "home", {"OPENSSL_CONF": str(folder / "openssl.cnf")}) as one:
        yield one


async def try_token(there: Ground, client_id: str, password: str | None, *, user: str | None = CLIENT_ID) -> int:
    connection = await Connection.open(there.broker.token_port, context=there.trusting())
    return await connection.connect(client_id, password, user=user)


# Tokens


async def test_a_token_lets_its_device_in_over_tls_and_where_it_is_switched_on_without(there: Ground) -> None:
    one = await there.member()
    assert await try_token(there, one.id, one.token()) == 0
    assert await try_token(there, one.id, one.token(user=one.id, exp=int(time()) - 280)) == 0
    await there.connected(one)
    assert there.presence(one).count("connected") == 3


async def test_a_device_with_an_address_uses_it_and_is_known_by_its_id(there: Ground) -> None:
    one = await there.member(address="sn0123 EE")
    connection = await there.connected(one)
    assert await connection.subscribe("j/dn/sn0123 EE") == 1
    assert await connection.publish("j/data/sn0123 EE/env", b"1") == 0
    assert await connection.publish(f"j/data/{one.id}/env", b"2") == 0
    assert there.published(one) == [(f"j/data/{one.id}/env", b"1")]
    assert await try_token(there, one.id, one.token()) == REFUSED


async def test_a_key_for_es256_is_no_key_for_hs256(there: Ground) -> None:
    key = p256_key()
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    one = Member("dev-es256", public)
    await there.know(Entry(ACTIVE, one.id, "", [Key(1, "ES256", public)]))
    assert await try_token(there, one.id, one.token(secret=key_pem(key).encode(), algorithm="ES256")) == 0
    other = key_pem(p256_key()).encode()
    assert await try_token(there, one.id, one.token(secret=other, algorithm="ES256")) == REFUSED
    assert await try_token(there, one.id, one.token(secret=b"x" * 32)) == REFUSED


@pytest.mark.parametrize("version", [V311, V5])
async def test_a_device_chooses_its_keep_alive(there: Ground, version: int) -> None:
    one = await there.member()
    for keep_alive_s in (0, 1, 60, 65535):
        connection = await there.connected(one, version=version, keep_alive_s=keep_alive_s)
        assert await connection.publish(one.data) in (0, 0x10)


BAD_TOKENS: dict[str, tuple[Callable[[Member], str | None], str]] = {
    "none": (lambda one: None, "no_password"),
    "empty": (lambda one: "", "no_password"),
    "a word": (lambda one: "password", "token_malformed"),
    "huge": (lambda one: one.token(pad="x" * 5000), "token_malformed"),
    "expiry that is no time": (lambda one: one.token(exp=None), "token_malformed"),
    "expired": (lambda one: one.token(exp=int(time()) - 310), "token_expired"),
    "of another device": (lambda one: one.token(sub="dev-000000000000"), "token_subject"),
    "for another user": (lambda one: one.token(user="dev-000000000000"), "token_subject"),
    "signed with another key": (lambda one: one.token(secret=b"x" * 32), "token_signature"),
    "cut": (lambda one: one.token()[:-1], "token_signature"),
    "of a key that there is not": (lambda one: one.token(key=2), "token_key"),
    "alg none": (token_without_signature, "token_algorithm"),
    "alg HS512": (lambda one: one.token(secret=one.key * 2, algorithm="HS512"), "token_algorithm"),
}


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_bad_token_is_refused(there: Ground, kind: str) -> None:
    one = await there.member()
    assert await try_token(there, one.id, BAD_TOKENS[kind][0](one)) == REFUSED
    assert there.presence(one) == []


async def test_the_name_of_a_client_is_its_device_in_every_place(there: Ground) -> None:
    one, other = await there.member(), await there.member()
    assert await try_token(there, other.id, one.token(), user=one.id) == REFUSED
    assert await try_token(there, one.id, one.token(), user=other.id) == REFUSED
    assert await try_token(there, one.id, one.token(), user=one.id.upper()) == REFUSED
    assert await try_token(there, "", one.token(), user=one.id) == REFUSED
    assert await try_token(there, one.id, one.token(), user="") == REFUSED
    assert await try_token(there, one.id, one.token(), user=None) == CLOSED  # a password needs a user name
    assert await try_token(there, one.id, None, user=None) == REFUSED
    assert await try_token(there, "dev-000000000000", one.token(sub="dev-000000000000")) == REFUSED


async def test_a_disabled_or_removed_device_is_cut_off_at_once_and_refused(there: Ground) -> None:
    for state in (DISABLED, REMOVED):
        one = await there.member()
        session = await there.connected(one)
        await there.set_state(one, state)
        assert there.presence(one) == ["connected", "kicked"]  # before provisioning had its answer
        assert await session.is_closed()
        assert await try_token(there, one.id, one.token()) == REFUSED


async def test_a_device_whose_address_changes_or_goes_to_another_is_cut_off(there: Ground) -> None:
    one, other = await there.member(address="sn1"), await there.member()
    session = await there.connected(one)
    await there.know(Entry(ACTIVE, one.id, "sn2", [Key(1, "HS256", one.key)]))
    assert await session.is_closed()
    session = await there.connected(one._replace(address="sn2"))
    await there.know(Entry(ACTIVE, other.id, "sn2", [Key(1, "HS256", other.key)]))
    assert await session.is_closed()
    assert there.presence(one) == ["connected", "kicked"] * 2
    await there.connected(other._replace(address="sn2"))


async def test_each_refusal_is_counted_under_its_reason(there: Ground) -> None:
    one, disabled = await there.member(), await there.member()
    await there.set_state(disabled, DISABLED)
    before, wanted = await there.counters(), dict.fromkeys(("client_id", "unknown_device", "disabled", "service"), 1)
    for make, reason in BAD_TOKENS.values():
        await try_token(there, one.id, make(one))
        wanted[reason] = wanted.get(reason, 0) + 1
    await try_token(there, one.id, one.token(), user="other")
    await try_token(there, "dev-000000000000", "x")
    await try_token(there, disabled.id, disabled.token())
    await try_token(there, SERVICE, "x")
    counted = await there.counters() - before
    for reason, count in wanted.items():
        assert counted[f'connects_refused_total{{reason="{reason}"}}'] == count, reason
    assert counted["connects_total"] == 0


# Certificates


async def try_certificate(there: Ground, client_id: str, shown: Shown | None, user: str | None = None) -> int:
    try:
        connection = await Connection.open(there.broker.mtls_port, context=there.trusting(shown))
    except OSError:
        return CLOSED
    return await connection.connect(client_id, user=user)


async def certified(there: Ground, *more: Shown, device: str) -> Shown:
    """A device that is known with a good certificate, and others that are taken for its own."""
    good = certificate(there.pki.device_authority, device)
    prints = [shown.fingerprint for shown in (good, *more)]
    await there.know(Entry(ACTIVE, device, "", [], prints))
    return good


async def test_a_certificate_of_our_authority_lets_its_device_in(there: Ground) -> None:
    good = await certified(there, device="dev-c1")
    assert await try_certificate(there, "dev-c1", good) == 0
    assert await try_certificate(there, "dev-c1", good, user="dev-c1") == 0
    assert await try_certificate(there, "dev-c1", good, user="other") == REFUSED


async def test_one_that_ended_or_has_not_begun_or_that_others_signed_ends_the_handshake(there: Ground) -> None:
    key = p256_key()
    namesake = Pair(self_signed_authority("ZDM device CA", key, datetime.now(UTC), timedelta(days=9)), key)
    ours = there.pki.device_authority
    bad = [
        certificate(ours, "dev-c2", begins=timedelta(days=-3), ends=timedelta(minutes=-1)),
        certificate(ours, "dev-c2", begins=timedelta(days=2), ends=timedelta(days=3)),
        certificate(ours, "dev-c2", self_signed=True),
        certificate(namesake, "dev-c2"),
    ]
    good = await certified(there, *bad, device="dev-c2")
    for shown in (*bad, None):
        assert await try_certificate(there, "dev-c2", shown) == CLOSED
    assert await try_certificate(there, "dev-c2", good) == 0


async def test_one_of_ours_counts_for_the_device_it_was_made_for_and_until_it_is_revoked(there: Ground) -> None:
    foreign = certificate(there.pki.device_authority, "dev-other")
    good = await certified(there, foreign, device="dev-c3")
    before = await there.counters()
    assert await try_certificate(there, "dev-c3", foreign) == REFUSED  # its fingerprint is known, its name is wrong
    assert await try_certificate(there, "dev-other", foreign) == REFUSED  # nobody knows that device
    assert await try_certificate(there, "dev-c3", certificate(there.pki.device_authority, "dev-c3")) == REFUSED
    assert await try_certificate(there, "dev-c3", good) == 0
    await there.know(Entry(ACTIVE, "dev-c3", "", [], []))
    assert await try_certificate(there, "dev-c3", good) == REFUSED
    assert (await there.counters() - before)['connects_refused_total{reason="certificate"}'] == 3


async def test_a_good_token_does_not_stand_in_for_a_certificate(there: Ground) -> None:
    one = await there.member()
    try:
        connection = await Connection.open(there.broker.mtls_port, context=there.trusting())
        assert await connection.connect(one.id, one.token()) == CLOSED
    except OSError:
        pass
    other = certificate(there.pki.device_authority, "dev-other")
    connection = await Connection.open(there.broker.mtls_port, context=there.trusting(other))
    assert await connection.connect(one.id, one.token()) == REFUSED
    assert there.presence(one) == []


# Ports


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_is_1_2_or_1_3(there: Ground, version: ssl.TLSVersion) -> None:
    one = await there.member()
    good = await certified(there, device=f"dev-tls-{version.value}")
    for port, shown in ((there.broker.token_port, None), (there.broker.mtls_port, good)):
        context = there.trusting(shown)
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        if version is ssl.TLSVersion.TLSv1_1:
            with pytest.raises(OSError):
                await Connection.open(port, context=context)
        elif shown is None:
            assert await (await Connection.open(port, context=context)).connect(one.id, one.token()) == 0
        else:
            assert await (await Connection.open(port, context=context)).connect(f"dev-tls-{version.value}") == 0


async def test_without_tls_nobody_gets_through_to_a_port_with_it(there: Ground) -> None:
    one = await there.member()
    for port in (there.broker.token_port, there.broker.mtls_port):
        assert await (await Connection.open(port)).connect(one.id, one.token()) == CLOSED


async def test_a_port_without_tls_is_off_by_default(tmp_path: Path) -> None:
    async with ground(tmp_path / "home", {"ZDM_MQTT_PLAIN_PORT": "off"}) as one:
        with pytest.raises(OSError):
            await Connection.open(one.broker.plain_port)
        await (await Connection.open(one.broker.token_port, context=one.trusting())).leave()


# Services


async def test_services_come_in_by_the_socket_alone_and_with_their_secret(there: Ground) -> None:
    secret = (there.home / "broker/service.key").read_text().strip()
    socket = there.home / "broker/control.sock"
    good = certificate(there.pki.device_authority, SERVICE)
    mtls = await Connection.open(there.broker.mtls_port, context=there.trusting(good))
    assert await mtls.connect(SERVICE, secret) == REFUSED
    assert await try_token(there, SERVICE, secret) == REFUSED
    assert await (await Connection.open(there.broker.plain_port)).connect(SERVICE, secret) == REFUSED
    for password in (None, "", secret[:-1], secret + "0", "0" * 64):
        assert await (await Connection.open(socket)).connect(SERVICE, password) == REFUSED
    assert await (await Connection.open(socket)).connect(SERVICE, secret, user="zdm-provisioning") == REFUSED
    assert await (await Connection.open(socket)).connect("zdm-gateway", secret) == REFUSED
    assert await (await Connection.open(socket)).connect(SERVICE, secret) == 0


async def test_devices_do_not_come_in_by_the_socket(there: Ground) -> None:
    one = await there.member()
    connection = await Connection.open(there.home / "broker/control.sock")
    assert await connection.connect(one.id, one.token()) == REFUSED


async def test_a_service_uses_the_control_topic_and_nothing_else(there: Ground) -> None:
    one, secret = await there.member(), (there.home / "broker/service.key").read_text().strip()
    service = await Connection.open(there.home / "broker/control.sock")
    assert await service.connect(SERVICE, secret) == 0
    for topic in ("#", "$SYS/#", one.down, "$CONTROL/#", "$CONTROL/zdm/v1/response"):
        assert await service.subscribe(topic) == 0x80
    assert await service.publish(one.data) == 0
    assert there.published(one) == []
    assert await service.publish("$CONTROL/dynamic-security/v1") == 0
    assert await service.publish("$CONTROL/zdm/v1", b"no frame") == 0  # it answers nothing, and lives


async def test_a_device_gets_nothing_by_the_control_topic(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    place = await there.is_at()
    hello = b"\x09\0\0\0\x6d\x5d\x3a\x0c" + b"H" + bytes(8)
    assert await connection.publish("$CONTROL/zdm/v1", hello) == 0
    assert await connection.subscribe("$CONTROL/zdm/v1/response") == 0x80
    assert await connection.messages() == []
    assert await there.is_at() == place._replace(request=place.request + 1)


# Topics


def foreign_topics(one: Member, other: Member) -> list[str]:
    return [
        other.data,
        f"j/up/{other.id}",
        other.down,
        one.down,
        f"j/data/{one.id}x",
        f"j/data/{one.id[:-1]}",
        f"j/up/{one.id}/more",
        "j/data/",
        "$SYS/broker/uptime",
        "$SYS/broker/connection/x/state",
        "anything",
    ]


async def test_a_publish_to_what_is_not_its_own_is_acknowledged_and_dropped(there: Ground) -> None:
    one, other = await there.member(), await there.member()
    connection, listener = await there.connected(one), await there.connected(other)
    assert await listener.subscribe(other.down) == 1
    before = await there.counters()
    topics = foreign_topics(one, other)
    for topic in topics:
        for qos in (1, 2):
            assert await connection.publish(topic, qos=qos, is_retained=qos == 1) == 0
        await connection.write(connection.publish_packet(topic, qos=0))
    assert await connection.publish(one.data) == 0  # the session lives
    assert len(there.published(one)) == 1
    assert there.published(other) == []
    assert await listener.messages() == []
    counted = await there.counters() - before
    # `$SYS` is denied by Mosquitto before it asks.
    assert counted['publishes_refused_total{reason="topic"}'] == 3 * (len(topics) - 1)


async def test_a_device_subscribes_to_its_own_topic_alone(there: Ground) -> None:
    one, other = await there.member(), await there.member()
    connection = await there.connected(one)
    foreign = [
        *("#", "+", "+/#", "j/#", "j/dn/#", "j/dn/+", "+/dn/+", "$SYS/#", "$SYS/broker/uptime", "$CONTROL/#"),
        *(f"$share/g/j/dn/{one.id}", "$share/g/#", other.down, f"{one.down}/#", f"{one.down}/", one.data),
    ]
    before = await there.counters()
    for topic in foreign:
        assert await connection.subscribe(topic) == 0x80, topic
    assert await connection.subscribe(one.down) == 1
    assert (await there.counters() - before)["subscribes_refused_total"] == len(foreign)


@pytest.mark.parametrize("version", [V31, V311, V5, V311 | 0x80])  # the last: as bridges do
async def test_every_version_of_the_protocol_has_the_same_rules(there: Ground, version: int) -> None:
    one, other = await there.member(), await there.member()
    connection = await there.connected(one, version=version)
    assert await connection.subscribe(one.down) == 1
    assert await connection.subscribe("#") == (0x87 if version == V5 else 1 if version == V31 else 0x80)
    assert await connection.publish(one.data, b"1") == (0x10 if version == V5 else 0)  # nobody subscribes, it says
    assert await connection.publish(other.data) == (0x87 if version == V5 else 0)
    assert there.published(one) == [(one.data, b"1")]
    assert there.published(other) == []
    assert await (await Connection.open(there.broker.plain_port, version=version)).connect(one.id, "x") != 0
