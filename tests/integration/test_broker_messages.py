"""What becomes of messages at the broker: strange ones, wills, retained ones, sessions that last, and the way down."""

from collections.abc import AsyncIterator
from time import time

import pytest

from services.ingestion.domain.records import PUBLISH
from shared.frames import Down
from tests.support.mqtt import PUBLISH as PUBLISH_PACKET
from tests.support.mqtt import PUBREC, V5, Connection, Will, binary, length_of, packet, text
from tests.support.mqtt_broker import ACTIVE, DISABLED, Ground, Member, ground
from tests.support.waiting import eventually

RATE, BURST = 10, 20
QUIET_S = 60
MEBIBYTE = 1024 * 1024


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ground]:
    limits = {"ZDM_DEVICE_RATE": str(RATE), "ZDM_DEVICE_BURST": str(BURST)}
    async with ground(tmp_path_factory.mktemp("messages") / "home", limits) as one:
        yield one


# Up


async def test_a_message_is_in_the_spool_when_it_is_acknowledged(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    for number, topic in enumerate([one.data, f"j/data/{one.id}", f"j/data/{one.id}/a/b", f"j/up/{one.id}"]):
        assert await connection.publish(topic, b"%d" % number) == 0
        assert there.published(one)[-1] == (topic, b"%d" % number)
    times = [record.time for record in there.records(one.id, PUBLISH)]
    assert times == sorted(set(times))
    assert abs(times[0] - time() * 1000) < QUIET_S * 1000


async def test_an_empty_payload_and_one_of_a_mebibyte_are_taken(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    large = bytes(range(256)) * (MEBIBYTE // 256)
    assert await connection.publish(one.data, b"") == 0
    assert await connection.publish(one.data, large) == 0
    assert [payload for _, payload in there.published(one)] == [b"", large]


async def test_what_is_sent_at_qos_2_is_taken_at_least_once(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    assert await connection.publish(one.data, b"1", qos=2) == 0
    again = packet(PUBLISH_PACKET | 0x0C, text(one.data) + b"\0\x07" + b"2")
    await connection.write(again, again)  # its acknowledgement was late
    assert (await connection.answer(PUBREC)) is not None
    assert await connection.publish(one.data, b"3") == 0
    payloads = [payload for _, payload in there.published(one)]
    assert (payloads[0], payloads[-1], set(payloads)) == (b"1", b"3", {b"1", b"2", b"3"})


async def test_a_retained_message_counts_and_is_not_retained(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    await connection.write(connection.publish_packet(one.data, b"0", qos=0, is_retained=True))
    assert await connection.publish(one.data, b"1", is_retained=True) == 0
    assert await connection.publish(one.data, b"2", qos=2, is_retained=True) == 0
    # QoS as it was sent, and that it was to be retained.
    assert [record.flags for record in there.records(one.id, PUBLISH)] == [8, 9, 10]
    before = there.memory()
    for number in range(BURST - 3):
        assert await connection.publish(f"{one.data}/{number}", bytes(MEBIBYTE), is_retained=True) == 0
    assert there.memory() - before < BURST / 2 * MEBIBYTE


def _publish(topic: bytes, message_id: bytes = b"\0\1", flags: int = 2) -> bytes:
    return packet(PUBLISH_PACKET | flags, binary(topic) + message_id + b"{}")


NOT_MQTT = {
    "NUL in the topic": _publish(b"j/data/\0"),
    "a topic that is not UTF-8": _publish(b"j/data/\xff\xfe"),
    "a surrogate in the topic": _publish(b"j/data/\xed\xa0\x80"),
    "a topic with +": _publish(b"j/data/+"),
    "a topic with #": _publish(b"j/data/#"),
    "no topic": _publish(b""),
    "message id 0": _publish(b"j/data/x", b"\0\0"),
    "QoS 3": _publish(b"j/data/x", flags=6),
    "a topic beyond the packet": packet(PUBLISH_PACKET | 2, b"\xff\xffj"),
    "an empty PUBLISH": packet(PUBLISH_PACKET | 2, b""),
    "kind 0": packet(0x00, b""),
    "a second CONNECT": packet(0x10, text("MQTT") + b"\x04\x02\0\x3c\0\0"),
    "a SUBSCRIBE to nothing": packet(0x82, b"\0\1"),
    "a length of five bytes": b"\x30\xff\xff\xff\xff\xff",
    "all ones": b"\xff" * 64,
}


@pytest.mark.parametrize("kind", NOT_MQTT)
async def test_what_is_not_mqtt_ends_the_session_and_nothing_else(there: Ground, kind: str) -> None:
    one, other = await there.member(), await there.member()
    connection, bystander = await there.connected(one), await there.connected(other)
    await connection.write(NOT_MQTT[kind])
    assert await connection.is_closed()
    assert there.presence(one) == ["connected", "closed"]
    assert await bystander.publish(other.data) == 0
    assert there.records(one.id, PUBLISH) == []


@pytest.mark.parametrize("size", [1_400_000, 10_000_000, 268_435_455])
async def test_a_packet_that_is_too_large_ends_the_session(there: Ground, size: int) -> None:
    one = await there.member()
    connection = await there.connected(one)
    await connection.write(bytes([PUBLISH_PACKET | 2]) + length_of(size) + text(one.data) + b"\0\x01")
    await connection.write(*[bytes(100_000)] * min(size // 100_000, 100))
    assert await connection.is_closed()
    assert there.presence(one) == ["connected", "closed"]
    assert there.published(one) == []
    assert await (await there.connected(one)).publish(one.data) == 0


async def test_a_stranger_cannot_send_a_large_packet_either(there: Ground) -> None:
    connection = await Connection.open(there.broker.plain_port)
    await connection.write(b"\x10" + length_of(100_000_000), *[bytes(100_000)] * 20)
    assert await connection.is_closed()


async def test_a_topic_that_no_record_could_hold_is_acknowledged_and_dropped(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    assert await connection.publish(f"{one.data}/{'x' * 5000}") == 0
    assert await connection.publish(f"{one.data}/{'x' * 256}") == 0
    assert len(there.published(one)) == 1


async def test_what_becomes_of_messages_is_counted(there: Ground) -> None:
    one, away = await there.member(), await there.member()
    before = await there.counters()
    connection = await there.connected(one)
    assert await connection.publish(one.data, b"12345", is_retained=True) == 0
    assert await connection.publish(f"{one.data}/{'x' * 5000}") == 0
    assert await there.send(Down("m1", one.id, b"1"), Down("m2", away.id, b"2"), Down("m3", away.id, b"3")) == 0
    assert await there.send(Down("x" * 129, one.id, b"1")) == 2
    session = await there.connected(one)
    await there.set_state(one, DISABLED)
    assert await session.is_closed()
    counted = await there.counters() - before
    wanted = {
        "connects_total": 2,
        "kicks_total": 1,
        "publishes_total": 1,
        "published_bytes_total": 5,
        "retain_flags_dropped_total": 1,
        'publishes_refused_total{reason="topic"}': 1,
        'handed_over_total{to="live"}': 1,
        'handed_over_total{to="away"}': 2,
        'control_refused_total{reason="malformed"}': 1,
    }
    assert {name: counted[name] for name in wanted} == wanted


async def test_a_device_that_sends_too_fast_is_cut_off_unacknowledged_and_sends_again_later(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    before = await there.counters()
    acknowledged = 0
    while await connection.publish(one.data, b"%d" % acknowledged) == 0:
        acknowledged += 1
    assert BURST <= acknowledged < BURST * 4
    assert [payload for _, payload in there.published(one)] == [b"%d" % number for number in range(acknowledged)]
    assert there.presence(one) == ["connected", "rate_limit"]
    assert (await there.counters() - before)['publishes_refused_total{reason="rate"}'] == 1

    async def look() -> bool:
        return await (await there.connected(one)).publish(one.data, b"again") == 0

    await eventually(look, every_s=1 / RATE)
    assert there.published(one)[-1] == (one.data, b"again")


# Wills


@pytest.mark.parametrize("is_retained", [False, True])
async def test_a_will_gets_nowhere(there: Ground, is_retained: bool) -> None:
    one, other = await there.member(), await there.member()
    listener = await there.connected(other)
    assert await listener.subscribe(other.down) == 1
    before = await there.counters()
    topics = (one.data, f"j/up/{one.id}", one.down, other.data, f"j/up/{other.id}", other.down, "anything")
    for topic in topics:
        (await there.connected(one, will=Will(topic, qos=2, is_retained=is_retained))).vanish()
        await there.has_left(one, "connected", "closed")
    assert await listener.messages() == []
    assert await listener.subscribe(other.down) == 1
    assert await listener.messages() == []  # nor is it kept
    assert there.records(one.id, PUBLISH) == []
    assert there.records(other.id, PUBLISH) == []
    assert (await there.counters() - before)['publishes_refused_total{reason="session_over"}'] == len(topics)


@pytest.mark.parametrize("topic", ["$CONTROL/zdm/v1", "$SYS/x", "j/dn/#", ""])
async def test_a_will_to_where_nobody_may_publish_gets_nowhere_either(there: Ground, topic: str) -> None:
    one = await there.member()
    connection = await Connection.open(there.broker.plain_port)
    if await connection.connect(one.id, one.token(), will=Will(topic)) == 0:
        connection.vanish()
        await there.has_left(one, "connected", "closed")
    place = await there.is_at()
    assert place.log_id
    assert there.records(one.id, PUBLISH) == []


async def test_a_will_gets_nowhere_when_its_session_is_taken_over_or_cut(there: Ground) -> None:
    one = await there.member()
    await there.connected(one)
    first = await there.connected(one, will=Will(one.data))
    second = await there.connected(one, will=Will(one.data))
    assert await first.is_closed()
    await there.set_state(one, DISABLED)
    assert await second.is_closed()
    assert there.records(one.id, PUBLISH) == []


# MQTT 5


def delay(seconds: int) -> bytes:
    return b"\x18" + seconds.to_bytes(4, "big")


def expiry(seconds: int) -> bytes:
    return b"\x11" + seconds.to_bytes(4, "big")


def alias(number: int) -> bytes:
    return b"\x23" + number.to_bytes(2, "big")


async def test_a_delayed_will_gets_nowhere(there: Ground) -> None:
    one, before = await there.member(), await there.counters()
    will = Will(one.data, properties=delay(1))
    (await there.connected(one, version=V5, will=will, properties=expiry(QUIET_S))).vanish()

    async def look() -> bool:
        return (await there.counters() - before)['publishes_refused_total{reason="session_over"}'] == 1

    await eventually(look)
    assert there.records(one.id, PUBLISH) == []


async def test_a_topic_alias_leads_to_its_own_topics_alone(there: Ground) -> None:
    one, other = await there.member(), await there.member()
    connection = await there.connected(one, version=V5)
    assert await connection.publish(one.data, b"1", properties=alias(1)) == 0x10
    assert await connection.publish("", b"2", properties=alias(1)) == 0x10
    assert await connection.publish(other.data, b"3", properties=alias(1)) == 0x87
    assert await connection.publish("", b"4", properties=alias(1)) == 0x87
    assert [payload for _, payload in there.published(one)] == [b"1", b"2"]
    assert there.published(other) == []
    assert await connection.publish("", b"5", properties=alias(9)) is None  # never given


async def test_other_ways_to_authenticate_are_refused(there: Ground) -> None:
    one = await there.member()
    method = b"\x15" + text("SCRAM-SHA-1") + b"\x16" + binary(b"data")
    connection = await Connection.open(there.broker.plain_port, version=V5)
    assert await connection.connect(one.id, one.token(), properties=method) == 0x8C
    connection = await there.connected(one, version=V5)
    await connection.write(packet(0xF0, b"\x18" + bytes([len(method)]) + method))
    await connection.is_closed()
    assert there.presence(one)[-1] == "closed"


# Sessions


async def test_a_second_session_takes_over_from_the_first(there: Ground) -> None:
    one = await there.member()
    first = await there.connected(one)
    assert await first.publish(one.data, b"1") == 0
    second = await there.connected(one)
    assert await first.is_closed()
    assert await second.publish(one.data, b"2") == 0
    sessions = [record.session for record in there.records(one.id)]
    assert there.presence(one) == ["connected", "taken_over", "connected"]
    assert sessions == [sessions[0]] * 3 + [sessions[-1]] * 2
    assert sessions[0] != sessions[-1]


@pytest.mark.parametrize(("version", "more"), [(4, {}), (V5, {"properties": expiry(3600)})])
async def test_a_session_that_lasts_has_nothing_waiting_for_it(
    there: Ground, version: int, more: dict[str, bytes]
) -> None:
    one = await there.member()
    connection = await there.connected(one, clean=False, version=version, **more)
    assert await connection.subscribe(one.down) == 1
    connection.vanish()
    await there.has_left(one, "closed")
    assert await there.send(Down("m1", one.id, b"1")) == 0
    connection = await there.connected(one, clean=False, version=version, **more)
    assert connection.session_present
    assert await connection.messages() == []
    assert await there.send(Down("m2", one.id, b"2")) == 0
    await eventually(lambda: _got(connection, b"2"))
    assert there.handed(one) == [("m1", False), ("m2", True)]


async def _got(connection: Connection, *payloads: bytes) -> bool:
    """Whether the next messages are these; forgets them."""
    messages = await connection.messages()
    assert [message.payload for message in messages] in ([], [*payloads])
    return bool(messages)


async def test_a_session_that_was_cut_has_no_way_back(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one, clean=False)
    await connection.subscribe(one.down)
    await there.set_state(one, DISABLED)
    assert await connection.is_closed()
    again = await Connection.open(there.broker.plain_port)
    assert await again.connect(one.id, one.token(), clean=False) != 0
    assert await there.send(Down("m1", one.id, b"1")) == 0
    await there.set_state(one, ACTIVE)
    connection = await there.connected(one, clean=False)
    assert await connection.messages() == []
    assert there.handed(one) == [("m1", False)]


# Down


async def test_a_message_reaches_a_session_that_never_subscribed(there: Ground) -> None:
    one, other = await there.member(), await there.member(address="sn77")
    connection, addressed = await there.connected(one), await there.connected(other)
    assert await there.send(Down("m1", one.id, b"1"), Down("m2", other.id, b"2"), Down("m3", one.id, b"3")) == 0
    got: list[tuple[str, bytes]] = []

    async def look() -> bool:
        got.extend((message.topic, message.payload) for message in await connection.messages())
        return len(got) == 2

    await eventually(look)
    assert got == [(one.down, b"1"), (one.down, b"3")]
    await eventually(lambda: _got(addressed, b"2"))
    assert there.handed(one) == [("m1", True), ("m3", True)]
    sessions = {record.session for record in there.records(other.id)}
    assert len(sessions) == 1


async def test_a_message_for_who_is_away_or_unknown_is_noted_so(there: Ground) -> None:
    one, unknown = await there.member(), Member("dev-000000000000", b"")
    assert await there.send(Down("m1", one.id, b"1"), Down("m2", unknown.id, b"2")) == 0
    assert there.handed(one) == [("m1", False)]
    assert there.handed(unknown) == [("m2", False)]
    assert await (await there.connected(one)).messages() == []


async def test_a_message_that_was_not_acknowledged_comes_again_to_a_session_that_lasts(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one, clean=False)
    assert await there.send(Down("m1", one.id, b"1")) == 0
    await eventually(lambda: _got(connection, b"1"))
    connection.vanish()
    await there.has_left(one, "closed")
    connection = await there.connected(one, clean=False)
    again = await connection.messages()
    assert [(message.payload, message.is_repeated) for message in again] == [(b"1", True)]


async def test_a_message_that_could_not_be_noted_is_malformed(there: Ground) -> None:
    one = await there.member()
    connection = await there.connected(one)
    assert await there.send(Down("x" * 129, one.id, b"1")) == 2
    assert await there.send(Down("m1", "x" * 129, b"1")) == 2
    assert await connection.messages() == []
    assert await there.send(Down("x" * 128, one.id, b"1")) == 0
    assert there.handed(one) == [("x" * 128, True)]
