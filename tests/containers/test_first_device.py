"""The whole way of one device on the real Compose file, and what the containers may not give away."""

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from deploy.simulator.device import ConnectionRefused, Device, tls_context
from deploy.simulator.receiver import receiving
from tests.support.client import client, heard, say
from tests.support.compose import IMAGES, OURS, SERVICES, STORES, ComposeSystem, docker, removed_afterwards, run
from tests.support.pki import csr, key_pem, p256_key
from tests.support.ports import free_ports
from tests.support.system import Rest, default_workspace, is_refused, new_device, stored
from tests.support.waiting import eventually

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

CUT_S = 1.0
PATIENCE_S = 30.0
COMPILERS = ("gcc", "cc", "c++", "g++", "clang", "tcc", "ld", "as", "make")


@pytest.fixture(scope="module")
async def system(version: str) -> AsyncIterator[ComposeSystem]:
    async with removed_afterwards(ComposeSystem(version)) as system:
        await system.make_up()
        yield system


async def test_make_up_says_where_to_go_and_changes_nothing_that_runs(system: ComposeSystem) -> None:
    before = {service: await system.containers(service) for service in (*OURS, *STORES)}
    said = await system.make_up()
    assert {service: await system.containers(service) for service in (*OURS, *STORES)} == before
    for needed in (f"http://localhost:{system.http_port}/docs", str(system.token_port), str(system.mtls_port)):
        assert needed in said
    [command] = [line.split(maxsplit=2)[2] for line in said.splitlines() if line.startswith("First login")]
    assert f"password: {system.password}" in await run("sh", "-c", command, environment=system.environment)


async def test_the_public_client_sends_over_tls_and_its_data_is_stored_and_at_the_webhook(
    system: ComposeSystem, tmp_path: Path
) -> None:
    batches: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    [port] = free_ports(1)
    async with system.admin() as rest, receiving(batches.put_nowait, port, system.receiver_host) as url:
        workspace = await default_workspace(rest)
        body = {"name": "receiver", "type": "data_stream", "subtype": "webhook", "subtype_configuration": {"url": url}}
        made = await rest.call("POST", f"/v3/workspaces/{workspace}/integrations", body)
        credential = await new_device(rest, workspace, "public-client")
        device = credential["devinfo"]["device_id"]
        async with client(tmp_path, credential) as process:
            await heard(process, "started")
            await say(process, do="publish", tag="env", payload={"temp": 21.4})
            async with asyncio.timeout(PATIENCE_S):
                batch = await batches.get()
            [point] = await stored(rest, workspace, device, within_s=PATIENCE_S)
            assert point["payload"] == {"temp": 21.4}
            [delivered] = batch["result"]
            assert {name: delivered[name] for name in point} == point
            await say(process, do="now")
            assert set(await heard(process, "now")) == {"s", "ms", "rfc3339"}
            seen = await connected(rest, workspace, device)
            assert ip_address(seen["remote_address"]) in system.edge
        await rest.call("DELETE", f"/v3/workspaces/{workspace}/integrations/{made['integration']['id']}")


async def connected(rest: Rest, workspace: str, device: str) -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        seen = dict((await rest.call("GET", f"/v3/workspaces/{workspace}/devices/{device}"))["device"])
        return seen if seen["is_connected"] else {}

    return await eventually(look, within_s=PATIENCE_S)


async def test_a_disabled_or_deleted_device_is_cut_off_within_a_second_and_refused(system: ComposeSystem) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        credential = await new_device(rest, workspace, "short-lived")
        path = f"/v3/workspaces/{workspace}/devices/{credential['devinfo']['device_id']}"
        for method, body, works_again in (("PUT", {"enabled": False}, True), ("DELETE", None, False)):
            session = await Device.connect(credential)
            await rest.call(method, path, body)
            async with asyncio.timeout(CUT_S):
                await session.lost.wait()
            await is_refused(credential)
            if works_again:
                await rest.call("PUT", path, {"enabled": True})


