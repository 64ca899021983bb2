"""The production profile as Compose runs it, with a project, images, ports, networks and volumes of its own."""

import asyncio
import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any, Self

import orjson

from tests.support.ports import free_ports
from tests.support.system import ROOT, Installation, samples
from tests.support.waiting import eventually

SERVICES = ("gateway", "provisioning", "ingestion", "jobs", "storage", "integrations")
STORES = ("kafka", "mongo")
OURS = (*SERVICES, "mosquitto", "proxy")
IMAGES = ("zdm-services", "zdm-broker", "zdm-proxy")
# One Compose service for each image.
_BUILT = ("secrets", "mosquitto", "proxy")
_PYTHON = "/opt/zdm/bin/python"
_ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen("http://127.0.0.1:9090" + sys.argv[1], timeout=10)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.buffer.write(answer.read())
"""
_UP_S = 240.0
_LABEL = "com.docker.compose"
# Of the file beside docker-compose.yml, which is a user's, nothing may come into a test.
_NO_ENV_FILE = ("--env-file", "/dev/null")


class CommandFailed(AssertionError):
    """A command of Docker ended with an error."""


async def run(*command: str, environment: Mapping[str, str] | None = None, given: bytes = b"") -> str:
    """What it wrote; raise `CommandFailed`."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, complaint = await process.communicate(given)
    if process.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: {complaint.decode()[-4000:]}")
    return output.decode()


async def docker(*arguments: str, given: bytes = b"") -> str:
    """What `docker` says."""
    return (await run("docker", *arguments, given=given)).strip()


@contextmanager
def built_images() -> Iterator[str]:
    """The images of this tree; yields their tag, which is removed at the end."""
    version = f"test-{secrets.token_hex(3)}"
    environment = _own_environment() | {"ZDM_VERSION": version}
    subprocess.run(
        ["docker", "compose", *_NO_ENV_FILE, "build", "--quiet", *_BUILT], cwd=ROOT, env=environment, check=True
    )
    try:
        yield version
    finally:
        remove_images(version)


def remove_images(version: str) -> None:
    """Forget that tag."""
    tags = [f"{image}:{version}" for image in IMAGES]
    subprocess.run(["docker", "image", "rm", *tags], check=False, stdout=subprocess.DEVNULL)


