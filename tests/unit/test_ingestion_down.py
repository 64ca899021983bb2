"""Messages for devices: their envelope, their batches, and what becomes of those that cannot be sent."""

import base64
from collections.abc import Mapping, Sequence
from typing import Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingestion.domain.messages import BATCH_BYTES, BATCH_COUNT, Outgoing, batches, outgoing
from services.ingestion.domain.ports import Appends, Message
from services.ingestion.domain.use_cases.follow_moves import FollowMoves
from services.ingestion.domain.use_cases.hand_down import TOLERANCE_MS, HandDown
from shared.broker_control import PUBLISH_LIMIT
from shared.clock import SystemClock
from shared.frames import Down, send
from shared.log import Record, StoredRecord
from shared.messages.devices import DownRequested, PresenceChanged, Rejected
from shared.messages.topics import DOWN, rejected

Kind = Literal["connected", "disconnected", "broker_started"]
NOW = 1714637105250


def request(identifier: str, value: str = "{}", key: str = "#now", version: int = NOW) -> DownRequested:
    return DownRequested(identifier, "dev-1", key, value, version)


@pytest.mark.parametrize("value", ["null", '{"args" : {"$set":1.0}}', "[]", '"é"'])
def test_the_envelope_holds_the_text_of_the_value(value: str) -> None:
    message = outgoing(request("1", value, '@a"b'))
    assert message.payload.decode() == f'{{"version":1714637105250,"key":"@a\\"b","value":{value}}}'
    assert orjson.loads(message.payload)["key"] == '@a"b'


@given(st.lists(st.integers(0, BATCH_BYTES - 200), max_size=30))
def test_batches_keep_the_order_and_fit_one_publish(sizes: list[int]) -> None:
    messages = [Outgoing(f"é{number}", "dev-1", b"x" * size) for number, size in enumerate(sizes)]
    found = list(batches(messages))
    assert [message for batch in found for message in batch] == messages
    for batch in found:
        assert len(send(2**63, [Down(*message) for message in batch])) <= PUBLISH_LIMIT


def test_a_batch_has_so_many_messages_at_most() -> None:
    messages = [Outgoing(str(number), "dev-1", b"") for number in range(2 * BATCH_COUNT + 1)]
    assert [len(batch) for batch in batches(messages)] == [BATCH_COUNT, BATCH_COUNT, 1]


class FakeBroker:
    """Calls every batch malformed that holds one of `bad`."""

    def __init__(self, bad: Sequence[str] = ()) -> None:
        self.bad = set(bad)
        self.handed: list[str] = []
        self.began_by: list[int | None] = []

    async def send(self, messages: Sequence[Message]) -> bool:
        identifiers = [message.id for message in messages]
        if self.bad & set(identifiers):
            return False
        self.handed += identifiers
        self.began_by += [message.began_by for message in messages]
        return True


class FakeLog:
    """Keeps what is appended."""

    def __init__(self) -> None:
        self.appends: list[Appends] = []

    async def append(self, appends: Appends) -> None:
        self.appends.append(appends)


def stored(*records: Record) -> list[StoredRecord]:
    return [StoredRecord(0, offset, record.key, record.value) for offset, record in enumerate(records)]


async def test_what_the_broker_takes_is_sent_in_order_and_nothing_is_set_aside() -> None:
    broker, log = FakeBroker(), FakeLog()
    records = stored(*(request(str(number)).record() for number in range(5)))
    assert await HandDown(broker, log, SystemClock())(records) == []
    assert broker.handed == ["0", "1", "2", "3", "4"]
    assert log.appends == []


async def test_what_cannot_be_sent_is_set_aside_and_the_rest_is_sent_in_order() -> None:
    broker, log = FakeBroker(bad=["2"]), FakeLog()
    large = '"' + "x" * BATCH_BYTES + '"'
    values = [request("0"), request("1", large), request("2", "7"), request("3")]
    records = stored(*(value.record() for value in values), Record("dev-9", b"nonsense"))
    assert sorted(await HandDown(broker, log, SystemClock())(records)) == ["malformed", "malformed", "too_large"]
    assert broker.handed == ["0", "3"]
    ((topic, set_aside),) = log.appends[0].items()
    assert topic == rejected(DOWN)
    refusals = {refusal.id: refusal for refusal in (Rejected.decode(record.value or b"") for record in set_aside)}
    assert refusals["1"].reason == "too_large"
    assert base64.b64decode(refusals["2"].payload_base64) == outgoing(request("2", "7")).payload
    assert refusals["zdm.down.v1-0-4"].device_id == "dev-9"
    assert base64.b64decode(refusals["zdm.down.v1-0-4"].payload_base64) == b"nonsense"


async def test_a_broker_that_is_alone_hands_over_whatever_the_age() -> None:
    broker = FakeBroker()
    await HandDown(broker, FakeLog(), SystemClock())(stored(request("0", version=0).record()))
    assert broker.began_by == [None]


async def test_among_several_a_message_is_for_a_session_of_its_time() -> None:
    broker = FakeBroker()
    versions = [-1_000_000, 0, NOW, 2**64 - 1]
    records = stored(*(request(str(version), version=version).record() for version in versions))
    await HandDown(broker, FakeLog(), SystemClock(), alone=False)(records)
    assert broker.began_by == [0, TOLERANCE_MS, NOW + TOLERANCE_MS, 2**64 - 1]


class FakeSessions:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, int]] = []

    async def moved(self, connected_at: Mapping[str, int]) -> None:
        self.told.append(connected_at)


def said(device_id: str, spool: str, at: int, kind: Kind = "connected") -> PresenceChanged:
    return PresenceChanged(id=f"{spool}-{at}", kind=kind, device_id=device_id, spool=spool, boot=1, session=2, at=at)


async def test_a_broker_is_told_of_the_newest_connection_of_each_device_at_others() -> None:
    sessions = FakeSessions()
    records = [said("a", "other", 20), said("a", "third", 10), said("b", "other", 5), said("c", "own", 7)]
    records += [said("d", "other", 1, "disconnected"), said("", "other", 1, "broker_started")]
    assert await FollowMoves(sessions)(records, "own") == 2
    assert sessions.told == [{"a": 20, "b": 5}]


async def test_it_is_told_nothing_when_all_of_it_was_its_own() -> None:
    sessions = FakeSessions()
    assert await FollowMoves(sessions)([said("c", "own", 7)], "own") == 0
    assert sessions.told == []
