"""The rules of integrations: verdicts, pauses, batches, the directory, and what the queue knows of repeats."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.integrations.domain.integrations import Integration
from services.integrations.domain.queue import (
    BATCH_BYTES,
    Batch,
    Chunk,
    Lane,
    body,
    frozen,
    integration_of,
    lane_id,
    next_batch,
    number_of,
    rendered_point,
    size_of,
    source_of,
)
from services.integrations.domain.use_cases.directory import Directory
from services.integrations.domain.use_cases.enqueue import Enqueue, Placed
from services.integrations.domain.verdict import BackOff, Verdict, verdict
from shared.errors import Refused
from shared.messages.devices import DataReceived

INTEGRATION = Integration("int-1", "wks-1", "hook", "active", "http://h/", "", "whsec_", (), (), 0.0, "", {})
SOURCE = source_of("log", 0)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Verdict.DELIVERED),
        (204, Verdict.DELIVERED),
        (299, Verdict.DELIVERED),
        (302, Verdict.AGAIN),
        (304, Verdict.AGAIN),
        (400, Verdict.REFUSED),
        (401, Verdict.AGAIN),
        (404, Verdict.AGAIN),
        (408, Verdict.AGAIN),
        (413, Verdict.REFUSED),
        (415, Verdict.REFUSED),
        (422, Verdict.REFUSED),
        (429, Verdict.AGAIN),
        (500, Verdict.AGAIN),
        (599, Verdict.AGAIN),
        (100, Verdict.AGAIN),
        (999, Verdict.AGAIN),
    ],
)
def test_only_a_refusal_of_the_content_counts_against_a_batch(status: int, expected: Verdict) -> None:
    assert verdict(status) is expected


def test_pauses_double_up_to_the_longest_and_never_move_in_step() -> None:
    back_off = BackOff(1.0, 300.0)
    for tries, longest in ((1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (10_000, 300)):
        pauses = {back_off.pause(tries, None) for _ in range(50)}
        assert len(pauses) > 1
        assert all(0.75 * longest <= pause <= longest for pause in pauses)


@pytest.mark.parametrize(("asked", "pause"), [(0.0, None), (0.5, None), (20.0, 20.0), (3600.0, 3600.0), (1e9, 3600.0)])
def test_a_receiver_may_ask_for_a_longer_pause_but_not_for_more_than_an_hour(asked: float, pause: float | None) -> None:
    found = BackOff(1.0, 300.0).pause(1, asked)
    assert found == pause if pause is not None else 0.75 <= found <= 1


def chunk(first: int, count: int, size: int, oldest: int = 0) -> Chunk:
    last = first + count - 1
    return Chunk(f"lane:{first}-{last}", "lane", "int-1", "wks-1", first, last, count, size, oldest, {}, last + 1)


@pytest.mark.parametrize(
    ("chunks", "taken"),
    [
        ([chunk(0, 1, 100)], 1),
        ([chunk(0, 600, 100), chunk(600, 400, 100), chunk(1000, 1, 100)], 2),
        ([chunk(0, 600, 100), chunk(600, 401, 100)], 1),
        ([chunk(0, 1, BATCH_BYTES // 2), chunk(1, 1, BATCH_BYTES // 2 - 100), chunk(2, 1, 100)], 2),
        ([chunk(0, 1, 2 * BATCH_BYTES), chunk(1, 1, 1)], 1),
    ],
)
def test_a_batch_takes_whole_chunks_up_to_the_limits_and_at_least_one(chunks: Sequence[Chunk], taken: int) -> None:
    assert next_batch(chunks) == chunks[:taken]


def test_halving_finds_every_bad_point_and_delivers_each_other_one_once_in_order() -> None:
    for seed in range(200):
        dice = random.Random(seed)
        count = dice.randint(1, 40)
        bad = set(dice.sample(range(count), dice.randint(0, count)))
        batch = frozen("data", [chunk(0, count, count)])
        delivered, parked, names = list[int](), list[int](), dict[str, range]()
        while batch.ranges:
            points = range(*batch.ranges[0])
            assert names.setdefault(batch.message_id, points) == points
            if not bad & set(points):
                delivered, batch = delivered + list(points), batch.delivered()
            elif batch.isolated:
                parked, batch = parked + list(points), batch.delivered()
            else:
                left = batch.left
                batch = batch.halved()
                assert batch.left == left
        assert (delivered, parked) == ([n for n in range(count) if n not in bad], sorted(bad))


def point(number: int, payload: str = "1") -> DataReceived:
    return DataReceived(f"spool-{number:x}", "wks-1", "flt-1", "dev-1", "é", "t", number, number, payload)


def test_a_body_is_never_larger_than_its_points_were_reckoned() -> None:
    rendered = [rendered_point(point(n, f'"{"é" * (n % 7)}"')) for n in range(1000)]
    reckoned = sum(size_of(one) for one in rendered)
    content = body("data000000000000", rendered, 0)
    assert len(content) <= reckoned + 45
    assert len(content) > reckoned * 0.98


@pytest.mark.parametrize("identifier", ["", "x", "spool-", "spool-xyz", "-"])
def test_an_id_of_another_form_is_refused(identifier: str) -> None:
    with pytest.raises(Refused):
        number_of(identifier)


def test_a_lane_names_its_integration() -> None:
    assert integration_of(lane_id("int-1", SOURCE)) == "int-1"


class TestDirectory:
    def test_what_was_read_before_a_change_does_not_undo_it(self) -> None:
        directory = Directory()
        version = directory.version
        directory.put(INTEGRATION)
        assert not directory.replace([], version)
        assert directory.of_workspace("wks-1") == [INTEGRATION]
        assert directory.replace([], directory.version)
        assert not directory.of_workspace("wks-1")

    def test_changes_and_ends_are_told_once(self) -> None:
        directory = Directory()
        changed, gone = list[str](), list[str]()
        directory.on_changed(changed.append)
        directory.on_gone(gone.append)
        directory.put(INTEGRATION)
        directory.put(INTEGRATION)
        assert (changed, gone) == ([], [])
        directory.replace([replace(INTEGRATION, url="http://other/")], directory.version)
        directory.remove("int-1")
        directory.remove("int-1")
        assert (changed, gone) == (["int-1"], ["int-1"])


class Kept:
    """Queues in memory, which a crash may leave with the first of the chunks only."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.keeps: int | None = None

    async def lane(self, integration: Integration, source: str) -> Lane:
        """See the port."""
        return Lane(lane_id(integration.id, source), integration.id, integration.workspace_id, source, -1)

    async def newest(self, _lane: str) -> Chunk | None:
        """See the port."""
        return self.chunks[-1] if self.chunks else None

    async def enqueue(self, chunks: Sequence[Chunk]) -> None:
        """See the port."""
        self.chunks += chunks[: self.keeps]
        if self.keeps is not None:
            raise OSError("killed")

    @property
    def payloads(self) -> list[str]:
        """Of all points."""
        return [text.rpartition(":")[2].rstrip("}") for one in self.chunks for text in one.points]


