"""Which payloads are taken, decided on the bytes that a device sent; what is taken travels on as those bytes.

The library that parses decides what is JSON (RFC 8259: no NaN, no number beyond a double, no lone surrogate, no byte
order mark). It lets through more than the rules allow in three places (depth and size, integers beyond 64 bits, NUL in
keys); each has a cheap sign in the bytes, and only where that sign is seen are they looked at exactly.
"""

import json
import math
import re
from enum import StrEnum
from itertools import accumulate
from typing import NamedTuple

import orjson

MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_KEY = 256

_INT64 = range(-(2**63), 2**63)
_INT64_DIGITS = 19


class Fault(StrEnum):
    """Why something is set aside: the reason word of `Rejected` and of the counter."""

    EMPTY = "empty"
    BYTE_ORDER_MARK = "byte_order_mark"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    TOO_MANY_NODES = "too_many_nodes"
    INTEGER_RANGE = "integer_range"
    NOT_FINITE = "not_finite"
    LONE_SURROGATE = "lone_surrogate"
    NUL_IN_KEY = "nul_in_key"
    NOT_AN_ENVELOPE = "not_an_envelope"
    KEY_TOO_LONG = "key_too_long"
    TAG_TOO_LONG = "tag_too_long"
    UNKNOWN_TOPIC = "unknown_topic"
    UNKNOWN_DEVICE = "unknown_device"
    MALFORMED_RECORD = "malformed_record"


SAID = {
    Fault.EMPTY: "The payload is empty",
    Fault.BYTE_ORDER_MARK: "The payload begins with a byte order mark; JSON is plain UTF-8",
    Fault.NOT_UTF8: "The payload is not UTF-8",
    Fault.NOT_JSON: "The payload is not valid JSON",
    Fault.TOO_DEEP: f"The payload is nested deeper than {MAX_DEPTH}",
    Fault.TOO_MANY_NODES: f"The payload has more than {MAX_NODES} values",
    Fault.INTEGER_RANGE: "An integer does not fit 64 bits with sign",
    Fault.NOT_FINITE: "NaN, an infinity, or a number beyond the range of a double",
    Fault.LONE_SURROGATE: "Text holds half of a surrogate pair",
    Fault.NUL_IN_KEY: "A key holds the character NUL",
    Fault.NOT_AN_ENVELOPE: "Not an object with a text `key` and a `value`",
    Fault.KEY_TOO_LONG: f"The key is longer than {MAX_KEY} characters",
    Fault.TAG_TOO_LONG: "The tag is longer than 256 characters",
    Fault.UNKNOWN_TOPIC: "Nothing is known to come on this topic",
    Fault.UNKNOWN_DEVICE: "There is no such device any more",
    Fault.MALFORMED_RECORD: "The spool holds a record that is not as its format says",
}


class Envelope(NamedTuple):
    """What came on `j/up`. `value`: its JSON text as the device wrote it."""

    key: str
    value: str


# The closing quote is optional so that the search stays linear in what is not JSON.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_KEY = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+(:?)', re.DOTALL)
_NUMBER = re.compile(rb"-?[0-9][0-9.eE+-]*")
_LONG_DIGITS = re.compile(rb"[0-9]{%d}" % _INT64_DIGITS)
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},:]', re.DOTALL)
_EMPTY_CONTAINER = re.compile(rb"\[\s*\]|\{\s*\}")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def fault_of(payload: bytes) -> Fault | None:
    """Why `payload` is not taken; None when it is."""
    containers = payload.count(b"{") + payload.count(b"[")
    if containers > MAX_DEPTH or containers + payload.count(b",") >= MAX_NODES:
        fault = _shape_fault(_STRING.sub(b"0", payload))
        if fault is not None:
            return fault
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return _why_not_json(payload)
    if _LONG_DIGITS.search(payload) is not None and _has_integer_out_of_range(payload):
        return Fault.INTEGER_RANGE
    if b"\\u0000" in payload and _has_nul_in_key(payload):
        return Fault.NUL_IN_KEY
    return None


