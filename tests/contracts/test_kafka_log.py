"""The Kafka log keeps the promises of its port, and some of its own."""

from collections.abc import Iterator

import pytest

from tests.contracts.log_promises import LogPromises
from tests.support.kafka import Kafka, running_kafka

pytestmark = pytest.mark.containers


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    with running_kafka() as kafka:
        yield kafka


class TestKafkaLog(LogPromises):
    @pytest.fixture
    def address(self, kafka: Kafka) -> str:
        return kafka.address
