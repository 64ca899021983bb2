"""What was acknowledged is in the spool, whatever happens to the broker or its disk; and what a bad crowd costs."""

import asyncio
import itertools
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.simulator.device import ConnectionRefused, Device
from services.ingestion.domain.records import BROKER_STARTED, PUBLISH
from shared.frames import Down, Entry
from tests.support.disk import MIB, small_disk
from tests.support.mqtt import CLOSED, CONNECT, REFUSED, Connection, binary, packet, text
from tests.support.mqtt_broker import ACTIVE, DISABLED, Ground, Member, certificate, ground
from tests.support.waiting import eventually

MESSAGES, SENDERS, WINDOW = 20_000, 4, 100
KILLED_AT = (4_000, 11_000)
ROOM = 2_000_000
STORM = 2000
LINES = 60
COUNTED = {"token": "token_malformed", "certificate": "tls"}  # the others fail before there is anything to count


async def refuses(there: Ground, *, refusing: bool) -> None:
    """Wait until the spool refuses, or has room again. The broker looks once a second."""

    async def look() -> bool:
        return (await there.counters())["spool_refusing"] == refusing

    await eventually(look)


class Ballast:
    """A segment that nobody has read yet."""

    def __init__(self, there: Ground) -> None:
        self._file = there.home / "spool/0000000000000000.spool"

    def load(self) -> None:
        """Beyond the limit."""
        self._file.write_bytes(bytes(ROOM))

    def unload(self) -> None:
        """As ingestion deletes it."""
        self._file.unlink()


# Full


async def test_a_full_spool_acknowledges_nothing_until_there_is_room(tmp_path: Path) -> None:
    async with ground(tmp_path / "home", {"ZDM_SPOOL_BYTES": str(ROOM)}) as there:
        one, away, ballast = await there.member(), await there.member(), Ballast(there)
        connection, idle = await there.connected(one), await there.connected(away)
        assert await connection.publish(one.data, b"1") == 0
        before = await there.counters()
        ballast.load()
        await refuses(there, refusing=True)
        assert await connection.publish(one.data, b"2") is None
        assert await (await Connection.open(there.broker.plain_port)).connect(one.id, one.token()) == REFUSED
        assert await there.send(Down("m1", away.id, b"{}")) == 4
        idle.vanish()
        ballast.unload()
        await refuses(there, refusing=False)
        counted = await there.counters() - before
        assert counted['publishes_refused_total{reason="spool"}'] == 1
        assert counted['connects_refused_total{reason="spool"}'] == 1
        assert await (await there.connected(one)).publish(one.data, b"3") == 0
        assert [payload for _, payload in there.published(one)] == [b"1", b"3"]
        # What could not be written of presence was owed, and is there.
        assert there.presence(one) == ["connected", "closed", "connected"]
        assert there.presence(away) == ["connected", "closed"]
        assert await there.send(Down("m1", away.id, b"{}")) == 0


async def test_a_session_that_could_not_be_taken_over_goes_on(tmp_path: Path) -> None:
    async with ground(tmp_path / "home", {"ZDM_SPOOL_BYTES": str(ROOM)}) as there:
        one, ballast = await there.member(), Ballast(there)
        first = await there.connected(one)
        ballast.load()
        await refuses(there, refusing=True)
        assert await (await Connection.open(there.broker.plain_port)).connect(one.id, one.token()) == REFUSED
        ballast.unload()
        await refuses(there, refusing=False)
        assert await first.publish(one.data, b"1") == 0
        assert there.published(one) == [(one.data, b"1")]
        assert there.presence(one) == ["connected"]


async def test_on_a_full_disk_nothing_is_acknowledged_that_is_not_written(tmp_path: Path) -> None:
    with small_disk(tmp_path, 16 * MIB) as disk:
        async with ground(disk.folder / "home", {"ZDM_SPOOL_FREE_BYTES": "0"}) as there:
            one, payload = await there.member(), b"x" * 3000
            connection = await there.connected(one)
            assert await connection.publish(one.data, payload) == 0
            disk.fill(leave=20_000)
            acknowledged = 1
            while await connection.publish(one.data, payload) == 0:
                acknowledged += 1
            assert len(there.published(one)) == acknowledged
            # It still learns whom to let in, keeps that for later, and cuts off whom it must not.
            other = await there.member()
            await there.set_state(one, DISABLED)
            disk.free()
            assert await (await there.connected(other)).publish(other.data, payload) == 0

            async def look() -> bool:
                return (await there.counters())["snapshot_behind"] == 0

            await eventually(look)
            place = await there.is_at()
            await there.restart()
            assert (await there.is_at()).place == place.place
            assert len(there.published(one)) == acknowledged
            assert await (await Connection.open(there.broker.plain_port)).connect(one.id, one.token()) == REFUSED


# Killed