async def test_a_certificate_is_as_good_as_a_token_until_it_is_revoked(system: ComposeSystem) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        credential, key = await new_device(rest, workspace, "certified"), p256_key()
        device = credential["devinfo"]["device_id"]
        path = f"/v3/workspaces/{workspace}/devices/{device}/certificates"
        made = await rest.call("POST", path, {"csr": csr(key)})
        context = tls_context(credential["cacert"], (made["certificate"] + made["chain"], key_pem(key)))
        session = await Device.open(device, None, "localhost", system.mtls_port, context=context)
        await session.data("env", {"temp": 4})
        [point] = await stored(rest, workspace, device, within_s=PATIENCE_S)
        assert point["payload"] == {"temp": 4}
        await rest.call("DELETE", f"{path}/{made['serial']}")
        async with asyncio.timeout(CUT_S):
            await session.lost.wait()
        with pytest.raises((ConnectionRefused, ConnectionError)):
            await Device.open(device, None, "localhost", system.mtls_port, context=context)


async def test_a_service_that_crashes_is_started_again(system: ComposeSystem) -> None:
    for service in (*SERVICES, "mosquitto"):
        [container] = await system.containers(service)
        await system.crash(container)

        async def restarted(container: str = container) -> bool:
            state = await system.inspect(container)
            return bool(state["RestartCount"] >= 1 and state["State"]["Running"])

        await eventually(restarted, within_s=PATIENCE_S)
    await system.healthy()
    await system.ready()


# What is shut.


async def all_containers(system: ComposeSystem) -> dict[str, dict[str, Any]]:
    names = (await system.compose("config", "--services")).split()
    return {name: await system.inspect((await system.containers(name))[0]) for name in names}


async def test_only_http_and_mqtt_are_reachable_from_outside(system: ComposeSystem) -> None:
    published = {
        (name, inside, int(outside["HostPort"]))
        for name, seen in (await all_containers(system)).items()
        for inside, bindings in (seen["HostConfig"]["PortBindings"] or {}).items()
        for outside in bindings
    }
    assert published == {
        ("proxy", "8080/tcp", system.http_port),
        ("mosquitto", "8883/tcp", system.mtls_port),
        ("mosquitto", "8884/tcp", system.token_port),
    }


async def test_what_is_ours_runs_without_rights_on_a_file_system_that_cannot_be_written(system: ComposeSystem) -> None:
    for name in OURS:
        [container] = await system.containers(name)
        host = (await system.inspect(container))["HostConfig"]
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert await system.within(container, "id", "-u") == "10001", name
        written = "for d in / /app /opt /usr/lib /var/lib; do touch $d/x 2>/dev/null && echo $d; done; true"
        assert await system.within(container, "sh", "-c", written) == "", name


async def test_no_image_of_ours_has_a_compiler(system: ComposeSystem) -> None:
    for name in ("gateway", "mosquitto", "proxy"):
        [container] = await system.containers(name)
        assert await system.within(container, "sh", "-c", "command -v sh"), name
        found = f"for c in {' '.join(COMPILERS)}; do command -v $c; done; true"
        assert await system.within(container, "sh", "-c", found) == "", name


async def test_no_secret_is_seen_in_containers_logs_or_images(system: ComposeSystem) -> None:
    async with system.admin() as rest:
        workspace = await default_workspace(rest)
        key = (await new_device(rest, workspace, "keeper-of-secrets"))["prvkey"]
        token = rest.headers["Authorization"].removeprefix("Bearer ")
    secrets = [system.password, key, token, *await secrets_of(system)]
    assert len(secrets) >= 6
    inspected = str(await all_containers(system))
    logs = await system.compose("logs", "--no-color")
    history = [await docker("history", "--no-trunc", f"{image}:{system.version}") for image in IMAGES]
    for secret in secrets:
        assert len(secret) >= 8
        for place in (inspected, logs, *history):
            assert secret not in place


async def secrets_of(system: ComposeSystem) -> list[str]:
    """Passwords as they are, keys in the spellings in which they would show."""
    show = (
        "import pathlib, sys\n"
        "for path in map(pathlib.Path, sys.argv[1:]):\n"
        "    content = path.read_bytes()\n"
        "    print(content.decode() if content.isascii() else content.hex())\n"
    )
    mounts = [f"--volume={system.project}_{name}:/{name}:ro" for name in ("secrets", "database-secret")]
    image = f"zdm-services:{system.version}"
    files = ("/secrets/documents", "/secrets/principal.key", "/database-secret/root-password")
    said = await docker(
        "run", "--rm", "--network=none", *mounts, "--entrypoint=/opt/zdm/bin/python", image, "-c", show, *files
    )
    address, principal, root = said.split()
    [mosquitto] = await system.containers("mosquitto")
    private = await system.within(mosquitto, "cat", "/var/lib/zdm/pki/server.key")
    return [address.split("@")[0].rsplit(":", 1)[1], principal, root, private.splitlines()[1]]
