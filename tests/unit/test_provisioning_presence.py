"""Whether a device is connected, whatever the order in which its sessions are heard of."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.provisioning.domain.presence import Presence
from shared.messages.devices import PresenceChanged


def connected(session: int, boot: int = 1, spool: str = "s1", at: int | None = None) -> PresenceChanged:
    return PresenceChanged(
        id=f"{spool}-{session}",
        kind="connected",
        device_id="dev-1",
        spool=spool,
        boot=boot,
        session=session,
        at=session * 10 if at is None else at,
        remote_address=f"10.0.0.{session}",
    )


def disconnected(session: int, boot: int = 1, spool: str = "s1") -> PresenceChanged:
    return PresenceChanged(
        id=f"{spool}-{session}-end",
        kind="disconnected",
        device_id="dev-1",
        spool=spool,
        boot=boot,
        session=session,
        at=session * 10 + 5,
    )


def after(said: Sequence[PresenceChanged]) -> Presence:
    presence = Presence("dev-1", said[0].spool)
    for one in said:
        presence = presence.after(one)
    return presence


def test_a_session_that_began_and_did_not_end_is_connected() -> None:
    presence = after([connected(5)])
    assert presence.is_connected(newest_boot=1)
    assert presence.connected_at == 50
    assert presence.remote_address == "10.0.0.5"


def test_the_end_of_a_session_keeps_when_and_from_where_it_was_connected() -> None:
    presence = after([connected(5), disconnected(5)])
    assert not presence.is_connected(newest_boot=1)
    assert (presence.connected_at, presence.seen_at, presence.remote_address) == (50, 55, "10.0.0.5")


def test_the_end_of_a_session_that_was_taken_over_does_not_end_the_new_one() -> None:
    assert after([connected(5), connected(7), disconnected(5)]).is_connected(newest_boot=1)


def test_a_session_of_an_older_boot_died_with_its_broker() -> None:
    presence = after([connected(5, boot=1)])
    assert not presence.is_connected(newest_boot=6)
    assert presence.after(connected(8, boot=6)).is_connected(newest_boot=6)


def test_a_device_that_went_to_another_broker_is_connected_there() -> None:
    presence = after([connected(500, spool="s1", at=1000), connected(3, spool="s2", at=2000), disconnected(500)])
    assert presence.is_connected(newest_boot=1)
    assert presence.spool == "s2"


def test_what_another_broker_said_before_does_not_count() -> None:
    presence = after([connected(3, spool="s2", at=2000), connected(500, spool="s1", at=1000)])
    assert (presence.spool, presence.session) == ("s2", 3)


@st.composite
def histories(draw: st.DrawFn) -> list[PresenceChanged]:
    """Sessions of a device over some broker runs; some ended, of some the end was never told."""
    said: list[PresenceChanged] = []
    sequence, boot = 1, 1
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            boot = sequence
            sequence += 1
        said.append(connected(sequence, boot))
        if draw(st.booleans()):
            said.append(disconnected(sequence, boot))
        sequence += 1
    return said


@given(histories(), st.data())
def test_order_and_repetition_change_nothing(said: list[PresenceChanged], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(said))
    repeated = [*shuffled, *data.draw(st.lists(st.sampled_from(said)))]
    assert after(repeated) == after(said)


@given(histories())
def test_only_the_newest_session_of_the_newest_boot_decides(said: list[PresenceChanged]) -> None:
    newest = max(said, key=lambda one: (one.session, one.kind == "disconnected"))
    boot = max(one.boot for one in said)
    assert after(said).is_connected(boot) is (newest.kind == "connected" and newest.boot == boot)
