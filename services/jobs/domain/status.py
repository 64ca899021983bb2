"""A device's status: what it reported (current) and what is wanted of it (expected), and how one changes the other.

Values are JSON text, as the device or the caller wrote it (spec: mqtt-device-protocol 5 and 6).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson

# What one device may make us keep: its status must also fit a reply.
MAX_KEYS = 1000
MAX_BYTES = 256 * 1024

CONDITION = "condition"
NULL = "null"


class Entry(NamedTuple):
    """A value and the server time of its last change, ms."""

    t: int
    v: str


Entries = Mapping[str, Entry]


@dataclass(frozen=True)
class Status:
    """Of one device. `applied`: id of the last message that is in it; `revision`: 0 when it was never kept."""

    device_id: str
    current: Entries
    expected: Entries
    applied: str = ""
    revision: int = 0

    @classmethod
    def empty(cls, device_id: str) -> "Status":
        """Of a device that never said anything."""
        return cls(device_id, {}, {})

    def has(self, message_id: str) -> bool:
        """Whether this message is in it already: of one spool, ids rise, and they are read in order."""
        spool, _, number = message_id.rpartition("-")
        known_spool, _, known_number = self.applied.rpartition("-")
        return spool == known_spool and number <= known_number


class Merged(NamedTuple):
    """What a report made of a status. `stored`: False when the status is full and the value is not in it."""

    status: Status
    stored: bool


def is_state(key: str) -> bool:
    """Whether an up message of this key is kept: neither a request nor a condition."""
    return not key.startswith("#") and key != CONDITION


def merge(status: Status, message_id: str, key: str, entry: Entry) -> Merged:
    """`status` after the device reported `key`: the table of section 6.

    A full status still confirms what was expected, so that nothing is asked for again for ever.
    """
    if status.has(message_id):
        return Merged(status, stored=True)
    current, expected = dict(status.current), dict(status.expected)
    if _confirms(key, entry.v, expected):
        del expected[key]
    stored = True
    if entry.v == NULL and not key.startswith("@"):
        current.pop(key, None)
    elif _has_room(current, key, entry.v):
        current[key] = entry
    else:
        stored = False
    return Merged(replace(status, current=current, expected=expected, applied=message_id), stored)


def _confirms(key: str, value: str, expected: Entries) -> bool:
    """Any reply to a job does; a variable is confirmed by the value that was wanted, otherwise it stays pending."""
    if key not in expected:
        return False
    return key.startswith("@") or same_json(value, expected[key].v)


def _has_room(current: Entries, key: str, value: str) -> bool:
    if key not in current and len(current) >= MAX_KEYS:
        return False
    held = sum(_size(name, entry.v) for name, entry in current.items() if name != key)
    return held + _size(key, value) <= MAX_BYTES


def _size(key: str, value: str) -> int:
    return len(orjson.dumps(key)) + len(value.encode())


def same_json(one: str, other: str) -> bool:
    """Whether two JSON texts mean the same: member order and the spelling of numbers and text do not matter."""
    return one == other or _same(orjson.loads(one), orjson.loads(other))


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
