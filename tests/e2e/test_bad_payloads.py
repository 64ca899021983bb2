"""What devices should not send, sent by a real one: acknowledged, counted, set aside with its bytes, never stored."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from deploy.simulator.device import Device
from shared.log.sqlite import sqlite_log
from shared.messages.topics import DATA, UP, rejected
from tests.support.system import System, default_workspace, new_device, running_system
from tests.support.waiting import eventually

BAD = {
    "empty": b" ",
    "not_json": b'{"truncated": [1, 2',
    "byte_order_mark": b'\xef\xbb\xbf{"a": 1}',
    "not_utf8": b'{"a": "\xff"}',
    "lone_surrogate": b'{"a": "\\ud800"}',
    "not_finite": b'{"a": 1e999}',
    "integer_range": b'{"a": 18446744073709551616}',
    "too_deep": b"[" * 100_000 + b"]" * 100_000,
    "too_many_nodes": b"[" + b"0," * 20_000 + b"0]",
    "nul_in_key": b'{"a\\u0000b": 1}',
}
OTHERS = {
    "byte_order_mark": '{"a": 1}'.encode("utf-16"),
    "not_finite": b'{"a": NaN}',
    "not_json": b"{'a': 1}",
}
LEGAL = [
    b'{"$set": {"$ne": null}, "a.b": 1, "": 2, "\\u20ac": "\\u0000"}',
    b'{"deep": ' + b"[" * 62 + b"]" * 62 + b"}",
    b'"just text"',
    b"9223372036854775807",
    b"null",
]


@pytest.fixture
async def system(tmp_path: Path) -> AsyncIterator[System]:
    async with running_system(tmp_path / "home") as system:
        yield system


async def test_each_bad_payload_has_one_answer_and_the_device_stays_connected(system: System) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        session = await Device.connect(await new_device(rest, workspace, "clumsy"))
        sent = [*BAD.items(), *OTHERS.items()]
        for _, payload in sent:
            await session.publish(f"j/data/{session.id}/bad", payload)
        await session.publish(f"j/up/{session.id}", b'{"no": "envelope"}')
        for payload in LEGAL:
            await session.publish(f"j/data/{session.id}/legal", payload)

        async def stored() -> list[bytes]:
            query = f"/v3/timeseries/{workspace}/data?sort=timestamp_device"
            result = (await rest.call("GET", query))["result"]
            return [point["payload"] for point in result] if len(result) == len(LEGAL) else []

        assert await eventually(stored) == [orjson.loads(payload) for payload in LEGAL]
        assert not session.lost.is_set()
        session.close()
        metrics = await system.metrics()
    for reason in BAD:
        expected = sum(reason == one for one, _ in sent)
        counter = f'zdm_ingestion_rejected_total{{reason="{reason}",topic="{DATA.name}"}}'
        assert metrics.get(counter) == expected, reason
    assert metrics[f'zdm_ingestion_rejected_total{{reason="not_an_envelope",topic="{UP.name}"}}'] == 1
    assert await set_aside(system) == [payload for _, payload in sent]


async def set_aside(system: System) -> list[bytes]:
    async with (
        sqlite_log(system.home / "log.sqlite") as log,
        log.replay(rejected(DATA)) as replay,
    ):
        records = [orjson.loads(record.value or b"") for record in await replay.fetch()]
        return [base64.b64decode(record["payload_base64"]) for record in records]


async def test_a_payload_beyond_the_brokers_limit_ends_the_connection_unacknowledged(system: System) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        session = await Device.connect(await new_device(rest, workspace, "huge"))
        with pytest.raises(ConnectionError):
            await session.publish(f"j/data/{session.id}/huge", b'"' + b"x" * 10_000_000 + b'"')
        assert (await rest.call("GET", f"/v3/timeseries/{workspace}/data"))["result"] == []
