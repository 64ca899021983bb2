"""Sessions and API keys over REST, on a real store, log and socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from services.gateway.domain.use_cases.key_uses import KeyUses
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import wire
from shared.documents import Schema
from shared.http.routes import Answer, Nothing, Request, Route
from shared.log import Record
from shared.messages.registry import AccountOpened
from shared.messages.topics import ACCOUNTS, REGISTRY
from shared.security.principal import Kind
from shared.service import Platform
from tests.support.http import Answer as Reply
from tests.support.http import Server, know, running_platform, serving, workspace
from tests.support.waiting import eventually

EMAIL = "admin@example.org"
PASSWORD = "correct horse battery staple"
KEYS = "/v3/workspaces/wks-1/apikeys"

Headers = dict[str, str]


@dataclass
class Gateway:
    platform: Platform
    http: Server
    account_id: str

    async def login(self, email: str = EMAIL, password: str = PASSWORD, **headers: str) -> Reply:
        body = {"email": email, "password": password}
        return await self.http.ask("POST", "/v3/auth/login", json=body, headers=headers)

    async def session(self) -> Headers:
        return bearer((await self.login()).json["token"])

    async def key(self, who: Headers, name: str = "a key") -> Any:
        return (await self.http.ask("POST", KEYS, json={"name": name}, headers=who)).json


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


async def workspace_seen(request: Request[Any, Any]) -> Answer:
    assert request.principal.kind is Kind.API_KEY or request.principal.workspace_id is None
    return Nothing()


OTHERS = [Route("GET", "/v3/workspaces/{workspace_id}", workspace_seen, "A workspace")]


@asynccontextmanager
async def running(home: Path, **settings: str) -> AsyncIterator[Gateway]:
    told = {"ZDM_ADMIN_EMAIL": EMAIL, "ZDM_ADMIN_PASSWORD": PASSWORD, **settings}
    async with running_platform(home) as platform:
        made = await wire(GatewaySettings.load(told), platform, OTHERS)
        account_id = (await opened(platform))[0].id
        await know(
            platform, workspace("wks-1", account_id), workspace("wks-2", account_id), workspace("wks-x", "acc-x")
        )
        async with serving(made.site.app) as http:
            yield Gateway(platform, http, account_id)


async def opened(platform: Platform) -> list[AccountOpened]:
    async with platform.log.replay(ACCOUNTS) as replay:
        records = await replay.fetch(wait_s=1)
    return [AccountOpened.decode(record.value) for record in records if record.value is not None]


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(tmp_path) as one:
        yield one


async def test_a_login_gives_a_session_that_works_until_logout(gateway: Gateway) -> None:
    login = await gateway.login(EMAIL.upper())
    assert login.json["account"]["email"] == EMAIL
    assert login.json["expires_at"].endswith("Z")
    who = bearer(login.json["token"])
    profile = await gateway.http.ask("GET", "/v3/auth/profile", headers=who)
    assert profile.json["account"]["id"] == gateway.account_id
    assert (await gateway.http.ask("POST", "/v3/auth/logout", headers=who)).json == {}
    assert (await gateway.http.ask("GET", "/v3/auth/profile", headers=who)).status == 401


async def test_sessions_end_by_themselves(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        who = await gateway.session()
        sessions = await gateway.platform.documents.collection(Schema("gateway_sessions", (), expires_at="expires_at"))
        async for session in sessions.find():
            await sessions.change(session["id"], {"expires_at": gateway.platform.clock.ms() - 1})

        async def refused() -> bool:
            return (await gateway.http.ask("GET", "/v3/auth/profile", headers=who)).status == 401

        await eventually(refused, within_s=3)


async def test_a_stale_session_keeps_nobody_from_logging_in(gateway: Gateway) -> None:
    assert (await gateway.login(**bearer("stale"))).status == 200


async def test_a_wrong_password_and_an_unknown_account_look_the_same(gateway: Gateway) -> None:
    wrong, unknown = await gateway.login(password="wrong"), await gateway.login("nobody@example.org")
    assert wrong.status == unknown.status == 401
    assert wrong.body == unknown.body


async def test_failed_logins_are_limited_per_account_and_address_and_success_forgives(gateway: Gateway) -> None:
    for _ in range(4):
        assert (await gateway.login(password="wrong")).status == 401
    assert (await gateway.login()).status == 200
    for _ in range(5):
        assert (await gateway.login(password="wrong")).status == 401
    refused = await gateway.login()
    assert (refused.status, refused.json["code"]) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60


async def test_many_logins_at_once_do_not_slip_through(gateway: Gateway) -> None:
    answers = await asyncio.gather(*(gateway.login(password="wrong") for _ in range(20)))
    assert sorted(answer.status for answer in answers) == [401] * 5 + [429] * 15


async def test_the_address_is_taken_from_trusted_proxies_alone(tmp_path: Path) -> None:
    async def lock_out(gateway: Gateway, headers: Headers) -> int:
        for _ in range(5):
            await gateway.login(password="wrong", **headers)
        return (await gateway.login(**{"X-Forwarded-For": "10.0.0.2"})).status

    async with running(tmp_path / "trusting", ZDM_TRUSTED_PROXIES="127.0.0.1") as gateway:
        assert await lock_out(gateway, {"X-Forwarded-For": "made up, 10.0.0.1"}) == 200
    async with running(tmp_path / "not") as gateway:
        assert await lock_out(gateway, {"X-Forwarded-For": "10.0.0.1"}) == 429


@pytest.mark.parametrize(
    ("method", "path", "member"),
    [
        ("POST", "/v3/auth/login", "email"),
        ("POST", "/v3/auth/login", "password"),
        ("POST", KEYS, "name"),
        ("PUT", f"{KEYS}/key-1", "name"),
        ("PUT", f"{KEYS}/key-1", "enabled"),
    ],
)
async def test_operators_in_place_of_values_are_refused(gateway: Gateway, method: str, path: str, member: str) -> None:
    who = await gateway.session()
    for value in ({"$ne": None}, {"$gt": ""}, ["a"], 1):
        body = {"email": EMAIL, "password": PASSWORD, "name": "a", "enabled": True} | {member: value}
        answer = await gateway.http.ask(method, path, json=body, headers=who)
        assert (answer.status, answer.json["field"]) == (400, member)


async def test_an_api_key_is_shown_once_and_kept_as_a_hash(gateway: Gateway) -> None:
    who = await gateway.session()
    made = await gateway.key(who, "line 3")
    prefix, _, secret = made["key"].partition(".")
    assert (len(prefix), len(secret), made["prefix"]) == (10, 64, prefix)
    listed = (await gateway.http.ask("GET", KEYS, headers=who)).json["apikeys"]
    assert listed == [{name: value for name, value in made.items() if name != "key"}]
    for file in gateway.platform.home.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes()


async def test_an_api_key_works_in_its_own_workspace_alone(gateway: Gateway) -> None:
    key = {"X-API-KEY": (await gateway.key(await gateway.session()))["key"]}
    assert (await gateway.http.ask("GET", "/v3/workspaces/wks-1/", headers=key)).status == 200
    assert (await gateway.http.ask("GET", "/v3/workspaces/wks-2", headers=key)).status == 404
    profile = await gateway.http.ask("GET", "/v3/auth/profile", headers=key)
    assert profile.json["account"]["id"] == gateway.account_id
    assert (await gateway.http.ask("GET", KEYS, headers=key)).status == 403
    assert (await gateway.http.ask("POST", "/v3/auth/logout", headers=key)).status == 403


async def test_an_api_key_is_switched_off_on_and_deleted_at_once(gateway: Gateway) -> None:
    who = await gateway.session()
    made = await gateway.key(who)
    key, path = {"X-API-KEY": made["key"]}, f"{KEYS}/{made['id']}"

    async def status() -> int:
        return (await gateway.http.ask("GET", "/v3/workspaces/wks-1", headers=key)).status

    assert await status() == 200
    changed = await gateway.http.ask("PUT", path, json={"enabled": False, "name": None}, headers=who)
    assert (changed.json["enabled"], changed.json["name"]) == (False, "a key")
    assert await status() == 401
    await gateway.http.ask("PUT", path, json={"enabled": True, "name": "renamed"}, headers=who)
    assert await status() == 200
    assert (await gateway.http.ask("DELETE", path, headers=who)).json == {}
    assert await status() == 401
    for method, body in (("DELETE", None), ("PUT", {"enabled": True})):
        answer = await gateway.http.ask(method, path, json=body, headers=who)
        assert (answer.status, answer.json["code"]) == (404, "apikey_not_found")


async def test_a_key_switched_off_by_another_process_stops_within_a_second(gateway: Gateway) -> None:
    made = await gateway.key(await gateway.session())
    key = {"X-API-KEY": made["key"]}
    assert (await gateway.http.ask("GET", "/v3/workspaces/wks-1", headers=key)).status == 200
    keys = await gateway.platform.documents.collection(Schema("gateway_apikeys"))
    await keys.change(made["id"], {"enabled": False})

    async def refused() -> bool:
        return (await gateway.http.ask("GET", "/v3/workspaces/wks-1", headers=key)).status == 401

    await eventually(refused, within_s=1.5)


async def test_a_key_dies_with_its_workspace(gateway: Gateway) -> None:
    key = {"X-API-KEY": (await gateway.key(await gateway.session()))["key"]}
    await gateway.platform.log.append(REGISTRY, [Record("wks-1", None)])

    async def refused() -> bool:
        return (await gateway.http.ask("GET", "/v3/auth/profile", headers=key)).status == 401

    await eventually(refused)


@pytest.mark.parametrize("key", ["", ".", "x", "a" * 10 + "." + "b" * 64, "a" * 75, "é" * 10 + "." + "b" * 64])
async def test_a_key_that_is_none_is_refused(gateway: Gateway, key: str) -> None:
    answer = await gateway.http.ask("GET", "/v3/auth/profile", headers={"X-API-KEY": key})
    assert (answer.status, answer.json["code"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_key_with_the_right_prefix_and_another_secret_is_refused(gateway: Gateway) -> None:
    made = await gateway.key(await gateway.session())
    for secret in ("b" * 64, made["key"][11:-1] + "!"):
        headers = {"X-API-KEY": f"{made['prefix']}.{secret}"}
        assert (await gateway.http.ask("GET", "/v3/auth/profile", headers=headers)).status == 401


async def test_key_and_session_together_are_refused_and_other_schemes_ignored(gateway: Gateway) -> None:
    who = await gateway.session()
    key = {"X-API-KEY": (await gateway.key(who))["key"]}
    assert (await gateway.http.ask("GET", "/v3/auth/profile", headers=key | who)).status == 400
    basic = {"Authorization": "Basic YTpi"}
    assert (await gateway.http.ask("GET", "/v3/auth/profile", headers=key | basic)).status == 200
    assert (await gateway.http.ask("GET", "/v3/auth/profile", headers=basic)).status == 401


async def test_keys_of_other_workspaces_and_tenants_are_not_found(gateway: Gateway) -> None:
    who = await gateway.session()
    made = await gateway.key(who)
    for workspace_id in ("wks-2", "wks-x", "wks-none"):
        path = f"/v3/workspaces/{workspace_id}/apikeys/{made['id']}"
        for method, body in (("PUT", {"enabled": False}), ("DELETE", None)):
            assert (await gateway.http.ask(method, path, json=body, headers=who)).status == 404
    listed = (await gateway.http.ask("GET", KEYS, headers=who)).json["apikeys"]
    assert [one["enabled"] for one in listed] == [True]


async def test_the_last_use_is_written_once_a_minute_at_most() -> None:
    class Clock:
        now = 1_000_000

        def ms(self) -> int:
            return self.now

    class Keys:
        def __init__(self) -> None:
            self.written: list[tuple[str, int]] = []

        async def used(self, identifier: str, at: int) -> None:
            self.written.append((identifier, at))

    clock, keys = Clock(), Keys()
    uses = KeyUses(keys, clock)  # type: ignore[arg-type]
    for seconds in (0, 1, 59, 60, 61):
        clock.now = 1_000_000 + seconds * 1000
        uses.note("key-1")
        await uses.write_due()
    assert keys.written == [("key-1", 1_000_000), ("key-1", 1_060_000)]


async def test_the_first_account_is_made_once_and_told_at_every_start(tmp_path: Path) -> None:
    for _ in range(2):
        async with running(tmp_path) as gateway:
            assert {one.email for one in await opened(gateway.platform)} == {EMAIL}
            assert len({one.id for one in await opened(gateway.platform)}) == 1
            assert (await gateway.login()).status == 200


async def test_a_password_that_was_not_given_is_made_up_and_written_for_its_owner_alone(tmp_path: Path) -> None:
    async with running(tmp_path, ZDM_ADMIN_PASSWORD="") as gateway:
        note = tmp_path / "first-login.txt"
        assert note.stat().st_mode & 0o777 == 0o600
        lines = dict(line.split(": ", 1) for line in note.read_text().splitlines())
        assert lines["email"] == EMAIL
        assert (await gateway.login(password=lines["password"])).status == 200
    note.unlink()
    async with running(tmp_path, ZDM_ADMIN_PASSWORD="") as gateway:
        assert not note.exists()
        assert (await gateway.login(password=lines["password"])).status == 200


async def test_the_document_is_valid_and_the_page_needs_nobody_else(gateway: Gateway) -> None:
    document = (await gateway.http.ask("GET", "/openapi.json")).json
    OpenAPIV31SpecValidator(document).validate()
    assert "/v3/auth/login" in document["paths"]
    assert "/v3/workspaces/{workspace_id}" in document["paths"]
    assert (await gateway.http.ask("GET", "/")).headers["Location"] == "/docs"
    for path in ("/docs", "/docs/", "/docs/docs.js", "/docs/docs.css"):
        answer = await gateway.http.ask("GET", path)
        assert answer.status == 200
        assert len(answer.body) > 1000
        assert b"://" not in answer.body
        assert "'unsafe" not in answer.headers["Content-Security-Policy"]


async def test_wrong_settings_are_named() -> None:
    for name, value in (
        ("ZDM_UPSTREAMS", "provisioning"),
        ("ZDM_UPSTREAMS", "provisioning=here"),
        ("ZDM_TRUSTED_PROXIES", "nowhere"),
        ("ZDM_ADMIN_EMAIL", "admin"),
        ("ZDM_ADMIN_PASSWORD", "short"),
        ("ZDM_HTTP_PORT", "0"),
    ):
        with pytest.raises(SystemExit) as wrong:
            GatewaySettings.load({name: value})
        assert name in str(wrong.value)
        assert "short" not in str(wrong.value)
