"""Tasks that must not end."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice

import pytest
from structlog.testing import capture_logs

from shared.errors import Unavailable
from shared.tasks import _FAILURES, keep_running, pauses

Run = Callable[[], Awaitable[None]]


def failures(name: str) -> float:
    return float(_FAILURES.labels(name)._value.get())


def test_pauses_double_up_to_the_longest_and_differ_a_little() -> None:
    for _ in range(50):
        made = list(islice(pauses(1, 8), 6))
        for pause, most in zip(made, (1, 2, 4, 8, 8, 8), strict=True):
            assert most * 0.75 <= pause <= most
    assert len({next(pauses()) for _ in range(20)}) > 1


@pytest.mark.parametrize("error", [None, Unavailable("the log is away"), ValueError("a bug"), KeyError(3)])
async def test_what_ends_or_fails_runs_again_and_is_counted_and_logged(error: Exception | None) -> None:
    name, again = f"worker-{error!r}", asyncio.Event()
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            again.set()
            await asyncio.Event().wait()
        if error is not None:
            raise error

    with capture_logs() as logs:
        task = asyncio.create_task(keep_running(name, run))
        async with asyncio.timeout(10):
            await again.wait()
        await cancelled(task)
    assert (runs, failures(name)) == (2, 1)
    (log,) = logs
    assert log["worker"] == name
    if isinstance(error, Unavailable):
        assert (log["event"], log["log_level"], log["reason"]) == ("worker_waits", "warning", "the log is away")
    else:
        assert (log["event"], log["log_level"]) == ("worker_ended" if error is None else "worker_failed", "error")
        assert bool(log.get("exc_info")) is (error is not None)


async def test_cancellation_ends_it_while_it_runs_and_is_no_failure() -> None:
    began = asyncio.Event()
    cleaned = False

    async def run() -> None:
        nonlocal cleaned
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned = True

    task = asyncio.create_task(keep_running("cancelled-running", run))
    await began.wait()
    await cancelled(task)
    assert cleaned
    assert failures("cancelled-running") == 0


async def test_cancellation_ends_it_while_it_pauses() -> None:
    runs = 0

    async def run() -> None:
        nonlocal runs
        runs += 1
        raise Unavailable("away")

    task = asyncio.create_task(keep_running("cancelled-pausing", run))
    while failures("cancelled-pausing") == 0:
        await asyncio.sleep(0)
    await cancelled(task)
    assert runs == 1


async def test_one_that_fails_at_once_does_not_keep_others_from_running() -> None:
    async def run() -> None:
        raise ValueError("at once")

    with capture_logs():
        task = asyncio.create_task(keep_running("failing-at-once", run))
        for _ in range(1000):
            await asyncio.sleep(0)
        await cancelled(task)
    assert failures("failing-at-once") == 1


async def cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    async with asyncio.timeout(10):
        with pytest.raises(asyncio.CancelledError):
            await task
