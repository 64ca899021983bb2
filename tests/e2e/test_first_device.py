"""The whole way of one device, as its owner goes it: credentials, TLS, data, webhook, the end."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy.simulator.device import ConnectionRefused, Device, tls_context
from deploy.simulator.receiver import receiving
from tests.support.pki import csr, key_pem, p256_key
from tests.support.ports import free_ports
from tests.support.system import ROOT, System, default_workspace, is_refused, new_device, running_system, stored
from tests.support.waiting import eventually

CUT_S = 1.0


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    async with running_system(tmp_path_factory.mktemp("first") / "home") as system:
        yield system


async def test_the_readmes_three_commands_make_a_first_device(system: System, tmp_path: Path) -> None:
    async def run(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            ROOT / "deploy/local/try", *words, cwd=tmp_path, env=system.environment, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said
        return said.decode()

    assert "'hello'" in await run("device", "hello")
    assert json.loads((tmp_path / "zdevice.json").read_text())["devinfo"]["mode"] == "device_token"
    assert (tmp_path / "zdevice.json").stat().st_mode & 0o777 == 0o600
    assert await run("send", "env", '{"temp": 21.4}') == "acknowledged\n"

    async def shown() -> bool:
        return '{"temp":21.4}' in await run("data")

    await eventually(shown)


async def test_a_message_is_stored_and_delivered_with_the_same_times_and_the_bytes_of_its_payload(
    system: System,
) -> None:
    batches: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    async with system.admin() as rest, receiving(batches.put_nowait, free_ports(1)[0]) as url:
        workspace = await default_workspace(rest)
        body = {"name": "receiver", "type": "data_stream", "subtype": "webhook", "subtype_configuration": {"url": url}}
        made = await rest.call("POST", f"/v3/workspaces/{workspace}/integrations", body)
        session = await Device.connect(credential := await new_device(rest, workspace, "filler-01"))
        device = credential["devinfo"]["device_id"]
        await session.publish(f"j/data/{device}/line/3/env", b'{"b":1.0,"a.b":{"$set":1},"":-0,"e":1e5}')
        async with asyncio.timeout(10):
            batch = await batches.get()
        (point,) = await stored(rest, workspace, device)
        (delivered,) = batch["result"]
        assert {name: delivered[name] for name in point} == point
        assert delivered["device_name"] == "filler-01"
        assert point["tag"] == "line/3/env"
        assert point["payload"] == {"b": 1.0, "a.b": {"$set": 1}, "": 0, "e": 1e5}
        assert (await rest.call("GET", f"/v3/workspaces/{workspace}/tags", device=device))["tags"] == ["line/3/env"]
        session.close()
        integration = made["integration"]["id"]
        await rest.call("DELETE", f"/v3/workspaces/{workspace}/integrations/{integration}")


async def test_a_device_with_a_certificate_sends_over_mutual_tls(system: System) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        credential, key = await new_device(rest, workspace, "certified"), p256_key()
        device = credential["devinfo"]["device_id"]
        path = f"/v3/workspaces/{workspace}/devices/{device}/certificates"
        made = await rest.call("POST", path, {"csr": csr(key, "somebody else")})
        context = tls_context(credential["cacert"], (made["certificate"] + made["chain"], key_pem(key)))
        session = await Device.open(device, None, "localhost", system.mtls_port, context=context)
        await session.data("env", {"temp": 4})
        assert (await stored(rest, workspace, device))[0]["payload"] == {"temp": 4}

        async def shown() -> dict[str, Any] | None:
            seen = (await rest.call("GET", f"/v3/workspaces/{workspace}/devices/{device}"))["device"]
            return dict(seen) if seen["is_connected"] else None

        seen = await eventually(shown)
        assert seen is not None
        assert seen["remote_address"] in ("127.0.0.1", "::1")
        assert seen["last_connected_at"] > seen["created_at"][:19]
        await rest.call("DELETE", f"{path}/{made['serial']}")
        async with asyncio.timeout(CUT_S):
            await session.lost.wait()


async def test_a_disabled_or_deleted_device_is_cut_off_within_a_second_and_refused(system: System) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        credential = await new_device(rest, workspace, "short-lived")
        path = f"/v3/workspaces/{workspace}/devices/{credential['devinfo']['device_id']}"
        for method, body, works_again in (("PUT", {"enabled": False}, True), ("DELETE", None, False)):
            session = await Device.connect(credential)
            async with asyncio.timeout(CUT_S):
                await rest.call(method, path, body)
                await session.lost.wait()
            await is_refused(credential)
            if works_again:
                await rest.call("PUT", path, {"enabled": True})


async def test_a_restarted_broker_knows_its_devices_while_everything_else_is_away(system: System) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        kept, gone = await new_device(rest, workspace, "kept"), await new_device(rest, workspace, "gone")
        await rest.call("DELETE", f"/v3/workspaces/{workspace}/devices/{gone['devinfo']['device_id']}")
    # Twice, so that a pause keeps the services away while the broker is back.
    for _ in range(3):
        system.kill("services")
        await eventually_running(system, "services")
    system.kill("services", "broker")

    async def connected() -> Device | None:
        try:
            return await Device.connect(kept)
        except (ConnectionRefused, OSError):
            return None

    session = await eventually(connected, every_s=0.02)
    assert session is not None
    await is_refused(gone)
    await session.data("env", {"while": "away"})
    session.close()
    await system.ready()
    async with system.admin() as rest:
        assert (await stored(rest, workspace, kept["devinfo"]["device_id"]))[0]["payload"] == {"while": "away"}


async def eventually_running(system: System, child: str) -> None:
    before = system.pid(child)

    async def look() -> bool:
        return system.pid(child) != before

    await eventually(look, within_s=15)
