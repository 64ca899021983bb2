"""The HTTP layer over real sockets: what fits gets its answer, and what does not, one defined refusal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from shared.errors import Conflict, NotFound, OutOfSpace, Refused, TooMany
from shared.http.dispatch import Limits, json_list
from shared.http.raw_json import RawJson
from shared.http.routes import Answer, Audience, Nothing, Request, Route, Stream
from shared.security.principal import Kind, Principal
from tests.support.http import Server, device, running_platform, serving_routes, workspace
from tests.support.waiting import eventually

ME = Principal(Kind.SESSION, "acc-me", None, "ses-1")
MY_KEY = Principal(Kind.API_KEY, "acc-me", "wks-mine", "key-1")
LIMITS = Limits(body_s=0.4, handler_s=0.4, stall_s=0.5)


class Colour(StrEnum):
    RED = "red"


class Inner(BaseModel):
    words: tuple[str, ...] = ()


class Thing(BaseModel):
    name: str
    count: int = 0
    ratio: float = 0.0
    on: bool = False
    colour: Colour = Colour.RED
    at: datetime | None = None
    inner: Inner = Inner()


class Filter(BaseModel):
    tag: list[str] = []
    size: int = Field(100, ge=0, le=1000)
    page: int = Field(0, alias="from")
    word: str | None = None
    on: bool = False


class Echo(BaseModel):
    path: dict[str, str] = {}
    body: dict[str, Any] = {}
    query: dict[str, Any] = {}
    address: str = ""


class Raw(BaseModel):
    payload: RawJson


class Handlers:
    def __init__(self) -> None:
        self.let_go = asyncio.Event()

    async def echo(self, request: Request[Any, Any]) -> Answer:
        return Echo(
            path=dict(request.path),
            body=request.body.model_dump(mode="json"),
            query=request.query.model_dump(mode="json"),
            address=request.remote_address,
        )

    async def raw(self, _request: Request[Any, Any]) -> Answer:
        return Raw(payload='{"a.b": 1.50, "": {"$set": 1e2}, "n": 18446744073709551616}')

    async def fails(self, request: Request[Any, Any]) -> Answer:
        raise {
            "refused": Refused("No", field="there"),
            "conflict": Conflict("Taken"),
            "missing": NotFound.of("thing", "x"),
            "often": TooMany("Slow down", retry_after=2.2),
            "full": OutOfSpace("No room"),
            "bug": RuntimeError("a secret that must not get out"),
        }[request.path["how"]]

    async def slow(self, _request: Request[Any, Any]) -> Answer:
        await asyncio.sleep(60)
        return Nothing()

    async def stream(self, request: Request[Any, Any]) -> Answer:
        return Stream(json_list(b'{"result":[', self._items(request.path["how"]), b"]}"))

    async def _items(self, how: str) -> AsyncIterator[bytes]:
        try:
            if how == "fails-first":
                raise Conflict("Before the first piece")
            for _ in range(2000 if how != "endless" else 1_000_000):
                yield b'"%s"' % (b"x" * 200)
            if how == "fails-later":
                raise RuntimeError("in the middle")
        finally:
            self.let_go.set()


def routes(handlers: Handlers) -> list[Route]:
    return [
        Route("GET", "/v3/things", handlers.echo, "List", Echo, query=Filter),
        Route("POST", "/v3/things", handlers.echo, "Make", Echo, Thing, body_limit=2000, aliases=("/v1/thing",)),
        Route("PUT", "/v3/things/{thing_id}", handlers.echo, "Change", Echo, Thing),
        Route("GET", "/v3/things/raw", handlers.raw, "Raw", Raw),
        Route("GET", "/v3/things/{thing_id}", handlers.echo, "Read", Echo),
        Route("GET", "/v3/fails/{how}", handlers.fails, "Fail"),
        Route("GET", "/v3/slow", handlers.slow, "Slow"),
        Route("GET", "/v3/stream/{how}", handlers.stream, "Stream"),
        Route("GET", "/v3/people", handlers.echo, "For people", Echo, audience=Audience.USER),
        Route("GET", "/v3/anyone", handlers.echo, "For anyone", Echo, audience=Audience.PUBLIC),
        Route("GET", "/v3/workspaces/{workspace_id}/devices/{device_id}", handlers.echo, "A device", Echo),
    ]


@asynccontextmanager
async def server(tmp_path: Path, who: Principal = ME, **limits: float) -> AsyncIterator[tuple[Server, Handlers]]:
    entries = [
        workspace("wks-mine", "acc-me"),
        workspace("wks-mine-2", "acc-me"),
        workspace("wks-other", "acc-other"),
        device("dev-mine", "wks-mine", "acc-me"),
        device("dev-other", "wks-other", "acc-other"),
    ]
    handlers = Handlers()
    async with (
        running_platform(tmp_path, *entries) as platform,
        serving_routes(platform, routes(handlers), who, LIMITS, **limits) as one,
    ):
        yield one, handlers


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[Server]:
    async with server(tmp_path) as (one, _):
        yield one


def head(*lines: str) -> bytes:
    return "\r\n".join([lines[0], "Host: here", *lines[1:], "", ""]).encode()


async def test_both_slash_forms_answer_alike_and_without_a_redirect(http: Server) -> None:
    for path in ("/v3/things", "/v3/things/", "/v1/thing", "/v1/thing/"):
        answer = await http.ask("POST", path, data=b'{"name": "a"}')
        assert (answer.status, answer.json["body"]["name"]) == (200, "a")
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


async def test_a_body_needs_no_content_type(http: Server) -> None:
    body = b'{"name": "a"}'
    request = head("POST /v3/things HTTP/1.1", f"Content-Length: {len(body)}", "Connection: close")
    assert (await http.say(request + body)).startswith(b"HTTP/1.1 200")


async def test_path_variables_are_decoded_segment_by_segment(http: Server) -> None:
    answer = await http.ask("GET", "/v3/things/a%2Fb%20%C3%A8")
    assert answer.json["path"] == {"thing_id": "a/b è"}


@pytest.mark.parametrize("path", ["/v3/things/%00", "/v3/things/%ff", "/v3/none", "/", "//", "/v3/things//", "/%0a"])
async def test_a_path_that_is_not_there_is_not_found_in_the_shape_of_every_error(http: Server, path: str) -> None:
    reply = await http.say(head(f"GET {path} HTTP/1.1", "Connection: close"))
    assert reply.startswith(b"HTTP/1.1 404")
    assert b'"code":"not_found"' in reply


async def test_fixed_segments_go_before_variables(http: Server) -> None:
    assert "payload" in (await http.ask("GET", "/v3/things/raw")).json


async def test_a_wrong_method_names_the_right_ones(http: Server) -> None:
    answer = await http.ask("DELETE", "/v3/things")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    assert (await http.ask("OPTIONS", "/v3/things")).headers["Allow"] == "GET, HEAD, OPTIONS, POST"


async def test_head_is_get_without_a_body(http: Server) -> None:
    answer = await http.ask("HEAD", "/v3/things")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 10


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("refused", 400, "bad_request"),
        ("conflict", 409, "conflict"),
        ("missing", 404, "thing_not_found"),
        ("often", 429, "too_many_requests"),
        ("full", 503, "out_of_space"),
        ("bug", 500, "internal"),
    ],
)
async def test_errors_have_one_shape_and_say_nothing_of_the_inside(
    http: Server, how: str, status: int, code: str
) -> None:
    answer = await http.ask("GET", f"/v3/fails/{how}")
    assert (answer.status, answer.json["code"], answer.json["status"]) == (status, code, status)
    assert answer.json["title"]
    assert answer.json["message"] == answer.json["detail"]
    assert answer.json["type"] == "about:blank"
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    assert b"secret" not in answer.body
    assert ("Retry-After" in answer.headers) == (status in (429, 503))


async def test_retry_after_is_rounded_up(http: Server) -> None:
    assert (await http.ask("GET", "/v3/fails/often")).headers["Retry-After"] == "3"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{}", "name"),
        ('{"name": 1}', "name"),
        ('{"name": null}', "name"),
        ('{"name": {"$ne": null}}', "name"),
        ('{"name": ["a"]}', "name"),
        ('{"name": "a", "count": "1"}', "count"),
        ('{"name": "a", "count": 1.5}', "count"),
        ('{"name": "a", "count": true}', "count"),
        ('{"name": "a", "count": {"$gt": 0}}', "count"),
        ('{"name": "a", "ratio": "1"}', "ratio"),
        ('{"name": "a", "on": "true"}', "on"),
        ('{"name": "a", "on": 1}', "on"),
        ('{"name": "a", "colour": "green"}', "colour"),
        ('{"name": "a", "colour": {"$ne": ""}}', "colour"),
        ('{"name": "a", "at": {"$gt": ""}}', "at"),
        ('{"name": "a", "inner": {"words": "a"}}', "inner.words"),
        ('{"name": "a", "inner": {"words": ["a", {"$ne": 1}]}}', "inner.words.1"),
        ('{"name": "a", "name": "b"}', "name"),
    ],
)
async def test_a_member_of_the_wrong_type_is_refused_by_name(http: Server, body: str, field: str) -> None:
    answer = await http.ask("POST", "/v3/things", data=body)
    assert (answer.status, answer.json["code"], answer.json["field"]) == (400, "bad_request", field)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'"a"',
        b"{",
        b'{"name": "a"} x',
        b"{'name': 'a'}",
        b'\xef\xbb\xbf{"name": "a"}',
        '{"name": "a"}'.encode("utf-16"),
        b'{"name": "\xff"}',
        b'{"name": "a\\u0000b"}',
        b'{"name": "a\\ud800"}',
        b'{"other": {"a\\u0000": 1}, "name": "a"}',
        b'{"name": "a", "other": "\\udfff"}',
        b'{"name": "a\nb"}',
        b'{"name": "a", "ratio": NaN}',
        b'{"name": "a", "ratio": 1e999}',
        b'{"name": "a", "count": 18446744073709551616}',
        b'{"name": "a", "count": ' + b"1" * 1500 + b"}",
        b'{"name": "a", "inner": {"words": [], "words": []}}',
        b"[" * 1900,
        b'{"a":' * 380,
    ],
)
async def test_a_body_that_is_no_plain_json_object_is_refused(http: Server, body: bytes) -> None:
    answer = await http.ask("POST", "/v3/things", data=body)
    assert (answer.status, answer.json["code"]) == (400, "bad_request")


async def test_what_the_models_allow_arrives_as_it_was_sent(http: Server) -> None:
    body = '{"name": "è\\u00e8\\ud83d\\ude00", "count": -9223372036854775808, "ratio": 2, "unknown": {"$ne": 1}, '
    body += '"at": "2024-05-02T08:00:00Z", "inner": {"words": ["a", "b"]}}'
    answer = await http.ask("POST", "/v3/things", data=body.encode())
    assert answer.json["body"] == {
        "name": "èè😀",
        "count": -(2**63),
        "ratio": 2.0,
        "on": False,
        "colour": "red",
        "at": "2024-05-02T08:00:00Z",
        "inner": {"words": ["a", "b"]},
    }


async def test_a_repeated_parameter_is_a_list_where_the_model_has_one(http: Server) -> None:
    answer = await http.ask("GET", "/v3/things?tag=a&tag=b+c&tag=&size=5&from=2&word=&unknown=1&unknown=2")
    expected = {"tag": ["a", "b c"], "size": 5, "page": 2, "word": None, "on": False}
    assert answer.json["query"] == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("size=x", "size"),
        ("size=1_0", "size"),
        ("size=%201", "size"),
        ("size=1.0", "size"),
        ("size=-1", "size"),
        ("size=1001", "size"),
        ("size=99999999999999999999999", "size"),
        ("size=1&size=2", "size"),
        ("from=%7B%22$ne%22:1%7D", "from"),
        ("on=perhaps", "on"),
        ("word=a%00b", "word"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_refused_by_name(http: Server, query: str, field: str) -> None:
    reply = await http.say(head(f"GET /v3/things?{query} HTTP/1.1", "Connection: close"))
    assert reply.startswith(b"HTTP/1.1 400")
    assert b'"field":"%s"' % field.encode() in reply


@pytest.mark.parametrize("query", ["word=%ff", "&".join("a=1" for _ in range(1100))])
async def test_a_query_that_cannot_be_read_is_refused(http: Server, query: str) -> None:
    assert (await http.say(head(f"GET /v3/things?{query} HTTP/1.1", "Connection: close"))).startswith(b"HTTP/1.1 400")


async def test_a_body_beyond_its_limit_is_refused_announced_or_not(http: Server) -> None:
    body = b'{"name": "%s"}' % (b"x" * 3000)
    announced = await http.ask("POST", "/v3/things", data=body)

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    unannounced = await http.ask("POST", "/v3/things", data=pieces())
    for answer in (announced, unannounced):
        assert (answer.status, answer.json["code"]) == (413, "payload_too_large")


async def test_a_half_sent_body_does_not_hold_its_connection(http: Server) -> None:
    reply = await http.say(head("POST /v3/things HTTP/1.1", "Content-Length: 100") + b'{"name"')
    assert reply.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in reply


async def test_a_body_that_breaks_its_encoding_is_refused_and_ends_the_connection(http: Server) -> None:
    request = head("POST /v3/things HTTP/1.1", "Transfer-Encoding: chunked")
    assert b" 400 Bad Request" in (await http.say(request + b"zz\r\n{}\r\n")).splitlines()[0]
    assert b" 408 Request Timeout" in (await http.say(request, b"zz\r\n{}\r\n")).splitlines()[0]


async def test_half_a_head_does_not_hold_its_connection(tmp_path: Path) -> None:
    async with server(tmp_path, idle_s=0.4) as (http, _):
        assert await http.say(b"GET /v3/things HTTP/1.1\r\nHost:") == b""
        assert await http.say() == b""


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v3/things HTTP/1.1\r\nHost: here\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /v3/things HTTP/1.1\r\nHost: here\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(200)) + b"\r\n",
        b"GET /v3/things HTTP/1.1\r\nHost: here\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "long header", "long line", "many headers", "two lengths"],
)
async def test_what_is_no_proper_http_gets_the_same_shape_and_is_closed(http: Server, request_: bytes) -> None:
    reply = await http.say(request_)
    assert reply.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b'"code":"bad_request"' in reply


async def test_a_handler_that_takes_too_long_is_unavailable(http: Server) -> None:
    answer = await http.ask("GET", "/v3/slow")
    assert (answer.status, answer.json["code"]) == (503, "unavailable")


async def test_raw_json_comes_back_to_the_letter(http: Server) -> None:
    answer = await http.ask("GET", "/v3/things/raw")
    assert answer.body == b'{"payload":{"a.b": 1.50, "": {"$set": 1e2}, "n": 18446744073709551616}}'


async def test_a_stream_arrives_whole(http: Server) -> None:
    answer = await http.ask("GET", "/v3/stream/whole")
    assert len(answer.json["result"]) == 2000


async def test_a_stream_that_fails_before_its_first_piece_is_an_error_like_any_other(http: Server) -> None:
    assert (await http.ask("GET", "/v3/stream/fails-first")).status == 409


async def test_a_stream_that_fails_later_cannot_be_taken_for_the_whole(http: Server) -> None:
    reply = await http.say(head("GET /v3/stream/fails-later HTTP/1.1"))
    assert reply.startswith(b"HTTP/1.1 200")
    assert not reply.endswith(b"0\r\n\r\n")


async def test_a_stream_that_nobody_takes_is_let_go(tmp_path: Path) -> None:
    async with server(tmp_path) as (http, handlers):
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port, limit=1024)
        writer.write(head("GET /v3/stream/endless HTTP/1.1"))
        await reader.readline()
        assert not handlers.let_go.is_set()

        async def let_go() -> bool:
            return handlers.let_go.is_set()

        await eventually(let_go, within_s=5)
        writer.close()


async def test_ids_of_other_tenants_and_unknown_ids_get_the_same_answer(http: Server) -> None:
    assert (await http.ask("GET", "/v3/workspaces/wks-mine/devices/dev-mine")).status == 200
    for path, code in (
        ("/v3/workspaces/wks-other/devices/dev-other", "workspace_not_found"),
        ("/v3/workspaces/wks-none/devices/dev-mine", "workspace_not_found"),
        ("/v3/workspaces/wks-mine/devices/dev-other", "device_not_found"),
        ("/v3/workspaces/wks-mine/devices/dev-none", "device_not_found"),
        ("/v3/workspaces/wks-mine-2/devices/dev-mine", "device_not_found"),
    ):
        answer = await http.ask("GET", path)
        assert (answer.status, answer.json["code"]) == (404, code)


async def test_an_api_key_reaches_its_own_workspace_only(tmp_path: Path) -> None:
    async with server(tmp_path, MY_KEY) as (http, _):
        assert (await http.ask("GET", "/v3/workspaces/wks-mine/devices/dev-mine")).status == 200
        assert (await http.ask("GET", "/v3/workspaces/wks-mine-2/devices/dev-mine")).status == 404


async def test_each_audience_is_kept(tmp_path: Path) -> None:
    expected = {ME: (200, 200, 200), MY_KEY: (200, 403, 200), Principal.nobody(): (401, 401, 200)}
    for who, statuses in expected.items():
        async with server(tmp_path / (who.kind.value), who) as (http, _):
            paths = ("/v3/things", "/v3/people", "/v3/anyone")
            assert tuple([(await http.ask("GET", path)).status for path in paths]) == statuses


async def test_every_answer_carries_its_protections(http: Server) -> None:
    for path in ("/v3/things", "/v3/none", "/v3/stream/whole"):
        headers = (await http.ask("GET", path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "aiohttp" not in headers["Server"]
