"""A Kafka of one's own, in a container."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testcontainers.core.container import DockerContainer
from testcontainers.core.waiting_utils import wait_for_logs

from tests.support.ports import free_ports

IMAGE = "apache/kafka:4.3.1"
_START_S = 60


class Kafka:
    """One node; what happens to it happens to all that is in it, and its address stays."""

    def __init__(self, container: DockerContainer, port: int) -> None:
        self._container = container
        self.port = port

    @property
    def address(self) -> str:
        """For `ZDM_LOG`."""
        return f"kafka://127.0.0.1:{self.port}"

    async def pause(self) -> None:
        """As a host that hangs: connections stay open, and nobody answers."""
        await self._do("pause")

    async def unpause(self) -> None:
        """Goes on."""
        await self._do("unpause")

    async def stop(self) -> None:
        """As an orderly end."""
        await self._do("stop")

    async def kill(self) -> None:
        """As `kill -9`."""
        await self._do("kill")

    async def start(self) -> None:
        """After `stop` or `kill`; it takes a while until it answers."""
        await self._do("start")

    async def run(self, *command: str) -> str:
        """What one of its own tools says."""
        code, output = await asyncio.to_thread(self._container.exec, list(command))
        assert code == 0, output
        return str(output.decode())

    async def _do(self, what: str) -> None:
        container: Any = self._container.get_wrapped_container()
        await asyncio.to_thread(getattr(container, what))


def environment(port: int) -> dict[str, str]:
    """A single node that listens on `port`, and is reached under the same one."""
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "3",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        # Topics are ours to make: with Kafka's defaults they would be kept otherwise.
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_HEAP_OPTS": "-Xms320m -Xmx320m",
    }


@contextmanager
def running_kafka(started: bool = True) -> Iterator[Kafka]:
    """Up when this yields, unless it is not `started` yet."""
    [port] = free_ports(1)
    container = DockerContainer(IMAGE, name=f"zdm-test-kafka-{secrets.token_hex(4)}").with_bind_ports(port, port)
    for name, value in environment(port).items():
        container.with_env(name, value)
    with container:
        wait_for_logs(container, "Kafka Server started", timeout=_START_S)
        kafka = Kafka(container, port)
        if not started:
            container.get_wrapped_container().kill()
        yield kafka
