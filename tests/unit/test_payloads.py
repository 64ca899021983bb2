"""Which payloads are taken, and that what is taken keeps its bytes."""

import json
from time import process_time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ingestion.domain.payloads import MAX_DEPTH, MAX_NODES, SAID, Envelope, Fault, envelope_of, fault_of

LEGAL = [
    b"{}",
    b"null",
    b"1",
    b' {"a": 1}\n',
    b'{"$set":{"a.b":{"":[]}}}',
    b'{"a":1,"a":2}',
    b"1.0",
    b"-0",
    b"1E5",
    b"1e-999",
    b"1.7976931348623157e308",
    b"12345678901234567890.0",
    b"12345678901234567890e1",
    b"123456789012345678901234567890.5",
    b"9223372036854775807",
    b"-9223372036854775808",
    b'"99999999999999999999"',
    b'{"99999999999999999999":"\\"99999999999999999999"}',
    b'["\\\\", 1000000000000000000]',
    b'{"a":"\\u0000"}',
    b'{"\\\\u0000":1}',
    b'"\\ud83d\\ude00"',
    '{"é":"😀"}'.encode(),
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
    b"[" + b"{}," * 500 + b"{}]",
    b'"' + b"[" * 100_000 + b'"',
    b'"' + b"," * 100_000 + b'"',
    b'{"a":"' + b'\\"[{' * 1000 + b'"}',
    b"[" + b"1," * (MAX_NODES - 2) + b"1]",
    b"[" + b"[ ]," * (MAX_NODES - 2) + b"[ ]]",
]

REFUSED = [
    (b"", Fault.EMPTY),
    (b" \n", Fault.EMPTY),
    (b"\xef\xbb\xbf{}", Fault.BYTE_ORDER_MARK),
    ("{}".encode("utf-16"), Fault.BYTE_ORDER_MARK),
    ("{}".encode("utf-16-le"), Fault.NOT_JSON),
    (b'"\xff"', Fault.NOT_UTF8),
    (b'"\xed\xa0\x80"', Fault.NOT_UTF8),
    (b"{", Fault.NOT_JSON),
    (b'{"a":1', Fault.NOT_JSON),
    (b'{"a":"', Fault.NOT_JSON),
    (b"hello", Fault.NOT_JSON),
    (b"{'a':1}", Fault.NOT_JSON),
    (b"[1,]", Fault.NOT_JSON),
    (b"01", Fault.NOT_JSON),
    (b"{} {}", Fault.NOT_JSON),
    (b'"\n"', Fault.NOT_JSON),
    (b"NaN", Fault.NOT_FINITE),
    (b'{"a":-Infinity}', Fault.NOT_FINITE),
    (b"[1e999]", Fault.NOT_FINITE),
    (b"-1.0e400", Fault.NOT_FINITE),
    (b"9223372036854775808", Fault.INTEGER_RANGE),
    (b"-9223372036854775809", Fault.INTEGER_RANGE),
    (b"18446744073709551615", Fault.INTEGER_RANGE),
    (b"18446744073709551616", Fault.INTEGER_RANGE),
    (b'{"a":["\\"",{"b":-99999999999999999999}]}', Fault.INTEGER_RANGE),
    (b"1" * 5000, Fault.INTEGER_RANGE),
    (b'{"a":9223372036854775808,"a":1}', Fault.INTEGER_RANGE),
    (b'"\\ud800"', Fault.LONE_SURROGATE),
    (b'{"\\udc00x":1}', Fault.LONE_SURROGATE),
    (b'{"a\\u0000":1}', Fault.NUL_IN_KEY),
    (b'{"a":{"b\\u0000" :1},"a":2}', Fault.NUL_IN_KEY),
    (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), Fault.TOO_DEEP),
    (b"[" * 100_000 + b"]" * 100_000, Fault.TOO_DEEP),
    (b"[" * 100_000, Fault.TOO_DEEP),
    (b'{"a":' * 65 + b"1" + b"}" * 65, Fault.TOO_DEEP),
    (b"[" + b"1," * (MAX_NODES - 1) + b"1]", Fault.TOO_MANY_NODES),
    (b"[" + b"{}," * (MAX_NODES - 1) + b"{}]", Fault.TOO_MANY_NODES),
    (b"[" + b"[1]," * 5000 + b"[1]]", Fault.TOO_MANY_NODES),
]


@pytest.mark.parametrize("payload", LEGAL)
def test_what_is_legal_is_taken(payload: bytes) -> None:
    assert fault_of(payload) is None


@pytest.mark.parametrize(("payload", "fault"), REFUSED)
def test_what_is_not_gets_its_own_reason(payload: bytes, fault: Fault) -> None:
    assert fault_of(payload) is fault
    assert SAID[fault]


