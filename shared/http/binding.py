"""Bodies and queries, parsed into the models that a route names. What does not fit is `Refused`, naming the field."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError

from shared.errors import Refused

_MOST_PARAMETERS = 1000
_COMPLAINTS_SHOWN = 5
_INT64 = range(-(2**63), 2**63)
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


class _Parameter(NamedTuple):
    is_list: bool
    is_integer: bool


def body_of(model: type[BaseModel], content: bytes) -> BaseModel:
    """`content` as `model`: types are taken strictly, unknown members are ignored, nothing at all counts as `{}`."""
    if not content.strip():
        content = b"{}"
    _check_json(content)
    try:
        return model.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise _refusal(error) from error


def query_of(model: type[BaseModel], raw_query: str) -> BaseModel:
    """`raw_query` as `model`: a parameter may repeat where the model has a list; an empty one counts as not given."""
    try:
        pairs = parse_qsl(raw_query, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:
        raise Refused(f"The query cannot be read: {error}") from error
    known = _parameters(model)
    values: dict[str, Any] = {}
    for name, value in pairs:
        if (parameter := known.get(name)) is not None:
            _take(values, name, value, parameter)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _refusal(error) from error


def _take(values: dict[str, Any], name: str, value: str, parameter: _Parameter) -> None:
    if "\0" in value:
        raise Refused(f"{name}: the character NUL is not allowed", field=name)
    # Looser readings of a number (` 1_0 `, `12.0`) are slips of whoever wrote them.
    if parameter.is_integer and not _INTEGER.fullmatch(value):
        raise Refused(f"{name}: must be an integer", field=name)
    if parameter.is_list:
        values.setdefault(name, []).append(value)
    elif name in values:
        raise Refused(f"{name}: may be given only once", field=name)
    else:
        values[name] = value


@cache
def _parameters(model: type[BaseModel]) -> Mapping[str, _Parameter]:
    properties = model.model_json_schema()["properties"]
    return {name: _parameter(schema) for name, schema in properties.items()}


def _parameter(schema: Mapping[str, Any]) -> _Parameter:
    types = {choice.get("type") for choice in (schema, *schema.get("anyOf", ()))}
    return _Parameter("array" in types, "integer" in types and "string" not in types)


def _refusal(error: ValidationError) -> Refused:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    fields = [".".join(str(part) for part in problem["loc"]) for problem in problems]
    rules = [problem["msg"].removeprefix("Value error, ") for problem in problems]
    said = [f"{field}: {rule}" if field else rule for field, rule in zip(fields, rules, strict=True)]
    return Refused("; ".join(said[:_COMPLAINTS_SHOWN]), field=fields[0] or None)


def _check_json(content: bytes) -> None:
    """What the models' own parser lets through, and no store or device would: see the messages."""
    try:
        text = content.decode()
        json.loads(text, object_pairs_hook=_members, parse_int=_integer, parse_float=_number, parse_constant=_constant)
    except UnicodeDecodeError as error:
        raise Refused("The body is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise Refused(f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise Refused("The body is nested too deep") from error
    # Escaped characters only, as unescaped ones are no JSON or no UTF-8.
    if "\\u" in text:
        _check_text(json.loads(text))


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused("A member may be given only once", field=twice.encode(errors="replace").decode())
    return members


def _integer(text: str) -> int:
    if len(text) > 20 or int(text) not in _INT64:
        raise Refused("Integers must fit into 64 bits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise Refused("Numbers must fit into 64-bit floating point")
    return number


def _constant(text: str) -> float:
    raise Refused(f"The body is not JSON: {text} is no number")


def _check_text(value: Any) -> None:
    """Stores and headers stumble over NUL, and half a surrogate pair is no character at all."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if _NO_CHARACTER.search(one):
                raise Refused("Text may not contain the character NUL or half a surrogate pair")
        elif isinstance(one, Mapping):
            waiting.extend(one)
            waiting.extend(one.values())
        elif isinstance(one, Sequence):
            waiting.extend(one)
