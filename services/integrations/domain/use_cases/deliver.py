"""Delivering a lane: one frozen batch after the other, each tried until it is accepted or its bad point is isolated.

One step is one try. All that a step decides is kept before the next one, so that a process that dies repeats at worst
the same try with the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Failure, Failures, Queues, Sent, Sink
from services.integrations.domain.queue import BATCH_POINTS, Batch, Chunk, Lane, body, frozen, next_batch
from services.integrations.domain.verdict import POISONED_AFTER, BackOff, Verdict, verdict
from services.integrations.metrics import DELIVERED, DROPPED, PARKED, TRIES
from shared.clock import Clock
from shared.errors import Refused, Unavailable
from shared.ids import Ids

_DAY_MS = 24 * 3600 * 1000
_EXCERPT = 500


@dataclass(frozen=True)
class Step:
    """What a step came to: `lane` as it is now; None in `pause_s`: nothing waits; else go on after so many seconds."""

    lane: Lane
    pause_s: float | None


class Deliver:
    """Steps of one lane at a time; lanes are independent."""

    def __init__(
        self,
        queues: Queues,
        failures: Failures,
        sink: Sink,
        back_off: BackOff,
        clock: Clock,
        ids: Ids,
        retention_days: int,
    ) -> None:
        self._queues = queues
        self._failures = failures
        self._sink = sink
        self._back_off = back_off
        self._clock = clock
        self._ids = ids
        self._retention_ms = retention_days * _DAY_MS

    async def __call__(self, integration: Integration, lane: Lane) -> Step:
        """Freeze a batch if none is under way, and try it once."""
        lane, waiting = await self._without_expired(lane)
        batch = lane.batch
        if batch is None:
            if not waiting:
                return Step(lane, None)
            batch = frozen(self._ids.new("data"), next_batch(waiting))
            lane = replace(lane, batch=batch)
            await self._queues.progress(lane)
        return await self._try(integration, lane, batch)

    def pause_of(self, lane: Lane) -> float:
        """Seconds that an earlier process wanted to wait before the next try."""
        return max(0.0, min(self._back_off.most_s, ((lane.next_try_at or 0) - self._clock.ms()) / 1000))

    async def expire(self, lane: Lane) -> Lane:
        """Drop what has waited longer than data is kept."""
        lane, _ = await self._without_expired(lane)
        return lane

    async def _without_expired(self, lane: Lane) -> tuple[Lane, Sequence[Chunk]]:
        """The lane as it is then and, if no batch is under way, its oldest chunks."""
        limit = self._clock.ms() - self._retention_ms
        if lane.batch is not None:
            if lane.batch.newest >= limit:
                return lane, ()
            lane = await self._drop(lane, lane.batch.last_offset, lane.batch.left)
        while True:
            chunks = await self._queues.waiting(lane.id, lane.done, BATCH_POINTS)
            expired = list(takewhile(lambda chunk: chunk.oldest < limit, chunks))
            if not expired:
                return lane, chunks
            lane = await self._drop(lane, expired[-1].last, sum(chunk.count for chunk in expired))

    async def _drop(self, lane: Lane, last: int, count: int) -> Lane:
        DROPPED.labels("retention").inc(count)
        await self._note(lane, "dropped", f"{count} points waited longer than data is kept", lane.batch)
        return await self._done(replace(lane, dropped=lane.dropped + count), last)

    async def _try(self, integration: Integration, lane: Lane, batch: Batch) -> Step:
        points = await self._queues.points(batch)
        start, stop = batch.ranges[0]
        content = body(batch.id, points[start:stop], start)
        try:
            answer = await self._sink.send(integration, batch.message_id, content)
        except (Refused, Unavailable) as error:
            TRIES.labels("unanswered").inc()
            return await self._again(lane, replace(batch, tries=batch.tries + 1), None, error.message)
        return await self._judge(lane, batch, answer, points)

    async def _judge(self, lane: Lane, batch: Batch, answer: Sent, points: Sequence[str]) -> Step:
        judged = verdict(answer.status)
        TRIES.labels(judged.value).inc()
        if judged is Verdict.DELIVERED:
            start, stop = batch.ranges[0]
            DELIVERED.inc(stop - start)
            lane = replace(lane, delivered=lane.delivered + stop - start, last_sent_at=self._clock.ms())
            return await self._next(lane, batch.delivered())
        said = f"status {answer.status}: {answer.body[:_EXCERPT]}"
        if judged is Verdict.REFUSED:
            return await self._refused(lane, batch, answer, said, points)
        return await self._again(lane, replace(batch, tries=batch.tries + 1), answer, said)

    async def _refused(self, lane: Lane, batch: Batch, answer: Sent, said: str, points: Sequence[str]) -> Step:
        batch = replace(batch, refusals=batch.refusals + 1, tries=batch.tries + 1)
        # The whole batch is given every chance; a part of it is known to hold something that is refused.
        if batch.whole and batch.refusals < POISONED_AFTER:
            return await self._again(lane, batch, answer, said)
        if not batch.isolated:
            return await self._next(lane, batch.halved())
        start, _ = batch.ranges[0]
        PARKED.inc()
        await self._note(lane, "parked", said, batch, answer.status, f'{{"id":"{start}",{points[start]}')
        return await self._next(replace(lane, parked=lane.parked + 1), batch.delivered())

    async def _again(self, lane: Lane, batch: Batch, answer: Sent | None, said: str) -> Step:
        pause = self._back_off.pause(batch.tries, None if answer is None else answer.retry_after_s)
        status = None if answer is None else answer.status
        if batch.tries == 1 or said != lane.last_error:
            await self._note(lane, "failed", said, batch, status)
        lane = replace(lane, batch=batch, last_error=said, next_try_at=self._clock.ms() + round(pause * 1000))
        await self._queues.progress(lane)
        return Step(lane, pause)

    async def _next(self, lane: Lane, batch: Batch) -> Step:
        """Go on with the next part of the batch, or be done with it."""
        if not batch.ranges:
            return Step(await self._done(lane, batch.last_offset), 0.0)
        lane = replace(lane, batch=batch, next_try_at=None)
        await self._queues.progress(lane)
        return Step(lane, 0.0)

    async def _done(self, lane: Lane, last: int) -> Lane:
        """Forget the chunks up to offset `last`, but not which points there were."""
        lane = replace(lane, batch=None, done=last, last_error="", next_try_at=None)
        newest = await self._queues.newest(lane.id)
        if newest is not None:
            lane = replace(lane, seen={**lane.seen, **newest.seen})
        await self._queues.progress(lane)
        await self._queues.clean(lane)
        return lane

    async def _note(
        self,
        lane: Lane,
        kind: str,
        message: str,
        batch: Batch | None = None,
        status: int | None = None,
        point: str | None = None,
    ) -> None:
        await self._failures.add(
            Failure(
                self._ids.new("err-"),
                lane.integration_id,
                lane.workspace_id,
                self._clock.ms(),
                kind,
                message,
                status,
                "" if batch is None else batch.id,
                point,
            )
        )
