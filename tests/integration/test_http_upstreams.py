"""What the gateway passes on to services in other processes, and what it says when they are away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import BaseModel

from shared.errors import Conflict
from shared.http.dispatch import Dispatcher, Limits, json_list
from shared.http.routes import Answer, Audience, Request, Route, Stream
from shared.http.server import PRINCIPAL_HEADER, application, internal_app, serve
from shared.http.upstreams import Remote, operations_route
from shared.security.principal import Kind, Principal
from shared.security.tenancy import Tenancy
from shared.service import Platform
from tests.support.http import Server, running_platform, serving, workspace
from tests.support.ports import free_ports
from tests.support.waiting import eventually

ME = Principal(Kind.SESSION, "acc-me", None, "ses-1")
LIMITS = Limits(body_s=0.5, handler_s=2, stall_s=2)


class Thing(BaseModel):
    name: str


class Echo(BaseModel):
    path: dict[str, str]
    account: str
    kind: str
    name: str = ""
    address: str = ""


async def echo(request: Request[Any, Any]) -> Answer:
    who = request.principal
    name = getattr(request.body, "name", "")
    return Echo(
        path=dict(request.path), account=who.account_id, kind=who.kind, name=name, address=request.remote_address
    )


async def taken(_request: Request[Any, Any]) -> Answer:
    raise Conflict("Taken")


async def stream(request: Request[Any, Any]) -> Answer:
    async def items() -> AsyncIterator[bytes]:
        for _ in range(5000):
            yield b'"%s"' % (b"x" * 200)
        if request.path["how"] == "broken":
            raise RuntimeError("in the middle")

    return Stream(json_list(b"[", items(), b"]"))


ROUTES = [
    Route("POST", "/v3/things", echo, "Make", Echo, Thing, body_limit=1_000_000),
    Route("GET", "/v3/things/{thing_id}", echo, "Read", Echo),
    Route("GET", "/v3/open", echo, "Anyone", Echo, audience=Audience.PUBLIC),
    Route("GET", "/v3/people", echo, "People", Echo, audience=Audience.USER),
    Route("GET", "/v3/taken", taken, "Taken"),
    Route("GET", "/v3/stream/{how}", stream, "Stream"),
    Route("GET", "/v3/workspaces/{workspace_id}", echo, "A workspace", Echo),
]


@dataclass
class Front:
    """The gateway's side."""

    platform: Platform
    remote: Remote
    port: int
    http: Server

    @asynccontextmanager
    async def service(self) -> AsyncIterator[None]:
        routes = [*ROUTES, operations_route(ROUTES, "1.0")]
        app = internal_app(routes, self.platform.principals, Tenancy(self.platform.registry), LIMITS)
        async with serve(app, "127.0.0.1", self.port, shutdown_s=0.1):
            await eventually(self._is_known)
            yield

    async def _is_known(self) -> bool:
        return not self.remote.waiting_for()


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async def authenticate(request: web.Request) -> Principal:
        return ME if "X-API-KEY" in request.headers else Principal.nobody()

    async with running_platform(tmp_path, workspace("wks-1", "acc-me"), workspace("wks-2", "acc-other")) as platform:
        port = free_ports(1)[0]
        remote = Remote("things", f"http://127.0.0.1:{port}", platform.principals, LIMITS)
        dispatch = Dispatcher(
            [], authenticate, Tenancy(platform.registry), LIMITS, missing=lambda: remote.waiting_for()
        )
        discovering = asyncio.create_task(remote.discover(dispatch.table.add))
        try:
            async with serving(application(dispatch)) as http:
                http.http.headers["X-API-KEY"] = "k"
                yield Front(platform, remote, port, http)
        finally:
            discovering.cancel()
            await asyncio.gather(discovering, return_exceptions=True)
            await remote.close()


async def test_a_path_that_may_only_be_unknown_yet_is_unavailable(front: Front) -> None:
    assert "does not answer" in front.remote.waiting_for()
    assert (await front.http.ask("GET", "/v3/things/a")).status == 503
    async with front.service():
        assert (await front.http.ask("GET", "/v3/things/a")).status == 200
        assert (await front.http.ask("GET", "/v3/none")).status == 404


