"""What is said of log and documents while they are away."""

import asyncio

from prometheus_client import REGISTRY as PROMETHEUS

from shared.errors import Unavailable
from shared.watch import Watch
from tests.support.waiting import eventually


class Pinged:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.away = False

    async def ping(self) -> None:
        if self.away:
            raise Unavailable("nothing listens")


async def test_what_is_away_is_named_with_the_reason_until_it_answers_again() -> None:
    log, documents = Pinged(), Pinged()
    watch = Watch({"test-log": log.ping, "test-documents": documents.ping}, every_s=0.01)
    running = asyncio.create_task(watch.run())
    says = watch.checks()
    try:
        log.away = True
        assert await eventually(lambda: told(says["test-log"]())) == "nothing listens"
        assert says["test-documents"]() == ""
        assert PROMETHEUS.get_sample_value("zdm_dependency_up", {"of": "test-log"}) == 0
        log.away = False
        await eventually(lambda: told(not says["test-log"]()))
        assert PROMETHEUS.get_sample_value("zdm_dependency_up", {"of": "test-log"}) == 1
    finally:
        running.cancel()


async def told(answer: object) -> object:
    return answer


async def test_what_does_not_answer_at_all_counts_as_away() -> None:
    watch = Watch({"test-hanging": asyncio.Event().wait}, every_s=0.01, deadline_s=0.05)
    running = asyncio.create_task(watch.run())
    try:
        assert "no answer" in str(await eventually(lambda: told(watch.checks()["test-hanging"]())))
    finally:
        running.cancel()
