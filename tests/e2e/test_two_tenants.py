"""No tenant sees or changes what is another's: every operation of the OpenAPI document, also those made after this.

Three tenants: two workspaces of one account, each with an API key, and a workspace of another account. Each is given
one of everything that a path can name.
"""

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from yarl import URL

from deploy.simulator.device import Device
from services.gateway.adapters.store import open_store
from services.gateway.domain.accounts import Account
from shared.documents.open import open_documents
from shared.security.passwords import Passwords
from tests.support.operations import Operation, Operations
from tests.support.pki import csr, p256_key
from tests.support.system import PASSWORD, Rest, System, new_device, running_system
from tests.support.waiting import eventually

FIRST, SECOND = "first@example.org", "second@example.org"
# Members of bodies and queries that hold ids, and what of a tenant they are of.
HOLDERS = {
    "workspace_id": "workspace_id",
    "fleet_id": "fleet_id",
    "fleet": "fleet_id",
    "fleets": "fleet_id",
    "device_id": "device_id",
    "device": "device_id",
    "devices": "device_id",
}
MALFORMED = [
    "%00",
    "dev-%00",
    "dev-000000000000",
    ".",
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "%FF",
    "%ED%A0%80",
    "%20",
    "%0d%0aX:1",
    "%27%20OR%20%271%27=%271",
    "%7B%22$ne%22:null%7D",
    "*",
    "%F0%9F%98%80",
    "a" * 4000,
]
# What moves on its own: when a key was last used is written some time after.
RESTLESS = re.compile(r'\\?"last_used_at\\?": ?(\d+|null|"[^"]*")')

Headers = Mapping[str, str]


class Answer(NamedTuple):
    status: int
    json: Any


@dataclass
class Tenant:
    """A workspace with one of everything. `ids` by the name that a path gives them."""

    email: str
    session: Headers
    key: Headers
    ids: dict[str, str]

    def known(self, **more: Any) -> dict[str, Any]:
        """What members of bodies and queries are to be, when they are this tenant's."""
        ids = {name: self.ids[kind] for name, kind in HOLDERS.items()}
        return {
            **{name: [value] if name.endswith("s") else value for name, value in ids.items()},
            "email": self.email,
            "password": PASSWORD,
            "csr": csr(p256_key()),
            "url": "http://127.0.0.1:9/hook",
            "type": "data_stream",
            "subtype": "webhook",
            **more,
        }


@dataclass
class World:
    """The system, its operations and its tenants."""

    system: System
    http: aiohttp.ClientSession
    operations: Operations
    tenants: list[Tenant] = field(default_factory=list)

    async def ask(self, operation: Operation, path: str, headers: Headers, body: Any = None, **query: Any) -> Answer:
        """The answer; one that is an error says so in the one shape."""
        url = URL(f"{self.system.url}{path}", encoded=True).with_query(query) if query else None
        async with self.http.request(
            operation.method, url or URL(self.system.url + path, encoded=True), json=body, headers=headers
        ) as answer:
            said = await answer.json()
            assert answer.status < 500, f"{operation} {path} {body}: {answer.status} {said}"
            if answer.status >= 400:
                assert all(said[name] and isinstance(said[name], str) for name in ("code", "title", "message")), said
                assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
            return Answer(answer.status, said)

    def body(self, operation: Operation, tenant: Tenant, **more: Any) -> Any:
        """A plausible one; `more`: what some members are to be."""
        return operation.body and self.operations.example(operation.body, tenant.known(**more))

    async def seen(self, tenant: Tenant) -> list[str]:
        """All that can be read of a tenant, and all that is kept of it."""
        readable = [
            (str(operation), (await self.ask(operation, operation.at(tenant.ids), tenant.session)).json)
            for operation in self.operations.all
            if operation.method == "GET"
        ]
        text = json.dumps([readable, *kept(self.system.home, list(tenant.ids.values()))], indent=1)
        return RESTLESS.sub("", text).splitlines()