def _own_environment() -> dict[str, str]:
    foreign = ("ZDM_", "COMPOSE_", "KAFKA_", "MONGO_", "MOSQUITTO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


def free_network() -> IPv4Network:
    """Of a part of the private addresses that Docker takes none of by itself, one that no network here has."""
    identifiers = subprocess.check_output(["docker", "network", "ls", "--quiet"], text=True).split()
    command = ["docker", "network", "inspect", *identifiers, "--format", "{{range .IPAM.Config}}{{.Subnet}} {{end}}"]
    taken = [ip_network(text) for text in subprocess.check_output(command, text=True).split()]
    while True:
        network = IPv4Network((int(IPv4Network("10.224.0.0/11").network_address) + secrets.randbelow(8192) * 256, 24))
        if not any(network.overlaps(one) for one in taken if isinstance(one, IPv4Network)):
            return network


class ComposeSystem(Installation):
    """One installation. `version`: tag of its images; `scale`: how many of a service."""

    def __init__(self, version: str, *, scale: Mapping[str, int] | None = None, **settings: str) -> None:
        self.project = f"zdm-test-{secrets.token_hex(3)}"
        self.version = version
        self.scale = dict(scale or {})
        self.edge = free_network()
        self.http_port, self.mtls_port, self.token_port = free_ports(3)
        self.url = f"http://127.0.0.1:{self.http_port}"
        self._settings = {
            "COMPOSE_PROJECT_NAME": self.project,
            "ZDM_HTTP_PORT": str(self.http_port),
            "ZDM_MQTT_MTLS_PORT": str(self.mtls_port),
            "ZDM_MQTT_TOKEN_PORT": str(self.token_port),
            "ZDM_EDGE_NETWORK": str(self.edge),
            **settings,
        }

    @property
    def environment(self) -> dict[str, str]:
        """What Compose is told."""
        return _own_environment() | self._settings | {"ZDM_VERSION": self.version}

    async def compose(self, *arguments: str) -> str:
        """What `docker compose` says."""
        return await run("docker", "compose", *_NO_ENV_FILE, *arguments, environment=self.environment)

    async def up(self) -> Self:
        """Start what does not run, and wait until it can take work."""
        scale = [word for name, number in self.scale.items() for word in ("--scale", f"{name}={number}")]
        await self.compose("up", "--detach", "--no-build", "--quiet-pull", *scale)
        return await self.is_up()

    async def make_up(self) -> str:
        """Start it as `make up` does, images and all; what that says."""
        said = await run("deploy/compose/up", *_NO_ENV_FILE, environment=self.environment)
        await self.is_up()
        return said

    async def is_up(self) -> Self:
        """Wait until all is healthy, and look up the first login and the way to this machine."""
        await self.healthy()
        await self.ready()
        [gateway, *_] = await self.containers("gateway")
        login = await self.within(gateway, "cat", "/var/lib/zdm/first-login.txt")
        words = dict(line.split(": ", 1) for line in login.splitlines())
        self.email, self.password = words["email"], words["password"]
        form = "{{(index .IPAM.Config 0).Gateway}}"
        self.receiver_host = await docker("network", "inspect", f"{self.project}_inside", "--format", form)
        return self

    async def down(self) -> None:
        """An orderly end; the data stays."""
        await self.compose("down", "--remove-orphans")

    async def removed(self) -> None:
        """The end, of the data too."""
        await self.compose("kill", "--remove-orphans")
        await self.compose("down", "--volumes", "--remove-orphans")

    async def healthy(self, within_s: float = _UP_S) -> None:
        """Wait until every container that runs says that it can take work."""

        async def look() -> bool:
            states = (await self._ps("{{.Status}}")).splitlines()
            return bool(states) and all("(healthy)" in state for state in states)

        try:
            await eventually(look, within_s=within_s, every_s=0.5)
        except AssertionError as error:
            states = await self._ps("{{.Names}} {{.Status}}", "--all")
            raise AssertionError(f"not healthy: {error}\n{states}\n{self.last_words()}") from error

    def last_words(self) -> str:
        """See `Installation`."""
        words = ["docker", "compose", *_NO_ENV_FILE, "logs", "--no-color", "--tail", "25"]
        said = subprocess.run(words, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        return said.stdout + said.stderr

    def save_logs(self, path: Path) -> None:
        """All that was said since the containers were made."""
        words = ["docker", "compose", *_NO_ENV_FILE, "logs", "--no-color", "--timestamps"]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            subprocess.run(words, cwd=ROOT, env=self.environment, stdout=file, stderr=file, check=False)

    # Single containers.

    async def _ps(self, form: str, *arguments: str) -> str:
        return await docker("ps", *arguments, "--filter", f"label={_LABEL}.project={self.project}", "--format", form)

    async def containers(self, service: str) -> list[str]:
        """Their ids by number, those that do not run included."""
        form = f'{{{{.Label "{_LABEL}.container-number"}}}} {{{{.ID}}}}'
        lines = await self._ps(form, "--all", "--filter", f"label={_LABEL}.service={service}")
        return [container for _, container in sorted(line.split() for line in lines.splitlines())]

    async def inspect(self, container: str) -> dict[str, Any]:
        """All that Docker knows of it."""
        return dict(orjson.loads(await docker("inspect", container))[0])

    async def within(self, container: str, *command: str) -> str:
        """What a command inside of it says."""
        return await docker("exec", container, *command)

    async def asked(self, container: str, path: str) -> str:
        """The answer of its internal port, whatever its status."""
        return await self.within(container, _PYTHON, "-c", _ASK, path)

    async def metrics_of(self, container: str) -> dict[str, float]:
        """Its samples by their full name with labels."""
        return samples(await self.asked(container, "/metrics"))

    async def waiting_for(self, container: str) -> dict[str, str]:
        """What it says on `/readyz`."""
        return dict(orjson.loads(await self.asked(container, "/readyz"))["waiting_for"])

    async def logged(self, container: str) -> list[dict[str, Any]]:
        """The events of a service."""
        process = await asyncio.create_subprocess_exec(
            "docker", "logs", container, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await process.communicate()
        return [orjson.loads(line) for line in output.splitlines() if line.startswith(b"{")]

    async def kill(self, *services: str) -> None:
        """`docker kill -s KILL`: they stay away until `begin`."""
        for service in services:
            await self.kill_containers(*await self.containers(service))

    async def kill_containers(self, *containers: str) -> None:
        """The same, of single ones."""
        await docker("kill", "--signal", "KILL", *containers)

    async def begin(self, *services: str) -> None:
        """After `kill`: start them again, and wait until all is healthy."""
        for service in services:
            await docker("start", *await self.containers(service))
        await self.healthy()

    async def crash(self, container: str) -> None:
        """End its process as the kernel would that is out of memory; Docker knows nothing of it beforehand."""
        # Ends everything but the container's init, the command itself included.
        with_end = await asyncio.create_subprocess_exec("docker", "exec", container, "sh", "-c", "kill -9 -1")
        await with_end.wait()

    @asynccontextmanager
    async def cut_off(self, service: str, network: str) -> AsyncIterator[None]:
        """Without that network while the block lasts."""
        containers, name = await self.containers(service), f"{self.project}_{network}"
        for container in containers:
            await docker("network", "disconnect", name, container)
        try:
            yield
        finally:
            for container in containers:
                await docker("network", "connect", "--alias", service, name, container)

    async def memory(self) -> dict[str, float]:
        """By the containers' names: how much of their limit they use, in percent."""
        identifiers = (await self._ps("{{.ID}}")).split()
        lines = await docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemPerc}}", *identifiers)
        return {name: float(share.rstrip("%")) for name, share in (line.split() for line in lines.splitlines())}


@asynccontextmanager
async def removed_afterwards(system: ComposeSystem) -> AsyncIterator[ComposeSystem]:
    """Whatever it has is removed at the end; its logs stay in `build/containers`."""
    try:
        yield system
    finally:
        system.save_logs(ROOT / f"build/containers/{system.project}.log")
        await system.removed()


@asynccontextmanager
async def running_compose(system: ComposeSystem) -> AsyncIterator[ComposeSystem]:
    """Up; removed at the end with all that it had."""
    async with removed_afterwards(system):
        yield await system.up()