@pytest.mark.parametrize("payload", [b'"' + b'\\"' * 500_000, b'"' * 1_000_000, b"[" * 1_000_000, b"1," * 500_000])
def test_no_payload_of_a_megabyte_takes_long(payload: bytes) -> None:
    began = process_time()
    assert fault_of(payload) is not None
    # Square cost would be minutes.
    assert process_time() - began < 5


def nodes(value: object) -> int:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(nodes(child) for child in children)


def depth(value: object) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max((depth(child) for child in (value.values() if isinstance(value, dict) else value)), default=0)


def keys(value: object) -> list[str]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*(value if isinstance(value, dict) else ()), *(key for child in children for key in keys(child))]


def integers(value: object) -> list[int]:
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [number for child in children for number in integers(child)]


def expected_fault(value: object) -> Fault | None:
    """The rules, said plainly over the parsed value."""
    if depth(value) > MAX_DEPTH:
        return Fault.TOO_DEEP
    if any(not -(2**63) <= number < 2**63 for number in integers(value)):
        return Fault.INTEGER_RANGE
    return Fault.NUL_IN_KEY if any("\0" in key for key in keys(value)) else None


TEXT = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\0\\"[]{},:09u'), max_size=30)
NUMBERS = st.integers() | st.integers(2**63 - 2, 2**64 + 2) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=30,
)


@given(VALUES, st.booleans(), st.integers(0, 70))
def test_the_quick_check_agrees_with_the_rules_said_plainly(value: object, ascii_only: bool, deeper: int) -> None:
    for _ in range(deeper):
        value = [value]
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert fault_of(text.encode()) is expected_fault(value)


@given(st.binary(max_size=200) | st.text('[]{}",:\\u0123d8 -eE.tn', max_size=80).map(str.encode))
@settings(max_examples=500)
def test_any_bytes_get_an_answer_and_what_is_taken_is_json(payload: bytes) -> None:
    if fault_of(payload) is None:
        orjson.loads(payload)
    envelope_of(payload)


@pytest.mark.parametrize(
    ("payload", "key", "value"),
    [
        (b'{"key":"a","value":1.0}', "a", "1.0"),
        (b'{"value": {"b" : [1, 2]} , "key":"@job"}', "@job", '{"b" : [1, 2]}'),
        (b'{"key":"a","value":null,"version":3}', "a", "null"),
        (b'{"key":"a","value":1,"value":{"value":2}}', "a", '{"value":2}'),
        (b'{"key":"a","value":"}\\",\\"value\\":1"}', "a", '"}\\",\\"value\\":1"'),
        (b'{"key":"a","v\\u0061lue":1E2}', "a", "1E2"),
        (b'{"x":{"key":1,"value":2},"key":"k","value":[]}', "k", "[]"),
        (b' {\n"key"\t:"k" ,"value"\t: "\xc3\xa9"\n} ', "k", '"é"'),
        (b'{"key":"' + b"k" * 256 + b'","value":12345678901234567890.0}', "k" * 256, "12345678901234567890.0"),
    ],
)
def test_the_value_of_an_envelope_keeps_its_text(payload: bytes, key: str, value: str) -> None:
    assert envelope_of(payload) == Envelope(key, value)


@given(st.dictionaries(TEXT | st.just("value"), VALUES, max_size=5), TEXT.filter(bool), VALUES, st.booleans())
def test_the_text_cut_from_an_envelope_is_its_value(
    others: dict[str, object], key: str, value: object, spaced: bool
) -> None:
    separators = (" , ", " : ") if spaced else (",", ":")
    document = {**others, "key": key, "value": value}
    envelope = envelope_of(json.dumps(document, separators=separators).encode())
    if isinstance(envelope, Envelope):
        assert envelope == (key, json.dumps(value, separators=separators))
    else:
        assert expected_fault(document) is envelope


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        (b"[]", Fault.NOT_AN_ENVELOPE),
        (b'"key value"', Fault.NOT_AN_ENVELOPE),
        (b'{"key":"a"}', Fault.NOT_AN_ENVELOPE),
        (b'{"value":1}', Fault.NOT_AN_ENVELOPE),
        (b'{"key":1,"value":1}', Fault.NOT_AN_ENVELOPE),
        (b'{"key":"","value":1}', Fault.NOT_AN_ENVELOPE),
        (b'{"key":"' + b"k" * 257 + b'","value":1}', Fault.KEY_TOO_LONG),
        (b'{"key":"a","value":18446744073709551616}', Fault.INTEGER_RANGE),
        (b"", Fault.EMPTY),
    ],
)
def test_what_is_no_envelope_gets_its_own_reason(payload: bytes, fault: Fault) -> None:
    assert envelope_of(payload) is fault
