"""The OpenAPI document says what the routes are."""

from typing import Any, Literal

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel, Field

from shared.http.openapi import document, merged
from shared.http.raw_json import RawJson
from shared.http.routes import Answer, Audience, Nothing, Request, Route


class Size(BaseModel):
    width: int = 1


class Thing(BaseModel):
    name: str
    size: Size = Size()
    payload: RawJson


class Filter(BaseModel):
    kind: Literal["a", "b"] | None = Field(None, description="Only these")
    page: int = Field(0, alias="from", ge=0)
    tag: list[str] = []


class Things(BaseModel):
    things: list[Thing]


async def never(_request: Request[Any, Any]) -> Answer:
    return Nothing()


ROUTES = [
    Route("GET", "/v3/things", never, "List", Things, query=Filter),
    Route("POST", "/v3/things", never, "Make", Thing, Thing, audience=Audience.USER, aliases=("/v1/things",)),
    Route("GET", "/v3/things/{thing_id}", never, "Read", Thing, audience=Audience.PUBLIC),
]


def valid(found: dict[str, Any]) -> dict[str, Any]:
    OpenAPIV31SpecValidator(found).validate()
    return found


def schema_of(found: dict[str, Any], reference: str) -> dict[str, Any]:
    return dict(found["components"]["schemas"][reference.rpartition("/")[2]])


def test_the_document_is_valid_and_has_every_path() -> None:
    found = valid(document(ROUTES, "1.0"))
    assert set(found["paths"]) == {"/v3/things", "/v1/things", "/v3/things/{thing_id}"}
    assert set(found["paths"]["/v3/things"]) == {"get", "post"}


def test_parameters_come_from_path_and_query_by_the_names_on_the_wire() -> None:
    paths = valid(document(ROUTES, "1.0"))["paths"]
    names = {(one["name"], one["in"], one["required"]) for one in paths["/v3/things"]["get"]["parameters"]}
    assert names == {("kind", "query", False), ("from", "query", False), ("tag", "query", False)}
    assert paths["/v3/things/{thing_id}"]["get"]["parameters"][0]["required"] is True


def test_a_model_that_is_both_asked_for_and_answered_is_described_for_each_use() -> None:
    found = valid(document(ROUTES, "1.0"))
    make = found["paths"]["/v3/things"]["post"]
    asked = schema_of(found, make["requestBody"]["content"]["application/json"]["schema"]["$ref"])
    answered = schema_of(found, make["responses"]["200"]["content"]["application/json"]["schema"]["$ref"])
    assert asked["required"] == ["name", "payload"]
    assert set(answered["properties"]) == {"name", "size", "payload"}


def test_who_may_call_is_said() -> None:
    paths = document(ROUTES, "1.0")["paths"]
    assert paths["/v3/things"]["get"]["security"] == [{"session": []}, {"apiKey": []}]
    assert paths["/v3/things"]["post"]["security"] == [{"session": []}]
    assert paths["/v3/things/{thing_id}"]["get"]["security"] == []


def other_thing() -> type[BaseModel]:
    class Thing(BaseModel):
        weight: float

    return Thing


def test_equal_names_in_two_services_stay_two_schemas() -> None:
    other = document([Route("GET", "/v3/others", never, "Other", other_thing())], "1.0")
    found = valid(merged([document(ROUTES[2:], "1.0"), other, document(ROUTES[2:], "1.0")]))
    answers = {
        path: schema_of(
            found, found["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
        )
        for path in ("/v3/things/{thing_id}", "/v3/others")
    }
    assert "name" in answers["/v3/things/{thing_id}"]["properties"]
    assert "weight" in answers["/v3/others"]["properties"]


def test_equal_names_within_one_service_stay_two_schemas() -> None:
    routes = [*ROUTES, Route("GET", "/v3/others", never, "Other", other_thing())]
    found = valid(document(routes, "1.0"))
    reference = found["paths"]["/v3/others"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]
    assert "weight" in schema_of(found, reference)["properties"]


@pytest.mark.parametrize("status", ["400", "401", "403", "404", "405", "408", "409", "413", "429", "503"])
def test_every_refusal_is_described(status: str) -> None:
    found = document(ROUTES, "1.0")
    assert status in found["paths"]["/v3/things"]["get"]["responses"]
    assert status in found["components"]["responses"]
