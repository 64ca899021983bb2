"""`make run` as an operator meets it: the start, the end, and what happens when something dies or is told wrong."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.system import ROOT, System, running_system
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("commands") / "home") as system:
        yield system


async def tried(system: System) -> tuple[int, str]:
    """A start that is expected to end by itself: its status and what it said."""
    await system.launch()
    status = await system.ended()
    return status, system.log_file.read_text()


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("ZDM_HTTP_PORT", "99999", "less than or equal to 65535"),
        ("ZDM_MQTT_TOKEN_PORT", "eighty", "must be a port from 1 to 65535"),
        ("ZDM_MQTT_MTLS_PORT", "0", "must be a port from 1 to 65535"),
        ("ZDM_LOG", "postgres://here", "String should match pattern"),
        ("ZDM_ADMIN_PASSWORD", "short", "at least 8"),
        ("ZDM_OUTBOUND_DENY", "10.0.0.0/33", "does not appear to be an IPv4 or IPv6 network"),
        ("ZDM_DEVICE_RATE", "fast", "must be a whole number"),
    ],
)
async def test_a_wrong_setting_stops_the_start_with_its_name_and_the_rule(
    tmp_path: Path, name: str, value: str, rule: str
) -> None:
    status, said = await tried(System(tmp_path / "home", {name: value}))
    assert status == 2
    assert f"wrong setting: {name}: " in said
    assert rule in said
    assert "Traceback" not in said
    if "PASSWORD" in name:
        assert value not in said


async def test_a_port_that_is_taken_is_named_by_its_setting(system: System, tmp_path: Path) -> None:
    status, said = await tried(System(tmp_path / "home", {"ZDM_HTTP_PORT": str(system.http_port)}))
    assert status == 2
    assert f"wrong setting: ZDM_HTTP_PORT: cannot listen on 0.0.0.0 port {system.http_port}" in said


async def test_a_folder_is_used_by_one_run_at_a_time(system: System) -> None:
    second = System(system.home)
    process = await asyncio.create_subprocess_exec(
        ROOT / "deploy/local/run", cwd=ROOT, env=second.environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"is in use by another run" in said


async def test_what_is_killed_is_started_again_with_a_growing_pause_and_said(system: System) -> None:
    for _ in range(2):
        await killed_and_started_again(system, "services")
    await system.ready()
    said = system.log_file.read_text()
    assert "services ended with status 137; starting it again in 0 s" in said
    assert "services ended with status 137; starting it again in 1 s" in said


async def test_readiness_names_what_is_waited_for_and_liveness_does_not_care(system: System) -> None:
    async with system.admin() as rest:
        await killed_and_started_again(system, "broker")
        system.kill("broker")  # this time it comes back after a pause
        status, answer = await eventually_waiting(system)
        assert status == 503
        assert "broker" in " ".join(answer["waiting_for"])
        assert await rest.ask("GET", "/healthz") == (200, {"status": "alive"})
        await system.ready()
        assert await rest.ask("GET", "/readyz") == (200, {"status": "ready", "waiting_for": {}})
        assert (await system.metrics())["zdm_ready"] == 1


async def killed_and_started_again(system: System, child: str) -> None:
    old = system.pid(child)
    system.kill(child)

    async def replaced() -> bool:
        return system.pid(child) != old

    await eventually(replaced)


async def eventually_waiting(system: System) -> tuple[int, dict[str, dict[str, str]]]:
    async with system.as_key("") as rest:

        async def look() -> tuple[int, dict[str, dict[str, str]]] | None:
            status, answer = await rest.ask("GET", "/readyz")
            return (status, answer) if status == 503 else None

        found = await eventually(look, every_s=0.01)
        assert found is not None
        return found


async def test_a_password_that_was_not_given_is_written_for_the_owner_alone_and_its_path_is_printed(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    async with running_system(home, {"ZDM_ADMIN_PASSWORD": "", "ZDM_ADMIN_EMAIL": "first@example.org"}) as system:
        note = home / "first-login.txt"
        assert stat.S_IMODE(note.stat().st_mode) == 0o600

        async def printed() -> bool:
            return f"First login: {note}" in system.log_file.read_text()

        await eventually(printed)
        words = dict(line.split(": ", 1) for line in note.read_text().splitlines())
        assert words["email"] == "first@example.org"
        assert words["password"] not in system.log_file.read_text()
        async with system.as_key("") as rest:
            rest.headers.clear()
            await rest.call("POST", "/v3/auth/login", words)


async def test_ctrl_c_ends_everything_cleanly(tmp_path: Path) -> None:
    system = await System(tmp_path / "home").start()
    children = [system.pid("broker"), system.pid("services")]
    assert await system.stop() == 0
    assert not [pid for pid in children if _is_alive(pid)]
    said = system.log_file.read_text()
    assert said.rstrip().endswith("run: stopped")
    assert "Traceback" not in said
    assert "was killed" not in said


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_help_has_a_line_for_each_command() -> None:
    process = await asyncio.create_subprocess_exec("make", "help", cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    named = {line.split()[1] for line in said.decode().splitlines()}
    assert named >= {"help", "run", "demo", "test", "check", "bench", "chaos"}
