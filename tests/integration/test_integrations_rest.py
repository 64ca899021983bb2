"""Integrations over REST (spec: rest-v3 8.11)."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY as PROMETHEUS

from tests.support.http import Answer
from tests.support.integrations import OTHER, Integrations, integrations

URL = "http://192.0.2.1:8080/zdm/data"
TOKEN = "a token that nobody sees"


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Integrations]:
    async with integrations(tmp_path / "home", working=False, ZDM_OUTBOUND_ALLOW="") as running:
        yield running


def body(**more: Any) -> dict[str, Any]:
    return {"name": "hook", "subtype_configuration": {"url": URL}, **more}


class TestLife:
    async def test_a_new_one_has_every_field_and_shows_its_secret_this_once(self, one: Integrations) -> None:
        made = await one.create(URL)
        secret = made["subtype_configuration"].pop("secret")
        assert re.fullmatch(r"int-[0-9a-z]{12}", made.pop("id"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", made.pop("created_at"))
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
        assert made == {
            "name": "hook",
            "workspace_id": "wks-1",
            "status": "active",
            "type": "data_stream",
            "type_configuration": {"tags": [], "fleets": [], "period": 0.0},
            "subtype": "webhook",
            "subtype_configuration": {"url": URL, "token": ""},
            "last_time_schedule": "0001-01-01T00:00:00.000Z",
            "deleted_at": "0001-01-01T00:00:00.000Z",
            "statistics": {
                "delivered": 0,
                "waiting": 0,
                "parked": 0,
                "dropped": 0,
                "oldest_waiting": None,
                "last_error": "",
                "next_try_at": None,
            },
        }

    async def test_all_that_is_asked_for_is_kept(self, one: Integrations) -> None:
        configuration = {"tags": ["a", "b/c"], "fleets": ["flt-1"], "period": 5}
        made = await one.create(
            URL, type="data_stream", subtype="webhook", status="disabled", type_configuration=configuration
        )
        found = (await one.call("GET", f"/{made['id']}"))["integration"]
        assert found["type_configuration"] == configuration
        assert found["status"] == "disabled"
        assert found["name"] == "hook"

    async def test_the_list_is_oldest_first_and_can_be_narrowed(self, one: Integrations) -> None:
        first = (await one.create(URL))["id"]
        second = (await one.create(URL, status="disabled"))["id"]

        async def listed(query: str = "") -> list[str]:
            return [found["id"] for found in (await one.call("GET", query))["integrations"]]

        assert await listed() == [first, second]
        assert await listed("?type=data_stream&subtype=webhook") == [first, second]
        assert await listed("?status=active") == [first]
        assert await listed("?status=disabled&type=data_stream") == [second]
        for nothing in ("type=dump", "subtype=azure", "status=what"):
            assert await listed(f"?{nothing}") == []

    @pytest.mark.parametrize(
        ("change", "where", "value"),
        [
            ({"name": "new"}, ("name",), "new"),
            ({"status": "disabled"}, ("status",), "disabled"),
            ({"type_configuration": {"tags": ["z"]}}, ("type_configuration", "tags"), ["z"]),
            ({"type_configuration": {"tags": []}}, ("type_configuration", "tags"), []),
            ({"type_configuration": {"fleets": ["flt-2"]}}, ("type_configuration", "fleets"), ["flt-2"]),
            ({"type_configuration": {"period": 9.5}}, ("type_configuration", "period"), 9.5),
            ({"type_configuration": {"period": 0}}, ("type_configuration", "period"), 0),
            ({"subtype_configuration": {"url": URL + "/x"}}, ("subtype_configuration", "url"), URL + "/x"),
            ({"subtype_configuration": {"token": ""}}, ("subtype_configuration", "token"), ""),
        ],
    )
    async def test_only_what_is_named_changes(
        self, one: Integrations, change: Any, where: tuple[str, ...], value: Any
    ) -> None:
        made = await one.create(
            URL, token=TOKEN, type_configuration={"tags": ["a"], "fleets": ["flt-1"], "period": 1.0}
        )
        made["subtype_configuration"]["secret"] = "********"
        changed = await one.change(made["id"], **change)
        inner = made
        for step in where[:-1]:
            inner = inner[step]
        inner[where[-1]] = value
        assert changed == made
        assert (await one.call("GET", f"/{made['id']}"))["integration"] == made

    async def test_what_was_read_can_be_written_back(self, one: Integrations) -> None:
        made = await one.create(URL, token=TOKEN)
        found = (await one.call("GET", f"/{made['id']}"))["integration"]
        assert await one.change(made["id"], **found) == found
        kept = await one.store.integrations.get("wks-1", made["id"])
        assert kept is not None
        assert (kept.token, kept.secret) == (TOKEN, made["subtype_configuration"]["secret"])

    async def test_a_deleted_one_is_gone(self, one: Integrations) -> None:
        made, stays = await one.create(URL), await one.create(URL)
        deleted = (await one.call("DELETE", f"/{made['id']}"))["integration"]
        assert deleted["id"] == made["id"]
        for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/logs")):
            answer = await one.ask(method, f"/{made['id']}{path}", {"name": "x"})
            assert (answer.status, answer.json["code"]) == (404, "integration_not_found")
        assert [found["id"] for found in (await one.call("GET"))["integrations"]] == [stays["id"]]

    async def test_a_workspace_has_a_hundred_at_most(self, one: Integrations) -> None:
        for _ in range(100):
            made = await one.create(URL)
        assert (await one.ask("POST", "", body())).status == 400
        await one.call("DELETE", f"/{made['id']}")
        await one.create(URL)

    async def test_the_log_of_a_new_one_is_empty(self, one: Integrations) -> None:
        made = await one.create(URL)
        assert await one.logs(made["id"]) == []
        for limit, code in ((1, 200), (1000, 200), (0, 400), (1001, 400), ("x", 400)):
            assert (await one.ask("GET", f"/{made['id']}/logs?limit={limit}")).status == code


class TestBadInput:
    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"name": None}, "name"),
            ({"name": ""}, "name"),
            ({"name": "x" * 65}, "name"),
            ({"name": 5}, "name"),
            ({"name": {"$ne": None}}, "name"),
            ({"name": ["a"]}, "name"),
            ({"type": "condition_stream"}, "type"),
            ({"type": "dump"}, "type"),
            ({"type": ""}, "type"),
            ({"type": {"$gt": ""}}, "type"),
            ({"subtype": "azure"}, "subtype"),
            ({"subtype": 1}, "subtype"),
            ({"status": "paused"}, "status"),
            ({"status": True}, "status"),
            ({"status": {"$ne": "x"}}, "status"),
            ({"type_configuration": []}, "type_configuration"),
            ({"type_configuration": {"tags": "a"}}, "type_configuration.tags"),
            ({"type_configuration": {"tags": [1]}}, "type_configuration.tags.0"),
            ({"type_configuration": {"tags": ["a", {"$regex": "."}]}}, "type_configuration.tags.1"),
            ({"type_configuration": {"tags": [""]}}, "type_configuration.tags.0"),
            ({"type_configuration": {"tags": ["t" * 257]}}, "type_configuration.tags.0"),
            ({"type_configuration": {"tags": ["t"] * 1001}}, "type_configuration.tags"),
            ({"type_configuration": {"fleets": {"$in": []}}}, "type_configuration.fleets"),
            ({"type_configuration": {"fleets": [None]}}, "type_configuration.fleets.0"),
            ({"type_configuration": {"period": -1}}, "type_configuration.period"),
            ({"type_configuration": {"period": 3601}}, "type_configuration.period"),
            ({"type_configuration": {"period": "5"}}, "type_configuration.period"),
            ({"subtype_configuration": "x"}, "subtype_configuration"),
            ({"subtype_configuration": {"url": 5}}, "subtype_configuration.url"),
            ({"subtype_configuration": {"url": ""}}, "subtype_configuration.url"),
            ({"subtype_configuration": {"url": {"$ne": ""}}}, "subtype_configuration.url"),
            ({"subtype_configuration": {"url": "http://h/" + "x" * 2048}}, "subtype_configuration.url"),
            ({"subtype_configuration": {"url": "ftp://192.0.2.1/"}}, "subtype_configuration.url"),
            ({"subtype_configuration": {"url": "http://a@192.0.2.1/"}}, "subtype_configuration.url"),
            ({"subtype_configuration": {"url": "not a url"}}, "subtype_configuration.url"),
            ({"subtype_configuration": {"url": URL, "token": 5}}, "subtype_configuration.token"),
            ({"subtype_configuration": {"url": URL, "token": "x" * 4097}}, "subtype_configuration.token"),
            ({"subtype_configuration": {"url": URL, "token": "a\r\nX-Evil: 1"}}, "subtype_configuration.token"),
            ({"subtype_configuration": {"url": URL, "token": "a\n"}}, "subtype_configuration.token"),
            ({"subtype_configuration": {"url": URL, "token": "é"}}, "subtype_configuration.token"),
            ({"subtype_configuration": {"url": URL, "token": " "}}, "subtype_configuration.token"),
        ],
    )
    async def test_a_wrong_member_is_refused_by_name_at_creation_and_change(
        self, one: Integrations, wrong: dict[str, Any], field: str
    ) -> None:
        refused(await one.ask("POST", "", body(**wrong)), field)
        assert (await one.call("GET"))["integrations"] == []
        if None in wrong.values():
            return
        made = await one.create(URL)
        refused(await one.ask("PUT", f"/{made['id']}", wrong), field)
        made["subtype_configuration"]["secret"] = "********"
        assert (await one.call("GET", f"/{made['id']}"))["integration"] == made

    @pytest.mark.parametrize(
        ("sent", "field"),
        [
            ({}, "name"),
            ({"name": "x"}, "subtype_configuration"),
            ({"name": "x", "subtype_configuration": {}}, "subtype_configuration.url"),
            ({"name": "x", "subtype_configuration": {"url": None}}, "subtype_configuration.url"),
        ],
    )
    async def test_what_is_missing_is_named(self, one: Integrations, sent: Any, field: str) -> None:
        refused(await one.ask("POST", "", sent), field)

    @pytest.mark.parametrize("sent", [{}, {"name": None}, {"unknown": 1}, {"type_configuration": {}}])
    async def test_a_change_of_nothing_is_refused(self, one: Integrations, sent: Any) -> None:
        made = await one.create(URL)
        assert (await one.ask("PUT", f"/{made['id']}", sent)).status == 400

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "2130706433",
            "0x7f.1",
            "127.1",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
            "0",
            "127.0.0.1.",
        ],
    )
    async def test_an_address_that_is_not_called_is_refused_and_counted(self, one: Integrations, host: str) -> None:
        before = refusals()
        made = await one.create(URL)
        configuration = {"url": f"http://{host}/x"}
        for answer in (
            await one.ask("POST", "", body(subtype_configuration=configuration)),
            await one.ask("PUT", f"/{made['id']}", {"subtype_configuration": configuration}),
        ):
            refused(answer, "subtype_configuration.url", "address_refused")
        assert refusals() == before + 2

    @pytest.mark.parametrize("fleet", ["flt-9", "flt-none", "wks-1", ""])
    async def test_a_fleet_of_another_tenant_and_one_that_never_was_get_the_same_answer(
        self, one: Integrations, fleet: str
    ) -> None:
        made = await one.create(URL)
        configuration = {"type_configuration": {"fleets": ["flt-1", fleet]}}
        for answer in (
            await one.ask("POST", "", body(**configuration)),
            await one.ask("PUT", f"/{made['id']}", configuration),
        ):
            assert (answer.status, answer.json["code"]) == (404, "fleet_not_found")
        assert len((await one.call("GET"))["integrations"]) == 1


def refused(answer: Answer, field: str, code: str = "bad_request") -> None:
    assert (answer.status, answer.json["code"]) == (400, code), answer.body
    assert answer.json["field"] == field
    assert answer.json["message"].startswith(f"{field}: ")


def refusals() -> float:
    return sum(
        sample.value
        for metric in PROMETHEUS.collect()
        for sample in metric.samples
        if sample.name == "zdm_outbound_refused_total"
    )


class TestSecrets:
    async def test_neither_token_nor_secret_is_shown_again_or_logged(
        self, one: Integrations, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = await one.create(URL, token=TOKEN)
        secret = made["subtype_configuration"]["secret"]
        assert made["subtype_configuration"]["token"] == "********"
        path = f"/{made['id']}"
        for method, below, sent in (
            ("GET", "", None),
            ("GET", path, None),
            ("PUT", path, {"name": "x"}),
            ("PUT", path, {"subtype_configuration": {"token": TOKEN}}),
            ("PUT", path, {"subtype_configuration": {"token": TOKEN * 200}}),
            ("GET", path + "/logs", None),
            ("DELETE", path, None),
        ):
            answer = await one.ask(method, below, sent)
            assert TOKEN.encode() not in answer.body
            assert secret.encode() not in answer.body
        kept = await one.store.integrations.all()
        said = capsys.readouterr()
        for hidden in (TOKEN, secret):
            assert hidden not in said.out + said.err + repr(kept)


class TestTenants:
    async def test_an_integration_of_another_workspace_is_not_there(self, one: Integrations) -> None:
        made = await one.create(URL)
        path = f"/v3/workspaces/{OTHER}/integrations"
        for method, below in (
            ("GET", ""),
            ("POST", ""),
            ("GET", "/x"),
            ("PUT", "/x"),
            ("DELETE", "/x"),
            ("GET", "/x/logs"),
        ):
            answer = await one.server.ask(method, path + below.replace("x", made["id"]), json=body())
            assert (answer.status, answer.json["code"]) == (404, "workspace_not_found")
        assert (await one.call("GET", f"/{made['id']}"))["integration"]["name"] == "hook"

    @pytest.mark.parametrize("identifier", ["int-000000000000", "int-", "$ne", "%00", "wks-1"])
    async def test_an_id_that_never_was_is_not_there(self, one: Integrations, identifier: str) -> None:
        for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/logs")):
            assert (await one.ask(method, f"/{identifier}{path}", {"name": "x"})).status in (400, 404)
