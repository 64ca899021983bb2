"""A Kafka of one's own, in a container."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.support.container import Contained
from tests.support.pki import key_pem, p256_key, self_signed
from tests.support.ports import free_ports

# Its helper that removes what a killed test run leaves would be one more image to fetch.
testcontainers_config.ryuk_disabled = True

IMAGE = "apache/kafka:4.3.1"
_START_S = 180
_SECURITY = "org.apache.kafka.common.security"


class Kafka(Contained):
    """One node; what happens to it happens to all that is in it, and its addresses stay."""

    USER = "zdm"
    SECRET = "s@cret/?#"

    def __init__(self, container: DockerContainer, port: int, secure_port: int, certificate: Path) -> None:
        super().__init__(container)
        self.port = port
        self._secure_port = secure_port
        self._certificate = certificate

    @property
    def address(self) -> str:
        """For `ZDM_LOG`."""
        return f"kafka://127.0.0.1:{self.port}"

    def secure_address(self, mechanism: str) -> str:
        """With TLS and credentials."""
        options = f"tls=true&sasl={mechanism}&ca={self._certificate}"
        return f"kafka://{self.USER}:{quote(self.SECRET, safe='')}@127.0.0.1:{self._secure_port}?{options}"

    @property
    def pid(self) -> int:
        """Of its process, as it is now."""
        container: Any = self._container.get_wrapped_container()
        container.reload()
        return int(container.attrs["State"]["Pid"])

    async def run(self, *command: str) -> str:
        """What one of its own tools says."""
        code, output = await asyncio.to_thread(self._container.exec, list(command))
        assert code == 0, output
        return str(output.decode())


def environment(port: int, secure_port: int, key: str, certificate: str) -> dict[str, str]:
    """A single node that is reached under the ports it listens on."""
    secure = "KAFKA_LISTENER_NAME_SECURE_"
    user = f'user_{Kafka.USER}="{Kafka.SECRET}"'
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},SECURE://:{secure_port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port},SECURE://127.0.0.1:{secure_port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURE:SASL_SSL",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "3",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        # Topics are ours to make: Kafka would make them with its own defaults.
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_HEAP_OPTS": "-Xms320m -Xmx320m",
        "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN,SCRAM-SHA-512",
        f"{secure}SASL_ENABLED_MECHANISMS": "PLAIN,SCRAM-SHA-512",
        f"{secure}SSL_KEYSTORE_TYPE": "PEM",
        f"{secure}SSL_KEYSTORE_KEY": _one_line(key),
        f"{secure}SSL_KEYSTORE_CERTIFICATE_CHAIN": _one_line(certificate),
        f"{secure}PLAIN_SASL_JAAS_CONFIG": f"{_SECURITY}.plain.PlainLoginModule required {user};",
        f"{secure}SCRAM___SHA___512_SASL_JAAS_CONFIG": f"{_SECURITY}.scram.ScramLoginModule required;",
    }


def _one_line(pem: str) -> str:
    return pem.replace("\n", " ").strip()


@contextmanager
def running_kafka(folder: Path) -> Iterator[Kafka]:
    """Up when this yields; `folder` is for its certificate."""
    port, secure_port = free_ports(2)
    key = p256_key()
    certificate = folder / "kafka.pem"
    certificate.write_text(self_signed(key, "127.0.0.1"))
    container = DockerContainer(IMAGE, name=f"zdm-test-kafka-{secrets.token_hex(4)}")
    for each in (port, secure_port):
        container.with_bind_ports(each, each)
    for name, value in environment(port, secure_port, key_pem(key), certificate.read_text()).items():
        container.with_env(name, value)
    started = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(_START_S)
    with container.waiting_for(started):
        yield Kafka(container, port, secure_port, certificate)
