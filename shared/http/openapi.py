"""The OpenAPI 3.1 document of a list of routes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from shared.http.routes import Audience, Nothing, Route

_VARIABLE = re.compile(r"\{(\w+)\}")
_REF = "#/components/schemas/{model}"
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
    "409": "Something else holds the name, or it changed meanwhile",
    "413": "The body is too large",
    "429": "Too often; see Retry-After",
    "503": "Something needed does not answer; see Retry-After",
}


def document(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole document."""
    schemas = _schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for number, path in enumerate((route.path, *route.aliases)):
            paths.setdefault(path, {})[route.method.lower()] = _operation(route, path, number)
    return {
        "openapi": "3.1.0",
        "info": {"title": "zDeviceManager", "version": version, "description": "Fleets of IoT devices, self-hosted."},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
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
    for one in documents:
        for path, operations in one["paths"].items():
            whole["paths"].setdefault(path, {}).update(operations)
        whole["components"]["schemas"].update(one["components"]["schemas"])
    return whole


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    inputs = {model for route in routes for model in (route.body,) if model is not Nothing}
    outputs = {route.answer for route in routes}
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in inputs]
    wanted += [(model, "serialization") for model in outputs - inputs]
    wanted.sort(key=lambda pair: pair[0].__name__)
    _, schema = models_json_schema(wanted, ref_template=_REF)
    return dict(schema.get("$defs", {}))


def _operation(route: Route, path: str, number: int) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{route.method.lower()}{path}").strip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.summary,
        "tags": [_tag(path)],
        "security": _SECURITY[route.audience],
        "parameters": _parameters(route, path),
        "responses": {
            "200": {"description": "Done", "content": _json(_reference(route.answer))},
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS},
        },
    }
    if number:
        operation["description"] = f"Another name of {route.path}."
    if route.body is not Nothing:
        operation["requestBody"] = {"required": True, "content": _json(_reference(route.body))}
    return operation


def _tag(path: str) -> str:
    """The last fixed word of a path says what it is about."""
    words = [word for word in path.split("/") if word and not word.startswith("{")]
    return words[1] if len(words) > 1 and words[1] in ("auth", "timeseries") else words[-1]


def _parameters(route: Route, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in _VARIABLE.findall(path)
    ]
    if route.query is Nothing:
        return found
    schema = route.query.model_json_schema(ref_template=_REF)
    required = schema.get("required", [])
    for name, rule in schema.get("properties", {}).items():
        rule = {key: value for key, value in rule.items() if key != "title"}
        description = rule.pop("description", "")
        found.append(
            {"name": name, "in": "query", "required": name in required, "description": description, "schema": rule}
        )
    return found


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json({"$ref": _REF.format(model="Error")})}