def kept(home: Path, ids: Sequence[str]) -> Iterator[list[Any]]:
    """The documents and records, as they are in the files, in which one of `ids` is."""
    for name in ("documents.sqlite", "log.sqlite"):
        with sqlite3.connect(f"file:{home / name}?mode=ro", uri=True) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
            for (table,) in tables:
                for row in connection.execute(f'SELECT * FROM "{table}"'):
                    cells = [cell.decode(errors="replace") if isinstance(cell, bytes) else cell for cell in row]
                    if any(one in str(cells) for one in ids):
                        yield [table, *cells]
        connection.close()


async def open_accounts(home: Path, *emails: str) -> None:
    """As a registration will do; the gateway tells the others of them when it starts."""
    async with open_documents(f"sqlite:{home / 'documents.sqlite'}") as documents:
        store = await open_store(documents)
        for number, email in enumerate(emails):
            hashed = await Passwords().hash(PASSWORD)
            account = Account(
                id=f"acc-00000000000{number}",
                email=email,
                display_name=email,
                password_hash=hashed,
                created_at="2024-05-02T07:30:00.000000Z",
            )
            await store.accounts.add(account)


async def log_in(http: aiohttp.ClientSession, email: str) -> Rest:
    login = await Rest(http, {}).call("POST", "/v3/auth/login", {"email": email, "password": PASSWORD})
    return Rest(http, {"Authorization": f"Bearer {login['token']}"})


async def settle(http: aiohttp.ClientSession, email: str) -> Tenant:
    """A new workspace with one of everything, and nothing under way in it."""
    rest = await log_in(http, email)
    workspace = (await rest.call("POST", "/v3/workspaces", {"name": "plant"}))["workspace"]["id"]
    path = f"/v3/workspaces/{workspace}"
    fleet = (await rest.call("POST", f"{path}/fleets", {"name": "spare"}))["fleet"]["id"]
    credential = await new_device(rest, workspace, "filler", endpoint_mode="insecure")
    device = credential["devinfo"]["device_id"]
    certificates = f"{path}/devices/{device}/certificates"
    serial = (await rest.call("POST", certificates, {"csr": csr(p256_key())}))["serial"]
    key = await rest.call("POST", f"{path}/apikeys", {"name": "key"})
    hook = {"name": "hook", "subtype_configuration": {"url": "http://127.0.0.1:9/hook"}}
    hook |= {"type_configuration": {"tags": ["never sent"]}}
    integration = (await rest.call("POST", f"{path}/integrations", hook))["integration"]["id"]
    ids = {
        "workspace_id": workspace,
        "fleet_id": fleet,
        "device_id": device,
        "serial": serial,
        "apikey_id": key["id"],
        "integration_id": integration,
    }
    tenant = Tenant(email, rest.headers, {"X-API-KEY": key["key"]}, ids)
    await send_something(rest, credential, path)
    return tenant


async def send_something(rest: Rest, credential: dict[str, Any], path: str) -> None:
    device = await Device.connect(credential)
    await device.publish(f"j/data/{device.id}/tag-of-{device.id}", b'{"secret":"of %s"}' % device.id.encode())
    await device.publish(f"j/up/{device.id}", b'{"key":"colour","value":"of %s"}' % device.id.encode())
    device.close()

    async def arrived() -> bool:
        data = (await rest.call("GET", f"{path}/data"))["result"]
        status = (await rest.call("GET", f"/v3/devices/{device.id}/status"))["current"]
        seen = (await rest.call("GET", f"{path}/devices/{device.id}"))["device"]
        return bool(data) and "colour" in status and seen["remote_address"] != "" and not seen["is_connected"]

    await eventually(arrived)


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    home = tmp_path_factory.mktemp("tenants") / "home"
    home.mkdir()
    await open_accounts(home, FIRST, SECOND)
    async with running_system(home, {"ZDM_LOG_LEVEL": "warning"}) as system, aiohttp.ClientSession(system.url) as http:
        async with http.get("/openapi.json") as answer:
            one = World(system, http, Operations(await answer.json()))
        one.tenants = [await settle(http, email) for email in (FIRST, FIRST, SECOND)]
        yield one


def listed(wrong: Sequence[object]) -> str:
    return "\n".join(str(one) for one in wrong)


