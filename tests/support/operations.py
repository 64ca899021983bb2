"""The operations of an OpenAPI document, and plausible things to ask of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

_METHODS = ("get", "post", "put", "patch", "delete")
_BY_TYPE: Mapping[str, Any] = {"string": "text", "integer": 1, "number": 1, "boolean": True, "null": None}
_BY_FORMAT = {"date-time": "2024-05-02T08:00:00Z"}
# One of them is wrong wherever something particular is expected.
_CANDIDATES: Sequence[Any] = (7, True, "text", "", [], [7], {}, {"$ne": None}, [{"$ne": None}], {"$gt": ""}, None)


@dataclass(frozen=True)
class Operation:
    """One method of one path. `body`, `answer`: JSON schemas; `queries`: name -> JSON schema."""

    method: str
    path: str
    variables: tuple[str, ...]
    queries: Mapping[str, Any]
    body: Mapping[str, Any] | None
    answer: Mapping[str, Any]
    is_public: bool
    takes_keys: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    def at(self, ids: Mapping[str, str]) -> str:
        """The path with `ids` in it."""
        unknown = set(self.variables) - set(ids)
        assert not unknown, f"{self}: whoever added {unknown} says in this suite how a tenant comes by one"
        path = self.path
        for name in self.variables:
            path = path.replace(f"{{{name}}}", ids[name])
        return path


class Operations:
    """All of a document."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.all = list(self._found())

    def _found(self) -> Iterator[Operation]:
        for path, methods in self._document["paths"].items():
            for method in _METHODS:
                if (operation := methods.get(method)) is not None:
                    yield self._operation(method, path, operation)

    def _operation(self, method: str, path: str, operation: Mapping[str, Any]) -> Operation:
        parameters = operation["parameters"]
        body = operation.get("requestBody")
        return Operation(
            method.upper(),
            path,
            tuple(one["name"] for one in parameters if one["in"] == "path"),
            {one["name"]: one["schema"] for one in parameters if one["in"] == "query"},
            body and body["content"]["application/json"]["schema"],
            operation["responses"]["200"]["content"]["application/json"]["schema"],
            is_public=not operation["security"],
            takes_keys=any("apiKey" in one for one in operation["security"]),
        )

    def faults(self, schema: Mapping[str, Any], value: Any) -> list[str]:
        """Where `value` is not as `schema` says."""
        whole = {"components": self._document["components"], "allOf": [schema]}
        return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(value)]

    def example(self, schema: Mapping[str, Any], known: Mapping[str, Any], name: str = "") -> Any:
        """A value that `schema` allows, all members present; members in `known` have the value from there."""
        if name in known:
            return known[name]
        schema = self._plain(schema)
        if schema.get("default") is not None and "properties" not in schema:
            return schema["default"]
        if "enum" in schema or "const" in schema:
            return schema["const"] if "const" in schema else schema["enum"][0]
        if schema.get("type") == "object":
            return {each: self.example(rule, known, each) for each, rule in schema.get("properties", {}).items()}
        if schema.get("type") == "array":
            return [self.example(schema["items"], known)]
        return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE[schema["type"]])

    def _plain(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a reference stands for, and of several choices the first that is not null."""
        while True:
            if "$ref" in schema:
                schema = self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            elif "anyOf" in schema:
                schema = next(one for one in schema["anyOf"] if one.get("type") != "null")
            else:
                return schema

    def wrong(self, schema: Mapping[str, Any], value: Any) -> Iterator[Any]:
        """`value` with something in it, or all of it, of a type that `schema` does not allow."""
        for changed in _with_other_values(value):
            if self.faults(schema, changed):
                yield changed


def _with_other_values(value: Any) -> Iterator[Any]:
    yield from _CANDIDATES
    if isinstance(value, dict):
        for name, member in value.items():
            for changed in _with_other_values(member):
                yield {**value, name: changed}
    elif isinstance(value, list):
        for number, item in enumerate(value):
            for changed in _with_other_values(item):
                yield [*value[:number], changed, *value[number + 1 :]]