class Sender:
    """Sends numbered messages, many at once, and again what was not acknowledged."""

    def __init__(self, there: Ground, member: Member, count: int) -> None:
        self._there = there
        self._member = member
        self._left = list(reversed(range(count)))
        self.acknowledged: set[int] = set()

    async def run(self) -> None:
        """Until all is acknowledged."""
        while self._left:
            with suppress(ConnectionError, ConnectionRefused, OSError, TimeoutError):
                port = self._there.broker.plain_port
                device = await Device.open(self._member.id, self._member.token(), "localhost", port, timeout_s=2)
                try:
                    await asyncio.gather(*(self._send(device) for _ in range(WINDOW)))
                finally:
                    device.close()
            await asyncio.sleep(0.01)

    async def _send(self, device: Device) -> None:
        while self._left:
            number = self._left.pop()
            try:
                await device.publish(self._member.data, b"%d" % number)
            except BaseException:
                self._left.append(number)
                raise
            self.acknowledged.add(number)


async def test_of_20000_messages_all_acknowledged_are_there_when_the_broker_is_killed(tmp_path: Path) -> None:
    async with ground(tmp_path / "home", {"ZDM_DEVICE_RATE": "0"}) as there:
        members = [await there.member() for _ in range(SENDERS)]
        senders = [Sender(there, member, MESSAGES // SENDERS) for member in members]
        sending = [asyncio.create_task(sender.run()) for sender in senders]
        for enough in KILLED_AT:
            while sum(len(sender.acknowledged) for sender in senders) < enough:
                await asyncio.sleep(0.001)
            before = {member.id: set(sender.acknowledged) for member, sender in zip(members, senders, strict=True)}
            await there.broker.kill()
            for member in members:
                assert before[member.id] <= {int(payload) for _, payload in there.published(member)}
            await there.start()
        await asyncio.gather(*sending)
        for member in members:
            records = there.records(member.id, PUBLISH)
            assert {int(record.payload) for record in records} == set(range(MESSAGES // SENDERS))
            assert len({record.time for record in records}) == len(records)
        check_numbers(there, starts=1 + len(KILLED_AT))


def check_numbers(there: Ground, starts: int) -> None:
    """They rise by one, and by a leap at each start of the broker."""
    records = there.records()
    boots = [record.sequence for record in records if record.kind == BROKER_STARTED]
    assert len(boots) == starts
    for earlier, later in itertools.pairwise(records):
        leap = later.sequence - earlier.sequence
        assert leap > 100_000 if later.kind == BROKER_STARTED else leap == 1
        assert later.boot == max(boot for boot in boots if boot <= later.sequence)


async def test_a_broker_that_was_killed_knows_its_devices_and_has_no_sessions(tmp_path: Path) -> None:
    async with ground(tmp_path / "home") as there:
        one, disabled = await there.member(), await there.member()
        shown = certificate(there.pki.device_authority, "dev-c")
        await there.know(Entry(ACTIVE, "dev-c", "", [], [shown.fingerprint]))
        await there.set_state(disabled, DISABLED)
        session = await there.connected(one, clean=False)
        await session.subscribe(one.down)
        place = await there.is_at()
        await there.restart()
        assert await session.is_closed()
        assert (await there.is_at())._replace(request=place.request) == place
        assert await there.send(Down("m1", one.id, b"1")) == 0
        again = await there.connected(one, clean=False)
        assert not again.session_present
        assert await again.messages() == []
        mtls = await Connection.open(there.broker.mtls_port, context=there.trusting(shown))
        assert await mtls.connect("dev-c", user=None) == 0
        refused = await Connection.open(there.broker.plain_port)
        assert await refused.connect(disabled.id, disabled.token()) == REFUSED
        # Of the earlier session there is no end: the broker's start is its end.
        boots = [record.boot for record in there.records(one.id)]
        assert there.presence(one) == ["connected", "connected"]
        assert boots[0] < boots[-1]


# Crowds


@pytest.mark.parametrize("kind", ["token", "certificate", "no tls", "no user name"])
async def test_a_storm_of_wrong_logins_fills_no_log_and_harms_nobody(tmp_path: Path, kind: str) -> None:
    async with ground(tmp_path / "home") as there:
        one = await there.member()
        session = await there.connected(one)
        stranger = certificate(there.pki.device_authority, one.id, self_signed=True)
        context = there.trusting(stranger)

        async def try_once() -> None:
            with suppress(OSError):
                if kind == "certificate":
                    await (await Connection.open(there.broker.mtls_port, context=context)).connect(one.id)
                    return
                port = there.broker.token_port if kind == "no tls" else there.broker.plain_port
                connection = await Connection.open(port)
                if kind == "no user name":
                    head = text("MQTT") + bytes([4, 0x42, 0, 60])
                    await connection.write(packet(CONNECT, head + text("x" * 60) + binary(b"x")))
                    assert await connection.is_closed()
                else:
                    assert await connection.connect(one.id, "wrong") in (REFUSED, CLOSED)

        storm = STORM if kind == "token" else STORM // 10
        for _ in range(storm // 50):
            await asyncio.gather(*(try_once() for _ in range(50)))
        assert await session.publish(one.data) == 0
        counted = await there.counters()
        assert len((tmp_path / "broker.log").read_text().splitlines()) < LINES
        if kind in COUNTED:
            assert counted[f'connects_refused_total{{reason="{COUNTED[kind]}"}}'] == storm // 50 * 50