def mixtures(operation: Operation, mine: Tenant, theirs: Tenant) -> Iterator[dict[str, str]]:
    """Every choice of whose ids stand in the path, but for all of them being mine."""
    for whose in product((mine, theirs), repeat=len(operation.variables)):
        if any(one is theirs for one in whose):
            yield {name: one.ids[name] for name, one in zip(operation.variables, whose, strict=True)}


def callers(world: World) -> Iterator[tuple[str, Tenant, Tenant, Headers]]:
    """Who asks for whose."""
    first, neighbour, stranger = world.tenants
    yield "a key, of the same account's", first, neighbour, first.key
    yield "a session, of the same account's", first, neighbour, first.session
    yield "a key, of another account's", first, stranger, first.key
    yield "a session, of another account's", first, stranger, first.session
    yield "a session of the other account", stranger, first, stranger.session


async def looks_unknown(
    world: World,
    operation: Operation,
    ids: Mapping[str, str],
    mine: Tenant,
    theirs: Tenant,
    headers: Headers,
    answer: Answer,
) -> bool:
    """Whether `answer` is the one that ids get which never were."""
    never = {name: one[:-6] + "000000" if one == theirs.ids[name] else one for name, one in ids.items()}
    other = await world.ask(operation, operation.at(never), headers, world.body(operation, mine))
    told = json.dumps(answer.json)
    for name, identifier in ids.items():
        told = told.replace(identifier, never[name])
    return told == json.dumps(other.json)


async def test_ids_of_others_in_a_path_are_not_found_and_nothing_happens(world: World) -> None:
    before = [await world.seen(tenant) for tenant in world.tenants]
    asked, wrong = 0, []
    for who, mine, theirs, headers in callers(world):
        may_know = headers is mine.session and mine.email == theirs.email
        for operation in world.operations.all:
            expected = 404 if headers is mine.session or operation.takes_keys else 403
            for ids in mixtures(operation, mine, theirs):
                if may_know and all(ids[name] == theirs.ids[name] for name in operation.variables):
                    continue
                answer = await world.ask(operation, operation.at(ids), headers, world.body(operation, mine))
                asked += 1
                if answer.status != expected or not (
                    may_know or await looks_unknown(world, operation, ids, mine, theirs, headers, answer)
                ):
                    wrong.append((who, str(operation), ids, answer))
    assert not wrong, listed(wrong)
    assert asked > 200
    assert [await world.seen(tenant) for tenant in world.tenants] == before


async def test_no_answer_to_a_question_of_ones_own_names_what_is_anothers(world: World) -> None:
    asked = 0
    for who, mine, theirs, headers in callers(world):
        if headers is mine.session and mine.email == theirs.email:
            continue
        for operation in world.operations.all:
            if operation.method == "GET" and (headers is mine.session or operation.takes_keys):
                answer = await world.ask(operation, operation.at(mine.ids), headers)
                assert answer.status == 200, (who, str(operation), answer)
                named = [one for one in theirs.ids.values() if one in json.dumps(answer.json)]
                assert not named, (who, str(operation), named)
                asked += 1
    assert asked > 40


async def test_ids_of_others_in_a_body_or_query_are_not_found_and_nothing_happens(world: World) -> None:
    before = [await world.seen(tenant) for tenant in world.tenants]
    asked, wrong = 0, []
    for who, mine, theirs, headers in callers(world):
        for operation in world.operations.all:
            if headers is mine.key and not operation.takes_keys:
                continue
            for holder in HOLDERS:
                body = operation.body and world.operations.example(
                    operation.body, mine.known(**{holder: theirs.known()[holder]})
                )
                if body != world.body(operation, mine) and "csr" not in (body or {}):
                    asked += 1
                    answer = await world.ask(operation, operation.at(mine.ids), headers, body)
                    if answer.status != 404:
                        wrong.append((who, str(operation), body, answer))
                if holder in operation.queries:
                    asked += 1
                    path = operation.at(mine.ids)
                    answer = await world.ask(operation, path, headers, **{holder: theirs.ids[HOLDERS[holder]]})
                    if answer.status != 404:
                        wrong.append((who, str(operation), holder, answer))
    assert not wrong, listed(wrong)
    assert asked > 20
    assert [await world.seen(tenant) for tenant in world.tenants] == before


