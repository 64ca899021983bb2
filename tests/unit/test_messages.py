"""Every version of every message that was ever written still parses, to the values that its example states.

Never change an example: it is what old logs hold. A new form of a message gets a new example beside the old ones.
"""

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared import messages
from shared.errors import Refused
from shared.messages.base import Message
from shared.messages.devices import DataReceived
from shared.messages.topics import TOPICS, rejected

EXAMPLES = Path(__file__).parents[1] / "messages" / "examples"
FILES = sorted(EXAMPLES.glob("*/*.json"))
# What other messages are made of; not records by themselves.
PARTS = {"AccessKey"}


def message_types() -> dict[str, type[Any]]:
    """By name: all in `shared.messages` that can be decoded."""
    found: dict[str, type[Any]] = {}
    for info in pkgutil.iter_modules(messages.__path__):
        module = importlib.import_module(f"{messages.__name__}.{info.name}")
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and hasattr(kind, "decode") and kind is not Message:
                found[name] = kind
    return {name: kind for name, kind in found.items() if name not in PARTS}


def members_of(decoded: Any) -> dict[str, Any]:
    members = decoded.model_dump(mode="json") if isinstance(decoded, Message) else decoded._asdict()
    return dict(members)


def example(file: Path) -> dict[str, Any]:
    return dict(orjson.loads(file.read_bytes()))


def named(file: Path) -> str:
    return f"{file.parent.name}/{file.stem}"


@pytest.mark.parametrize("file", FILES, ids=named)
def test_an_example_parses_to_the_values_that_it_states(file: Path) -> None:
    stated = example(file)
    found = members_of(message_types()[stated["message"]].decode(orjson.dumps(stated["record"])))
    assert {name: found[name] for name in stated["record"]} == stated["record"]


@pytest.mark.parametrize("file", FILES, ids=named)
def test_what_is_written_of_an_example_is_read_as_the_same(file: Path) -> None:
    stated = example(file)
    kind = message_types()[stated["message"]]
    decoded = kind.decode(orjson.dumps(stated["record"]))
    record = decoded.record(stated["key"]) if isinstance(decoded, Message) else decoded.record()
    assert record.key == stated["key"]
    assert record.value is not None
    assert kind.decode(record.value) == decoded


@pytest.mark.parametrize("file", FILES, ids=named)
def test_members_that_a_later_version_added_are_ignored(file: Path) -> None:
    stated = example(file)
    kind = message_types()[stated["message"]]
    assert kind.decode(orjson.dumps({**stated["record"], "added_later": [1]})) == kind.decode(
        orjson.dumps(stated["record"])
    )


@pytest.mark.parametrize("kind", message_types().values(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"null", b"{", b"\xff"])
def test_what_is_no_such_message_is_refused(kind: type[Any], value: bytes) -> None:
    with pytest.raises(Refused):
        kind.decode(value)


def test_a_member_of_another_type_is_refused() -> None:
    right = {
        "id": "a-1", "workspace_id": "w", "fleet_id": "f", "device_id": "d", "device_name": "n", "tag": "t",
        "timestamp_device": 1, "timestamp_in": 2, "payload": "{}",
    }  # fmt: skip
    DataReceived.decode(orjson.dumps(right))
    for name, wrong in (("tag", None), ("payload", {}), ("timestamp_in", "2"), ("timestamp_in", True)):
        with pytest.raises(Refused, match="is no"):
            DataReceived.decode(orjson.dumps({**right, name: wrong}))


def test_every_message_has_an_example() -> None:
    assert message_types().keys() == {example(file)["message"] for file in FILES}


def test_every_topic_has_an_example() -> None:
    folders = {file.parent.name for file in FILES}
    assert {topic.name for topic in TOPICS} <= folders
    assert folders <= {name for topic in TOPICS for name in (topic.name, rejected(topic).name)}