async def test_the_service_learns_who_asks_and_from_where(front: Front) -> None:
    async with front.service():
        answer = await front.http.ask("POST", "/v3/things/", json={"name": "a"})
        assert answer.json == {"path": {}, "account": "acc-me", "kind": "session", "name": "a", "address": "127.0.0.1"}
        assert (await front.http.ask("GET", "/v3/things/a%2Fb%20c?x=%26")).json["path"] == {"thing_id": "a/b c"}


async def test_who_asks_cannot_be_claimed_from_outside(front: Front) -> None:
    token = front.platform.principals.sign(Principal(Kind.SESSION, "acc-other"))
    async with front.service():
        answer = await front.http.ask(
            "GET", "/v3/things/a", headers={PRINCIPAL_HEADER: token, "X-ZDM-Remote-Address": "9.9.9.9"}
        )
        assert (answer.json["account"], answer.json["address"]) == ("acc-me", "127.0.0.1")


async def test_a_service_asked_directly_believes_signed_tokens_only(front: Front) -> None:
    url = f"http://127.0.0.1:{front.port}/v3/things/a"
    async with front.service(), aiohttp.ClientSession() as http:
        for headers in ({}, {PRINCIPAL_HEADER: "x.y.z"}, {"X-API-KEY": "k"}):
            async with http.get(url, headers=headers) as answer:
                assert answer.status == 401
        async with http.get(url, headers={PRINCIPAL_HEADER: front.platform.principals.sign(ME)}) as answer:
            assert answer.status == 200


async def test_audience_and_tenant_hold_across_processes(front: Front) -> None:
    async with front.service():
        assert (await front.http.ask("GET", "/v3/workspaces/wks-1")).status == 200
        assert (await front.http.ask("GET", "/v3/workspaces/wks-2")).status == 404
        del front.http.http.headers["X-API-KEY"]
        assert (await front.http.ask("GET", "/v3/open")).json["kind"] == "nobody"
        assert (await front.http.ask("GET", "/v3/people")).status == 401


async def test_errors_come_through_as_they_were_said(front: Front) -> None:
    async with front.service():
        answer = await front.http.ask("GET", "/v3/taken")
        assert (answer.status, answer.json["code"], answer.json["message"]) == (409, "conflict", "Taken")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        refused = await front.http.ask("POST", "/v3/things", json={"name": {"$ne": None}})
        assert (refused.status, refused.json["field"]) == (400, "name")


async def test_large_bodies_pass_both_ways(front: Front) -> None:
    async with front.service():
        name = "x" * 900_000

        async def pieces() -> AsyncIterator[bytes]:
            yield b'{"name": "'
            for start in range(0, len(name), 50_000):
                yield name[start : start + 50_000].encode()
            yield b'"}'

        assert (await front.http.ask("POST", "/v3/things", data=pieces())).json["name"] == name
        assert len((await front.http.ask("GET", "/v3/stream/whole")).json) == 5000


async def test_too_large_and_half_sent_bodies_get_the_same_answers_as_in_one_process(front: Front) -> None:
    async with front.service():
        assert (await front.http.ask("POST", "/v3/things", data=b"x" * 1_000_001)).status == 413
        head = b"POST /v3/things HTTP/1.1\r\nHost: x\r\nX-API-KEY: k\r\n"
        unannounced = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        assert (await front.http.say(unannounced)).startswith(b"HTTP/1.1 413")
        assert (await front.http.say(head + b'Content-Length: 50\r\n\r\n{"na')).startswith(b"HTTP/1.1 408")


async def test_an_answer_that_breaks_off_cannot_be_taken_for_the_whole(front: Front) -> None:
    async with front.service():
        with pytest.raises(aiohttp.ClientError):
            await front.http.ask("GET", "/v3/stream/broken")


async def test_a_service_that_went_away_is_unavailable_and_comes_back(front: Front) -> None:
    async with front.service():
        assert (await front.http.ask("GET", "/v3/things/a")).status == 200
    answer = await front.http.ask("GET", "/v3/things/a")
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert "Retry-After" in answer.headers
    async with front.service():
        assert (await front.http.ask("GET", "/v3/things/a")).status == 200