def envelope_of(payload: bytes) -> Envelope | Fault:
    """The envelope in `payload`; of a member that is there twice, the last counts."""
    if (fault := fault_of(payload)) is not None:
        return fault
    found = orjson.loads(payload)
    if not isinstance(found, dict) or "value" not in found:
        return Fault.NOT_AN_ENVELOPE
    key = found.get("key")
    if not isinstance(key, str) or not key:
        return Fault.NOT_AN_ENVELOPE
    if len(key) > MAX_KEY:
        return Fault.KEY_TOO_LONG
    return Envelope(key, _member(payload, "value").decode())


def _shape_fault(bare: bytes) -> Fault | None:
    """Of text without strings: values are one more than commas and containers that hold something."""
    brackets = bare.translate(None, _NOT_BRACKETS)
    # Each container has two: what is beyond cannot be within the limit of values either.
    depths = accumulate(map(_STEP.__getitem__, brackets[: 2 * MAX_NODES]))
    if max(depths, default=0) > MAX_DEPTH:
        return Fault.TOO_DEEP
    holding = bare.count(b"{") + bare.count(b"[") - len(_EMPTY_CONTAINER.findall(bare))
    return Fault.TOO_MANY_NODES if 1 + bare.count(b",") + holding > MAX_NODES else None


def _has_integer_out_of_range(payload: bytes) -> bool:
    return any(_is_out_of_range(token) for token in _NUMBER.findall(_STRING.sub(b"", payload)))


def _is_out_of_range(token: bytes) -> bool:
    digits = token.removeprefix(b"-")
    if len(digits) < _INT64_DIGITS or not digits.isdigit():
        return False
    return len(digits) > _INT64_DIGITS or int(token) not in _INT64


def _has_nul_in_key(payload: bytes) -> bool:
    return any(colon and b"\\u0000" in token and "\0" in orjson.loads(token) for token, colon in _KEY.findall(payload))


def _why_not_json(payload: bytes) -> Fault:
    """The word for what the parser refused. Its shape is within the limits, so the slow parser may have a look."""
    if not payload.strip():
        return Fault.EMPTY
    if payload.startswith(b"\xef\xbb\xbf"):
        return Fault.BYTE_ORDER_MARK
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return Fault.BYTE_ORDER_MARK if payload.startswith(_UTF16_MARKS) else Fault.NOT_UTF8
    infinite: list[str] = []
    try:
        json.loads(text, parse_constant=infinite.append, parse_int=len, parse_float=_noting(infinite))
    except ValueError:
        return Fault.NOT_JSON
    if _has_integer_out_of_range(payload):
        return Fault.INTEGER_RANGE
    # The standard library takes all that RFC 8259 has and, beyond it, just these two.
    return Fault.NOT_FINITE if infinite else Fault.LONE_SURROGATE


class _noting:  # noqa: N801 (used as a function)
    """Remembers the numbers that no double holds."""

    def __init__(self, infinite: list[str]) -> None:
        self._infinite = infinite

    def __call__(self, token: str) -> float:
        if math.isinf(number := float(token)):
            self._infinite.append(token)
        return number


def _member(payload: bytes, name: str) -> bytes:
    """The text of the last member `name` of the object in `payload`, which is valid JSON and has it."""
    depth, start, key, found = 0, 0, b"", b""
    for match in _STRUCTURE.finditer(payload):
        token = match.group()
        if token in b"[{":
            depth += 1
        elif depth == 1 and token == b":":
            start = match.end()
        elif depth == 1 and token in b",}":
            if start and orjson.loads(key) == name:
                found = payload[start : match.start()]
            start = 0
        elif depth == 1 and start == 0:
            key = token
        if token in b"]}":
            depth -= 1
    return found.strip()
