"""What a device asks with `#name`, and what it is answered (spec: mqtt-device-protocol 6, 7.2, 7.3 and 9.3)."""

from typing import NamedTuple

import orjson

from services.jobs.domain.status import NULL, Entries, Status
from shared.clock import rfc3339_ms
from shared.messages.devices import DownRequested

STATUS, NOW, CONDITIONS = "#status", "#now", "#conditions"
KNOWN = frozenset({STATUS, NOW, CONDITIONS})

FOTA = "@fota"
# Told by devices that can update their firmware; the others skip all that is expected when they see `@fota` there.
_UPDATABLE = ("__vm_info", "__info")


class Answer(NamedTuple):
    """A message down: key and JSON text."""

    key: str
    value: str


def answers_to(request: str, status: Status, now: int) -> list[Answer]:
    """In the order in which the device is to get them; none to a request that is not known."""
    if request == STATUS:
        return _status(status)
    if request == NOW:
        value = {"s": now // 1000, "ms": now, "rfc3339": rfc3339_ms(now)}
        return [Answer(NOW, orjson.dumps(value).decode())]
    if request == CONDITIONS:
        return [Answer(CONDITIONS, "{}")]
    return []


def down(answers: list[Answer], up_id: str, device_id: str, now: int) -> list[DownRequested]:
    """The same ids on every repeat of the message `up_id`."""
    return [
        DownRequested(f"{up_id}-{number}", device_id, answer.key, answer.value, now)
        for number, answer in enumerate(answers)
    ]


def _status(status: Status) -> list[Answer]:
    expected = dict(status.expected)
    apart = []
    if FOTA in expected and not any(key in status.current for key in _UPDATABLE):
        apart.append(Answer(FOTA, expected.pop(FOTA).v))
    shown = {key: entry._replace(v=NULL) if key.startswith("__") else entry for key, entry in status.current.items()}
    value = f'{{"current":{_or_null(shown)},"expected":{_or_null(expected)}}}'
    return [Answer(STATUS, value), *apart]


def _or_null(entries: Entries) -> str:
    return as_json(entries) if entries else NULL


def as_json(entries: Entries) -> str:
    """`{key: {"t", "v"}}`, the values as their own text."""
    members = (f'{orjson.dumps(key).decode()}:{{"t":{entry.t},"v":{entry.v}}}' for key, entry in entries.items())
    return f"{{{','.join(members)}}}"
