"""From the spool into the log: ingestion as it is wired, a real folder and a real log."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from prometheus_client import REGISTRY as PROMETHEUS
from prometheus_client import generate_latest

from services.ingestion.adapters.patient_log import PatientAppends
from services.ingestion.settings import IngestionSettings
from services.ingestion.wiring import wire
from shared.clock import SystemClock
from shared.errors import OutOfSpace, Unavailable
from shared.frames import frame
from shared.log import Record, Topic
from shared.messages.devices import DataReceived, HandedOver, PresenceChanged, Rejected, UpReceived
from shared.messages.topics import DATA, HANDED, PRESENCE, UP, rejected
from shared.registry import Registry
from shared.service import Platform
from tests.support.spool import (
    BROKER_STARTED,
    CONNECTED,
    DISCONNECTED,
    HANDED_OVER,
    SPOOL_ID,
    SpoolWriter,
    Written,
)
from tests.support.waiting import eventually
from tests.support.workers import DEVICE, at_work, records_in, register, unregister, values_in, working_platform


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    async with working_platform(tmp_path) as platform:
        await register(platform, DEVICE)
        yield platform


@pytest.fixture
def spool(tmp_path: Path) -> SpoolWriter:
    return SpoolWriter(tmp_path / "spool")


@asynccontextmanager
async def ingestion(platform: Platform) -> AsyncIterator[None]:
    async with at_work(await wire(IngestionSettings.load({}), platform)):
        yield


def data(payload: bytes, topic: str = f"j/data/{DEVICE}/env", device: str = DEVICE, time: int = 1000) -> Written:
    return Written(device=device, detail=topic, payload=payload, time=time)


def up(payload: bytes) -> Written:
    return Written(detail=f"j/up/{DEVICE}", payload=payload, time=1000)


async def test_a_data_point_reaches_the_log_with_all_that_is_known_of_it(
    platform: Platform, spool: SpoolWriter
) -> None:
    payload = b'{"$set": {"a.b": 1.0, "": 12345678901234567890.5}, "a": 1, "a": 2}'
    spool.write(data(payload))
    async with ingestion(platform):
        (value,) = await values_in(platform, DATA, 1)
    point = DataReceived.decode(value)
    assert point == DataReceived(
        f"{SPOOL_ID}-0000000000000001",
        "wks-1",
        "flt-1",
        DEVICE,
        "A device",
        "env",
        1000,
        point.timestamp_in,
        payload.decode(),
    )
    assert abs(point.timestamp_in - SystemClock().ms()) < 60_000


async def test_the_time_of_taking_in_is_never_before_the_arrival(platform: Platform, spool: SpoolWriter) -> None:
    spool.write(data(b"1", time=9_000_000_000_000))
    async with ingestion(platform):
        (value,) = await values_in(platform, DATA, 1)
    assert DataReceived.decode(value).timestamp_in == 9_000_000_000_000


@pytest.mark.parametrize(
    ("topic", "tag"),
    [("", "default"), ("/", "default"), ("/a/b/c", "a/b/c"), ("/é", "é"), ("/" + "t" * 256, "t" * 256)],
)
async def test_the_tag_is_all_that_follows_the_device(
    platform: Platform, spool: SpoolWriter, topic: str, tag: str
) -> None:
    spool.write(data(b"1", f"j/data/{DEVICE}{topic}"))
    async with ingestion(platform):
        (value,) = await values_in(platform, DATA, 1)
    assert DataReceived.decode(value).tag == tag


async def test_an_envelope_reaches_the_log_with_the_text_of_its_value(platform: Platform, spool: SpoolWriter) -> None:
    spool.write(up(b'{"value": {"ok" : 1.0}, "key": "@set"}'))
    async with ingestion(platform):
        (value,) = await values_in(platform, UP, 1)
    expected = (f"{SPOOL_ID}-0000000000000001", "wks-1", DEVICE, "@set", '{"ok" : 1.0}', 1000)
    assert UpReceived.decode(value) == expected


@pytest.mark.parametrize(
    ("record", "topic", "reason"),
    [
        (data(b"{nope"), DATA, "not_json"),
        (data(b""), DATA, "empty"),
        (data(b'{"a":18446744073709551616}'), DATA, "integer_range"),
        (data(b"[" * 100_000), DATA, "too_deep"),
        (data(b"1", f"j/data/{DEVICE}/" + "t" * 257), DATA, "tag_too_long"),
        (data(b"1", "j/alert/x"), DATA, "unknown_topic"),
        (data(b"1", device="dev-gone", topic="j/data/dev-gone"), DATA, "unknown_device"),
        (up(b"{}"), UP, "not_an_envelope"),
        (up(b'{"key":"a","value":1e999}'), UP, "not_finite"),
    ],
)
async def test_what_is_not_taken_is_set_aside_with_reason_and_bytes_and_counted(
    platform: Platform, spool: SpoolWriter, record: Written, topic: Topic, reason: str
) -> None:
    labels = {"topic": topic.name, "reason": reason}
    before = PROMETHEUS.get_sample_value("zdm_ingestion_rejected_total", labels) or 0
    spool.write(record, data(b"2"))
    async with ingestion(platform):
        (value,) = await values_in(platform, rejected(topic), 1)
        await values_in(platform, DATA, 1)
        refusal = Rejected.decode(value)
        assert (refusal.reason, refusal.device_id, refusal.topic) == (reason, record.device, record.detail)
        assert refusal.id == f"{SPOOL_ID}-0000000000000001"
        assert base64.b64decode(refusal.payload_base64) == record.payload
        await eventually(lambda: counted(labels, before + 1))


async def counted(labels: dict[str, str], number: float) -> bool:
    return PROMETHEUS.get_sample_value("zdm_ingestion_rejected_total", labels) == number


async def test_a_record_that_is_not_as_the_format_says_is_set_aside_whole(
    platform: Platform, spool: SpoolWriter
) -> None:
    spool.raw(frame(b"\x07 what is this"))
    async with ingestion(platform):
        (value,) = await values_in(platform, rejected(DATA), 1)
    refusal = Rejected.decode(value)
    assert refusal.reason == "malformed_record"
    assert base64.b64decode(refusal.payload_base64) == b"\x07 what is this"


async def test_a_device_made_a_moment_ago_is_known(platform: Platform, spool: SpoolWriter) -> None:
    async with ingestion(platform):
        for number in range(5):
            device = f"dev-new{number}"
            await register(platform, device)
            spool.write(data(b"1", f"j/data/{device}/x", device))
        assert len(await values_in(platform, DATA, 5)) == 5


async def test_messages_of_a_deleted_device_are_set_aside(platform: Platform, spool: SpoolWriter) -> None:
    await unregister(platform, DEVICE)
    spool.write(data(b"1"), up(b'{"key":"a","value":1}'))
    async with ingestion(platform):
        await values_in(platform, rejected(DATA), 1)
        await values_in(platform, rejected(UP), 1)


async def test_presence_and_hand_overs_reach_the_log(platform: Platform, spool: SpoolWriter) -> None:
    detail = "address=192.0.2.7 by=token credential=3 client=dev x=y"
    spool.write(
        Written(BROKER_STARTED, "", "", b"", time=1, boot=1, session=0),
        Written(CONNECTED, DEVICE, detail, b"", time=2, boot=1, session=2),
        Written(HANDED_OVER, DEVICE, "down-1", b"", time=3, boot=1, session=2, flags=1),
        Written(HANDED_OVER, DEVICE, "down-2", b"", time=4, boot=1, session=0, flags=0),
        Written(DISCONNECTED, DEVICE, "kicked", b"", time=5, boot=1, session=2),
    )
    async with ingestion(platform):
        presence = [PresenceChanged.decode(value) for value in await values_in(platform, PRESENCE, 3)]
        handed = [HandedOver.decode(value) for value in await values_in(platform, HANDED, 2)]
    keys = [record.key for record in await records_in(platform, PRESENCE)]
    assert keys == [SPOOL_ID, DEVICE, DEVICE]
    common = {"spool": SPOOL_ID, "boot": 1}
    assert presence == [
        PresenceChanged(id=f"{SPOOL_ID}-{1:016x}", kind="broker_started", device_id="", session=0, at=1, **common),
        PresenceChanged(
            id=f"{SPOOL_ID}-{2:016x}",
            kind="connected",
            device_id=DEVICE,
            session=2,
            at=2,
            remote_address="192.0.2.7",
            credential="token:3",
            **common,
        ),
        PresenceChanged(
            id=f"{SPOOL_ID}-{5:016x}",
            kind="disconnected",
            device_id=DEVICE,
            session=2,
            at=5,
            reason="kicked",
            **common,
        ),
    ]
    assert [(one.down_id, one.live, one.at, one.device_id) for one in handed] == [
        ("down-1", True, 3, DEVICE),
        ("down-2", False, 4, DEVICE),
    ]


async def test_many_records_arrive_in_order_and_none_is_missing_over_restarts(
    platform: Platform, spool: SpoolWriter
) -> None:
    for part in range(5):
        async with ingestion(platform):
            spool.write_numbers(400, part * 400)
            await values_in(platform, DATA, part * 400 + 100)
            if part % 2:
                spool.begin_segment()
    async with ingestion(platform):
        points = [DataReceived.decode(value) for value in await values_in(platform, DATA, 2000)]
    first_seen = list(dict.fromkeys((point.id, point.payload) for point in points))
    assert [orjson.loads(payload)["n"] for _, payload in first_seen] == list(range(2000))


class FailingLog:
    """Refuses appends to some topics for a while, and notes what it took."""

    def __init__(self, errors: dict[str, list[Exception]]) -> None:
        self.errors = errors
        self.taken: list[str] = []

    async def append(self, topic: Topic, records: Sequence[Record]) -> None:
        if errors := self.errors.get(topic.name):
            raise errors.pop()
        self.taken += [f"{topic.name} {record.key}" for record in records]


async def test_a_log_that_is_away_or_full_is_waited_for_and_named() -> None:
    log = FailingLog({"up": [Unavailable("away"), OutOfSpace("full")]})
    patient = PatientAppends(log)  # type: ignore[arg-type]
    appending = asyncio.create_task(
        patient.append({Topic("data"): [Record("a", b"")], Topic("up"): [Record("b", b"")]})
    )
    await eventually(lambda: told(patient), every_s=0.001)
    await appending
    assert patient.waiting_for() == ""
    assert log.taken == ["data a", "up b"]


async def told(patient: PatientAppends) -> bool:
    return patient.waiting_for() in {"away", "full"}


async def test_what_the_log_never_takes_is_not_tried_for_ever() -> None:
    log = FailingLog({"data": [ValueError("never")]})
    with pytest.raises(ValueError, match="never"):
        await PatientAppends(log).append({Topic("data"): [Record("a", b"")]})  # type: ignore[arg-type]


async def test_the_place_is_not_saved_before_the_log_has_accepted(platform: Platform, spool: SpoolWriter) -> None:
    spool.write_numbers(3)
    full = FailingLog({DATA.name: [OutOfSpace("full")] * 1000})
    blocked = Platform(**{**vars(platform), "log": full})
    async with at_work(await wire(IngestionSettings.load({}), blocked)) as service:
        up_worker, _down_worker = service.workers
        assert up_worker.name == "ingestion-up"
        await eventually(lambda: waits(service.ready["log"]()))
        assert not (spool.folder / "place").exists()
    async with ingestion(platform):
        assert len(await values_in(platform, DATA, 3)) == 3
        await eventually(lambda: waits((spool.folder / "place").exists()))


async def waits(found: object) -> bool:
    return bool(found)


async def test_counters_of_the_broker_and_the_backlog_are_in_the_metrics(
    platform: Platform, spool: SpoolWriter
) -> None:
    (platform.home / "broker").mkdir()
    (platform.home / "broker" / "counters").write_text(
        'publishes_total 12\nconnects_refused_total{reason="certificate"} 3\n'
        'connects_refused_total{reason="disabled"} 4\nsessions 5\nhalf a li'
    )
    service = await wire(IngestionSettings.load({}), platform)
    spool.write_numbers(1)
    text = generate_latest().decode()
    assert "zdm_broker_publishes_total 12.0" in text
    assert 'zdm_broker_connects_refused_total{reason="certificate"} 3.0' in text
    assert 'zdm_broker_connects_refused_total{reason="disabled"} 4.0' in text
    assert "zdm_broker_sessions 5.0" in text
    assert f"zdm_spool_backlog_bytes {spool.segment.stat().st_size - 32}.0" in text
    assert service.close is not None
    await service.close()
    assert "zdm_broker" not in generate_latest().decode()


async def test_another_process_takes_over_when_the_one_that_reads_is_killed(
    platform: Platform, spool: SpoolWriter
) -> None:
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom services.ingestion.adapters.spool import SpoolFolder\n"
        "async def main():\n"
        "    async with SpoolFolder(Path(sys.argv[1])).held():\n"
        "        print('held', flush=True)\n        await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, str(spool.folder), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    while (line := await process.stdout.readline()) != b"held\n":
        assert line, "it ended"
    spool.write_numbers(1)
    async with ingestion(platform):
        await asyncio.sleep(0.3)
        assert await records_in(platform, DATA) == []
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        await eventually(lambda: arrived(platform), within_s=5)


async def arrived(platform: Platform) -> bool:
    return len(await records_in(platform, DATA)) == 1


async def test_nothing_is_taken_in_before_the_registry_is_read(platform: Platform, spool: SpoolWriter) -> None:
    unread = Platform(**{**vars(platform), "registry": Registry(platform.log)})
    spool.write_numbers(1)
    async with ingestion(unread):
        await asyncio.sleep(0.2)
        assert await records_in(platform, rejected(DATA)) == []
        reading = asyncio.create_task(unread.registry.run())
        await values_in(platform, DATA, 1)
        reading.cancel()
