"""The connection to the control topic, at a real broker that is stopped, killed and started again under it."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared import brokers, frames
from shared.broker_control import PUBLISH_LIMIT, BrokerControl
from shared.errors import Unavailable
from tests.support.provisioning import Broker, broker, provisioning
from tests.support.waiting import eventually

USER = "zdm-ingestion"


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """With the certificates and the secret that provisioning makes."""
    home = tmp_path_factory.mktemp("control") / "home"
    async with broker(home) as mosquitto, provisioning(home, **mosquitto.environment):
        yield mosquitto


async def has_connected(control: BrokerControl) -> bool:
    try:
        await control.connect()
    except Unavailable:
        return False
    return True


@asynccontextmanager
async def connected(there: Broker, answer_s: float = 10.0) -> AsyncIterator[BrokerControl]:
    control = BrokerControl(USER, brokers.Broker(there.home), answer_s)
    try:
        await eventually(lambda: has_connected(control))
        yield control
    finally:
        await control.close()


async def is_unavailable(work: Coroutine[Any, Any, Any]) -> str:
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable) as refusal:
            await work
    return refusal.value.message


async def test_each_request_gets_its_own_answer(there: Broker) -> None:
    async with connected(there) as control:
        told = await asyncio.gather(*(control.request(frames.hello) for _ in range(100)))
        assert sorted(answer.request for answer in told) == list(range(1, 101))
        assert all(isinstance(answer, frames.Place) for answer in told)
        sent = await control.request(lambda request: frames.send(request, []))
        assert sent == frames.Sent(101, 0)


async def test_a_malformed_request_is_answered_as_such(there: Broker) -> None:
    async with connected(there) as control:
        body = b"S%b\x01\x00\x00\x00"
        refused = await control.request(lambda request: frames.frame(body % request.to_bytes(8, "little")))
        assert refused == frames.Sent(1, 2)


async def test_without_a_connection_nothing_is_asked(there: Broker) -> None:
    control = BrokerControl(USER, brokers.Broker(there.home))
    await is_unavailable(control.request(frames.hello))
    async with connected(there) as control:
        await control.close()
        await control.close()
        assert not control.connected
        await is_unavailable(control.request(frames.hello))


@pytest.mark.parametrize("secret", ["0" * 64, "", None])
async def test_a_wrong_secret_or_none_does_not_let_in(there: Broker, tmp_path: Path, secret: str | None) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker/control.sock").symlink_to(there.home / "broker/control.sock")
    if secret is not None:
        (tmp_path / "broker/service.key").write_text(secret)
    control = BrokerControl(USER, brokers.Broker(tmp_path))
    await is_unavailable(control.connect())
    assert not control.connected
    assert not paho_threads()


async def test_another_name_than_those_of_our_services_is_not_let_in(there: Broker) -> None:
    await is_unavailable(BrokerControl("zdm-somebody", brokers.Broker(there.home)).connect())


async def test_where_there_is_no_broker_it_says_so(there: Broker, tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker/service.key").write_text((there.home / "broker/service.key").read_text())
    await is_unavailable(BrokerControl(USER, brokers.Broker(tmp_path)).connect())
    assert not paho_threads()


async def test_an_answer_that_does_not_come_in_time_ends_the_connection(there: Broker) -> None:
    async with connected(there, answer_s=0.3) as control:
        there.signal(signal.SIGSTOP)
        try:
            assert await is_unavailable(control.request(frames.hello)) == "The broker does not answer"
            assert not control.connected
        finally:
            there.signal(signal.SIGCONT)
        await eventually(lambda: has_connected(control))
        # The answer to the first one may come now, or never: nobody takes it for this one's.
        assert (await control.request(frames.hello)).request == 2


async def test_a_broker_killed_before_it_answers_is_told_to_everyone_who_waits(there: Broker) -> None:
    async with connected(there) as control:
        there.signal(signal.SIGSTOP)
        waiting = [asyncio.create_task(is_unavailable(control.request(frames.hello))) for _ in range(30)]
        losing = asyncio.create_task(control.lost())
        await asyncio.sleep(0)
        await there.kill()
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting, losing)
        assert not control.connected
        await there.start()
        await eventually(lambda: has_connected(control))
        assert isinstance(await control.request(frames.hello), frames.Place)


async def test_requests_that_are_given_up_leave_room_for_others(there: Broker) -> None:
    async with connected(there) as control:
        there.signal(signal.SIGSTOP)
        try:
            waiting = [asyncio.create_task(control.request(frames.hello)) for _ in range(50)]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        finally:
            there.signal(signal.SIGCONT)
        assert isinstance(await control.request(frames.hello), frames.Place)


async def test_one_that_takes_the_name_takes_the_connection(there: Broker) -> None:
    async with connected(there) as first, connected(there) as second:
        async with asyncio.timeout(10):
            await first.lost()
        assert not first.connected
        assert isinstance(await second.request(frames.hello), frames.Place)


async def test_what_is_too_large_for_one_publish_is_not_sent(there: Broker) -> None:
    async with connected(there) as control:
        large = frames.Down("down", "dev-1", bytes(PUBLISH_LIMIT))
        with pytest.raises(ValueError, match="too many"):
            await control.request(lambda request: frames.send(request, [large]))
        assert isinstance(await control.request(frames.hello), frames.Place)


async def test_nothing_of_a_connection_stays_when_it_is_closed(there: Broker) -> None:
    for _ in range(5):
        async with connected(there) as control:
            await control.request(frames.hello)
    assert not paho_threads()


def paho_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "paho" in thread.name]