async def test_nobody_in_particular_gets_nothing(world: World) -> None:
    before, tenant = await world.seen(world.tenants[0]), world.tenants[0]
    spoilt = [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer " + tenant.session["Authorization"][8:]},
        {"Authorization": "Basic YTpi"},
        {"X-API-KEY": tenant.key["X-API-KEY"][:-1]},
        {"X-API-KEY": tenant.key["X-API-KEY"].partition(".")[0] + "."},
        {"X-ZDM-Principal": "made up"},
    ]
    for operation in world.operations.all:
        for headers in spoilt:
            if not operation.is_public:
                answer = await world.ask(operation, operation.at(tenant.ids), headers, world.body(operation, tenant))
                assert answer.status == 401, (str(operation), headers, answer)
    assert await world.seen(tenant) == before


async def test_ids_that_are_no_ids_are_not_found(world: World) -> None:
    tenant, wrong = world.tenants[0], []
    for operation in world.operations.all:
        body = world.body(operation, tenant)
        for name, malformed in product(operation.variables, MALFORMED):
            path = operation.at({**tenant.ids, name: malformed})
            answer = await world.ask(operation, path, tenant.session, body)
            if answer.status != 404:
                wrong.append((str(operation), name, malformed, answer))
    assert not wrong, listed(wrong)


async def test_bodies_of_wrong_types_are_refused_and_nothing_happens(world: World) -> None:
    tenant, asked, wrong = world.tenants[0], 0, list[Any]()
    before = await world.seen(tenant)
    for operation in world.operations.all:
        if operation.body is None:
            continue
        body = world.body(operation, tenant)
        assert world.operations.faults(operation.body, body) == []
        for changed in world.operations.wrong(operation.body, body):
            # No body at all is taken for an empty one.
            if changed is None:
                continue
            answer = await world.ask(operation, operation.at(tenant.ids), tenant.session, changed)
            asked += 1
            if answer.status != 400:
                wrong.append((str(operation), changed, answer))
    assert not wrong, listed(wrong)
    assert asked > 200
    assert await world.seen(tenant) == before


async def test_operators_in_a_query_are_refused_or_match_nothing(world: World) -> None:
    tenant, asked = world.tenants[0], 0
    operators = ('{"$ne": null}', '{"$gt": ""}', "[$ne]", "' OR 1=1 --", "\x01")
    for operation in world.operations.all:
        for name, operator in product(operation.queries, operators):
            answer = await world.ask(operation, operation.at(tenant.ids), tenant.session, **{name: operator})
            asked += 1
            found = answer.status == 200 and any(answer.json.values())
            assert not found, (str(operation), name, operator, answer)
    assert asked > 50


async def test_every_answer_is_as_the_document_says(world: World) -> None:
    """On a workspace of its own, as what can be deleted is."""
    tenant, wrong = await settle(world.http, FIRST), []
    # Not the fleet that is to be deleted.
    fleets = await Rest(world.http, tenant.session).call("GET", f"/v3/workspaces/{tenant.ids['workspace_id']}/fleets")
    default = next(fleet["id"] for fleet in fleets["fleets"] if fleet["id"] != tenant.ids["fleet_id"])

    def order(operation: Operation) -> tuple[bool, bool, int, str]:
        is_delete = operation.method == "DELETE"
        return operation.path.endswith("/logout"), is_delete, -operation.path.count("/") * is_delete, operation.path

    for operation in sorted(world.operations.all, key=order):
        path, body = operation.at(tenant.ids), world.body(operation, tenant, fleet_id=default)
        queries = [{}, world_query(world, operation, tenant)] if operation.queries else [{}]
        for query in queries:
            answer = await world.ask(operation, path, tenant.session, body, **query)
            faults = world.operations.faults(operation.answer, answer.json)
            if answer.status != 200 or faults:
                wrong.append((str(operation), body, query, answer, faults))
    assert not wrong, listed(wrong)


def world_query(world: World, operation: Operation, tenant: Tenant) -> dict[str, Any]:
    return {name: world.operations.example(schema, tenant.known(), name) for name, schema in operation.queries.items()}
