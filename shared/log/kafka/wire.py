"""Two requests of Kafka's protocol that the driver lacks; https://kafka.apache.org/protocol has their layouts.

Metadata with the ids of topics, and without making the topics that are asked for; and changing some settings of a topic
while leaving the others.
"""

from io import BytesIO
from typing import Any

from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    String,
    TaggedFields,
)

_TEXT = String("utf-8")
_COMPACT = CompactString("utf-8")
_TAGS = ("tags", TaggedFields)


class _Id(AbstractType):  # type: ignore[misc]
    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(16)


class _MetadataResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", CompactArray(("id", Int32), ("host", _COMPACT), ("port", Int32), ("rack", _COMPACT), _TAGS)),
        ("cluster_id", _COMPACT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _COMPACT),
                ("id", _Id),
                ("internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("in_sync", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        _TAGS,
                    ),
                ),
                ("operations", Int32),
                _TAGS,
            ),
        ),
        ("operations", Int32),
        _TAGS,
    )


class _MetadataStruct(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("id", _Id), ("name", _COMPACT), _TAGS)),
        ("make_them", Boolean),
        ("cluster_operations", Boolean),
        ("topic_operations", Boolean),
        _TAGS,
    )


class DescribeTopics(Request[_MetadataStruct]):  # type: ignore[misc]
    """What is known of `topics`; makes none."""

    API_KEY = 3

    def __init__(self, *topics: str) -> None:
        self._topics = topics

    def build(self, struct: Any) -> Any:
        """For the driver."""
        return struct([(bytes(16), name, {}) for name in self._topics], False, False, False, {})


class _ChangeResponse(Response):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("resources", Array(("error_code", Int16), ("error_message", _TEXT), ("kind", Int8), ("name", _TEXT))),
    )


class _ChangeStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _ChangeResponse
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("kind", Int8),
                ("name", _TEXT),
                ("settings", Array(("name", _TEXT), ("operation", Int8), ("value", _TEXT))),
            ),
        ),
        ("validate_only", Boolean),
    )


TOPIC = 2  # the kind of resource
_SET = 0


class ChangeSettings(Request[_ChangeStruct]):  # type: ignore[misc]
    """Set `settings` of `topic`."""

    API_KEY = 44

    def __init__(self, topic: str, settings: dict[str, str]) -> None:
        self._topic = topic
        self._settings = settings

    def build(self, struct: Any) -> Any:
        """For the driver."""
        return struct([(TOPIC, self._topic, [(name, _SET, value) for name, value in self._settings.items()])], False)
