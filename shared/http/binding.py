"""Bodies and queries, parsed into the models that a route names. What does not fit is `Refused`, naming the field."""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError

from shared.errors import Refused


def body_of(model: type[BaseModel], content: bytes) -> BaseModel:
    """`content` as `model`: types are taken strictly, unknown members are ignored, nothing at all counts as `{}`."""
    try:
        value = orjson.loads(content) if content.strip() else {}
    except orjson.JSONDecodeError as error:
        raise Refused(f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise Refused("The body is nested too deep") from error
    if not isinstance(value, dict):
        raise Refused("The body must be a JSON object")
    _check_text(value)
    return _validated(model, value, strict=True)


def query_of(model: type[BaseModel], query: MultiMapping[str]) -> BaseModel:
    """`query` as `model`: a parameter may repeat where the model has a list; an empty one counts as not given."""
    values: dict[str, Any] = {}
    for name in query:
        given = [value for value in query.getall(name) if value != ""]
        if given:
            values[name] = given if _is_list(model, name) else given[-1]
    _check_text(values)
    return _validated(model, values, strict=False)


def _validated(model: type[BaseModel], value: Mapping[str, Any], *, strict: bool) -> BaseModel:
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        raise _refusal(error) from error


def _refusal(error: ValidationError) -> Refused:
    problem = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in problem["loc"])
    rule = problem["msg"].removeprefix("Value error, ")
    return Refused(f"{field}: {rule}" if field else rule, field=field or None)


def _is_list(model: type[BaseModel], name: str) -> bool:
    for field, info in model.model_fields.items():
        if name in (field, info.alias):
            annotation = str(info.annotation)
            return annotation.startswith(("list[", "tuple["))
    return False


def _check_text(value: Any) -> None:
    """NUL is no character of any name or address; stores and headers stumble over it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if "\0" in one:
                raise Refused("Text may not contain the character NUL")
        elif isinstance(one, Mapping):
            waiting.extend(one)
            waiting.extend(one.values())
        elif isinstance(one, Sequence):
            waiting.extend(one)
