"""The OpenAPI 3.1 document of a list of routes."""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from shared.http.routes import Audience, Nothing, Route

_VARIABLE = re.compile(r"\{(\w+)\}")
_SCHEMAS = "#/components/schemas/"
_REF = _SCHEMAS + "{model}"
_ERROR_NAME = "ErrorAnswer"
_SECURITY: Mapping[Audience, list[dict[str, list[str]]]] = {
    Audience.PUBLIC: [],
    Audience.USER: [{"session": []}],
    Audience.MEMBER: [{"session": []}, {"apiKey": []}],
}
_ERROR = {
    "type": "object",
    "required": ["code", "title", "message"],
    "properties": {
        "code": {"type": "string", "description": "Fixed word for programs"},
        "title": {"type": "string"},
        "message": {"type": "string", "description": "What to do about it, for people"},
        "field": {"type": "string", "description": "The member or parameter at fault"},
        "type": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_ERRORS: Mapping[str, str] = {
    "400": "The request breaks a rule",
    "401": "Nobody known is asking",
    "403": "Who asks may not do this",
    "404": "No such thing, or not yours",
    "405": "The path is there, this method is not",
    "408": "The body did not arrive in time",
    "409": "Something else holds the name, or it changed meanwhile",
    "413": "The body is too large",
    "429": "Too often; see Retry-After",
    "503": "Something needed does not answer; see Retry-After",
}


class _Schemas:
    """The schemas of all models of `routes`, each model under a name that no other has."""

    def __init__(self, routes: Sequence[Route]) -> None:
        inputs: dict[type[BaseModel], None] = {route.body: None for route in routes}
        queries: dict[type[BaseModel], None] = {route.query: None for route in routes}
        outputs: dict[type[BaseModel], None] = {route.answer: None for route in routes}
        wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "validation") for model in inputs | queries]
        wanted += [(model, "serialization") for model in outputs]
        self._references, schema = models_json_schema(wanted, ref_template=_REF)
        self._definitions: dict[str, Any] = schema.get("$defs", {})
        # Queries are told parameter by parameter.
        only_queries = [model for model in queries if model not in inputs and model not in outputs]
        self._queries = {model: self._definitions.pop(self._name(model, "validation")) for model in only_queries}

    @property
    def components(self) -> dict[str, Any]:
        """By name."""
        return self._definitions

    def reference(self, model: type[BaseModel], mode: JsonSchemaMode) -> dict[str, Any]:
        """Where the schema of `model` is."""
        return {"$ref": self._references[model, mode]["$ref"]}

    def query(self, model: type[BaseModel]) -> Mapping[str, Any]:
        """The schema of a query as a whole."""
        found: Mapping[str, Any] = self._queries.get(model) or self._definitions[self._name(model, "validation")]
        return found

    def _name(self, model: type[BaseModel], mode: JsonSchemaMode) -> str:
        return str(self._references[model, mode]["$ref"]).rpartition("/")[2]


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole document."""
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for path in (route.path, *route.aliases):
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "zDeviceManager", "version": version, "description": "Fleets of IoT devices, self-hosted."},
        "paths": paths,
        "components": {
            "schemas": {**schemas.components, _ERROR_NAME: _ERROR},
            "responses": {status: _error(description) for status, description in _ERRORS.items()},
            "securitySchemes": {
                "session": {"type": "http", "scheme": "bearer", "description": "Token of /v3/auth/login"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-KEY"},
            },
        },
    }


def merged(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One document of several: the first gives what is not paths and schemas."""
    whole = {**documents[0], "paths": {}, "components": {**documents[0]["components"], "schemas": {}}}
    schemas = whole["components"]["schemas"]
    for one in documents:
        names = _names(one["components"]["schemas"], schemas)
        schemas.update({names[name]: _renamed(schema, names) for name, schema in one["components"]["schemas"].items()})
        for path, operations in one["paths"].items():
            whole["paths"].setdefault(path, {}).update(_renamed(operations, names))
    return whole


def _names(schemas: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, str]:
    """A name for each of `schemas`: its own, or with a number after it when `taken` has it for another one."""
    shared = [name for name in schemas if name in taken]
    # Equal words may still refer to schemas that differ: then none of them is the same.
    if all(schemas[name] == taken[name] for name in shared):
        return {name: name for name in schemas}
    names = {name: name for name in schemas}
    for name in shared:
        numbered = (f"{name}{number}" for number in count(2))
        names[name] = next(one for one in numbered if one not in taken and one not in names.values())
    return names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    """`value` with its references to schemas following `names`."""
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _renamed(one, names) for key, one in value.items()}
    reference = found.get("$ref")
    if isinstance(reference, str) and reference.startswith(_SCHEMAS):
        found["$ref"] = _SCHEMAS + names[reference.removeprefix(_SCHEMAS)]
    return found


def _operation(route: Route, path: str, schemas: _Schemas) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{path}").strip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "tags": [_tag(path)],
        "security": _SECURITY[route.audience],
        "parameters": _parameters(route, path, schemas),
        "responses": {
            "200": {"description": "Done", "content": _json(schemas.reference(route.answer, "serialization"))},
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS},
        },
    }
    if path != route.path:
        operation["description"] = f"Another name of {route.path}."
    if route.body is not Nothing:
        needed = any(field.is_required() for field in route.body.model_fields.values())
        body = schemas.reference(route.body, "validation")
        operation["requestBody"] = {"required": needed, "content": _json(body)}
    return operation


def _tag(path: str) -> str:
    """The last fixed word of a path says what it is about."""
    words = [word for word in path.split("/") if word and not word.startswith("{")]
    return words[1] if len(words) > 1 and words[1] in ("auth", "timeseries") else words[-1]


def _parameters(route: Route, path: str, schemas: _Schemas) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _VARIABLE.findall(path)
    ]
    if route.query is Nothing:
        return found
    schema = schemas.query(route.query)
    required = schema.get("required", [])
    for name, rule in schema.get("properties", {}).items():
        rule = {key: value for key, value in rule.items() if key != "title"}
        description = rule.pop("description", "")
        found.append(
            {"name": name, "in": "query", "required": name in required, "description": description, "schema": rule}
        )
    return found


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json({"$ref": _SCHEMAS + _ERROR_NAME})}
