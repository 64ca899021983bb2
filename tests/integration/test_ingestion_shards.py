"""A broker among several, at a real one: which sessions get a message, and which are over. The tests are the others."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from types import MappingProxyType
from typing import NamedTuple

import pytest

from services.ingestion.domain.use_cases.hand_down import TOLERANCE_MS
from services.ingestion.settings import IngestionSettings
from services.ingestion.wiring import wire
from shared.messages.devices import DownRequested, HandedOver, PresenceChanged
from shared.messages.topics import DOWN, HANDED, PRESENCE
from shared.service import Platform
from tests.support.mqtt_broker import Ground, Member, ground
from tests.support.waiting import eventually
from tests.support.workers import at_work, values_in, working_platform

SEVERAL = {"ZDM_BROKERS": "broker,broker-2"}
HOUR_MS = 3600 * 1000


class Shard(NamedTuple):
    """A broker, and the log that its ingestion and others share."""

    ground: Ground
    platform: Platform

    async def request(self, one: Member, identifier: str, version: int) -> None:
        """As jobs does, at that time."""
        request = DownRequested(identifier, one.id, "@now", "{}", version)
        await self.platform.log.append(DOWN, [request.record()])

    async def is_elsewhere(self, one: Member, at: int, spool: str = "fedcba9876543210") -> None:
        """As the ingestion of another broker says."""
        said = PresenceChanged(
            id=f"{spool}-1", kind="connected", device_id=one.id, spool=spool, boot=1, session=2, at=at
        )
        await self.platform.log.append(PRESENCE, [said.record(one.id)])

    async def handed(self, *identifiers: str) -> list[HandedOver]:
        """What became of these, once it is known."""
        found: dict[str, HandedOver] = {}

        async def look() -> bool:
            values = [HandedOver.decode(value) for value in await values_in(self.platform, HANDED, 1)]
            found.update({one.down_id: one for one in values})
            return found.keys() >= set(identifiers)

        await eventually(look)
        return [found[identifier] for identifier in identifiers]

    async def began(self, one: Member) -> PresenceChanged:
        """Its session, as its broker said."""

        async def look() -> list[bytes]:
            return [value for value in await values_in(self.platform, PRESENCE, 1) if one.id.encode() in value]

        return PresenceChanged.decode((await eventually(look))[0])

    async def told(self) -> None:
        """The broker has heard of all that was said before: a device of its own is."""
        witness = await self.ground.member()
        connection = await self.ground.connected(witness)
        await self.is_elsewhere(witness, now() + 1)
        assert await connection.is_closed()


@asynccontextmanager
async def shard(home: Path, environment: Mapping[str, str] = MappingProxyType({})) -> AsyncIterator[Shard]:
    settings = IngestionSettings.load(environment)
    async with ground(home) as broker, working_platform(home) as platform, at_work(await wire(settings, platform)):
        yield Shard(broker, platform)


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shard]:
    async with shard(tmp_path_factory.mktemp("shard") / "home", SEVERAL) as one:
        yield one


def now() -> int:
    return int(time() * 1000)


async def test_a_message_goes_to_a_session_of_its_time_and_to_no_later_one(there: Shard) -> None:
    """To each session all is too old that its broker finds when it joins, or that others handed over meanwhile."""
    one = await there.ground.member()
    connection = await there.ground.connected(one)
    began = await there.began(one)
    versions = {"before": began.at - TOLERANCE_MS - 1, "by-a-slow-clock": began.at - TOLERANCE_MS, "since": now()}
    for identifier, version in versions.items():
        await there.request(one, identifier, version)
    handed = await there.handed(*versions)
    assert [outcome.live for outcome in handed] == [False, True, True]
    assert [outcome.session for outcome in handed] == [0, began.session, began.session]
    assert {outcome.spool for outcome in handed} == {began.spool}
    assert [message.topic for message in await connection.messages()] == [one.down, one.down]


async def test_where_there_is_one_broker_the_age_does_not_matter(tmp_path: Path) -> None:
    async with shard(tmp_path / "home") as there:
        one = await there.ground.member()
        connection = await there.ground.connected(one)
        await there.request(one, "old", 1)
        assert [handed.live for handed in await there.handed("old")] == [True]
        assert len(await connection.messages()) == 1


async def test_a_session_is_over_when_the_device_connects_elsewhere(there: Shard) -> None:
    one = await there.ground.member()
    connection = await there.ground.connected(one)
    await there.is_elsewhere(one, now() + 1)
    assert await connection.is_closed()
    await there.ground.has_left(one, "taken_over")


async def test_a_session_that_began_later_goes_on(there: Shard) -> None:
    one = await there.ground.member()
    elsewhere = now() - 1
    connection = await there.ground.connected(one)
    await there.is_elsewhere(one, elsewhere)
    await there.told()
    assert there.ground.presence(one) == ["connected"]
    assert await connection.publish(one.data, b"1") == 0


async def test_what_the_broker_said_itself_ends_no_session(there: Shard) -> None:
    """Were its clock set back, the session before would seem to have begun later."""
    one = await there.ground.member()
    connection = await there.ground.connected(one)
    own = (there.ground.home / "spool" / "id").read_text().strip()
    await there.is_elsewhere(one, now() + HOUR_MS, own)
    await there.told()
    assert there.ground.presence(one) == ["connected"]
    assert await connection.publish(one.data, b"1") == 0


async def test_a_move_while_the_ingestion_was_away_ends_the_session_when_it_is_back(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with ground(home) as broker, working_platform(home) as platform:
        there = Shard(broker, platform)
        one = await broker.member()
        connection = await broker.connected(one)
        await there.is_elsewhere(one, now() + 1)
        async with at_work(await wire(IngestionSettings.load(SEVERAL), platform)):
            assert await connection.is_closed()