def enqueue(queues: Any) -> Enqueue:
    directory = Directory()
    directory.put(INTEGRATION)
    return Enqueue(directory, queues)


def placed(numbers: Sequence[int], first: int = 0) -> list[Placed]:
    return [Placed(SOURCE, first + at, "spool", n, point(n, str(n))) for at, n in enumerate(numbers)]


class TestEnqueue:
    async def test_of_several_chunks_a_crash_may_keep_some_and_the_others_come_again(self) -> None:
        queues = Kept()
        queues.keeps = 1
        with pytest.raises(OSError, match="killed"):
            await enqueue(queues)(placed(range(2500)))
        queues.keeps = None
        again = enqueue(queues)
        await again(placed(range(2500)))
        assert queues.payloads == [str(n) for n in range(2500)]
        assert [one.total for one in queues.chunks] == [1000, 2000, 2500]

    async def test_the_same_process_may_try_again_too(self) -> None:
        queues = Kept()
        queues.keeps = 2
        one = enqueue(queues)
        with pytest.raises(OSError, match="killed"):
            await one(placed(range(2500)))
        queues.keeps = None
        await one(placed(range(2600)))
        assert queues.payloads == [str(n) for n in range(2600)]

    async def test_a_message_that_was_appended_twice_is_taken_once_wherever_it_stands(self) -> None:
        queues = Kept()
        one = enqueue(queues)
        await one(placed([1, 2, 3, 2, 3, 4]))
        await one(placed([3, 4, 5], first=6))
        await enqueue(queues)(placed([5, 6], first=9))
        assert queues.payloads == ["1", "2", "3", "4", "5", "6"]

    async def test_spools_count_each_for_itself(self) -> None:
        queues = Kept()
        mixed = [replace(one, spool=f"spool{at % 2}") for at, one in enumerate(placed([7, 1, 8, 2, 7, 1, 9, 3]))]
        await enqueue(queues)(mixed)
        assert queues.payloads == ["7", "1", "8", "2", "9", "3"]


def test_a_part_is_named_by_its_place() -> None:
    whole = Batch("data1", ("a",), 9, 0, 10, ((0, 10),))
    assert [whole.message_id, whole.halved().message_id] == ["data1", "data1-0-5"]
