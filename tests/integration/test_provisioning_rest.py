"""Workspaces, fleets, devices and credentials over REST."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from shared.documents import Schema
from shared.messages.registry import WHOLE
from shared.messages.topics import ACCESS, REGISTRY
from tests.support.pki import csr, p256_key
from tests.support.provisioning import Caller, Provisioning, provisioning
from tests.support.workers import records_in

NOWHERE = "dev-000000000000"
CREATED_AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Provisioning]:
    async with provisioning(tmp_path / "home", ZDM_PUBLIC_HOST="mqtt.example.org") as running:
        yield running


@pytest.fixture
def person(one: Provisioning) -> Caller:
    return one.session()


@pytest.fixture
async def workspace(person: Caller) -> str:
    return await person.workspace()


class TestWorkspaces:
    async def test_a_new_one_comes_with_a_default_fleet(self, person: Caller) -> None:
        body = {"name": "Bottling plant", "description": "Line 3 and 4"}
        made = (await person.call("POST", "/workspaces", body))["workspace"]
        assert set(made) == {"id", "name", "account_id", "description", "created_at"}
        assert (made["name"], made["description"], made["account_id"]) == ("Bottling plant", "Line 3 and 4", "acc-1")
        assert re.fullmatch(r"wks-[0-9a-z]{12}", made["id"])
        assert CREATED_AT.fullmatch(made["created_at"])
        fleets = (await person.call("GET", f"/workspaces/{made['id']}/fleets"))["fleets"]
        assert [fleet["name"] for fleet in fleets] == ["default"]
        assert (await person.call("GET", f"/workspaces/{made['id']}"))["workspace"] == made

    async def test_a_session_sees_all_of_its_account_oldest_first(self, one: Provisioning, person: Caller) -> None:
        made = [await person.workspace(name) for name in ("a", "b", "c")]
        await one.session("acc-2").workspace("theirs")
        assert [one["id"] for one in (await person.call("GET", "/workspaces"))["workspaces"]] == made

    async def test_an_api_key_sees_its_own_alone_and_makes_none(self, one: Provisioning, person: Caller) -> None:
        first, second = await person.workspace("a"), await person.workspace("b")
        key = one.api_key(second)
        assert [found["id"] for found in (await key.call("GET", "/workspaces"))["workspaces"]] == [second]
        assert (await key.ask("POST", "/workspaces", {"name": "c"})).status == 403
        assert (await key.ask("GET", f"/workspaces/{first}")).status == 404
        assert (await key.ask("DELETE", f"/workspaces/{second}")).status == 403

    async def test_an_installation_may_let_api_keys_make_workspaces(self, tmp_path: Path) -> None:
        async with provisioning(tmp_path / "home", ZDM_API_KEYS_MAKE_WORKSPACES="true") as one:
            key = one.api_key(await one.session().workspace())
            assert (await key.ask("POST", "/workspaces", {"name": "c"})).status == 200

    async def test_name_and_description_change_one_by_one(self, person: Caller, workspace: str) -> None:
        path = f"/workspaces/{workspace}"
        await person.call("PUT", path, {"description": "new"})
        changed = (await person.call("PUT", path, {"name": "other", "description": None}))["workspace"]
        assert (changed["name"], changed["description"]) == ("other", "new")
        assert (await person.call("GET", path))["workspace"] == changed

    async def test_deleting_takes_fleets_devices_and_credentials_along(
        self, one: Provisioning, person: Caller, workspace: str
    ) -> None:
        fleet = await person.fleet(workspace)
        device = await person.device(workspace, fleet_id=fleet)
        path = f"/workspaces/{workspace}/devices/{device}"
        await person.call("POST", f"{path}/credentials", {})
        await person.call("POST", f"{path}/certificates", {"csr": csr(p256_key())})
        assert await person.call("DELETE", f"/workspaces/{workspace}") == {}
        assert (await person.ask("GET", path)).status == 404
        assert (await person.call("GET", "/workspaces"))["workspaces"] == []
        for topic in (REGISTRY, ACCESS):
            told = {record.value for record in await records_in(one.platform, topic) if record.key != WHOLE}
            assert told == {None}
        assert await one.store.devices.get(device) is None
        assert await one.store.fleets.get(fleet) is None
        assert await one.store.workspaces.get(workspace) is None
        assert await one.store.certificates.of_device(device) == []
        assert await keys_kept(one) == 0


async def keys_kept(one: Provisioning) -> int:
    return await (await one.platform.documents.collection(Schema("provisioning_keys"))).count()


class TestFleets:
    async def test_a_new_one_has_every_field(self, person: Caller, workspace: str) -> None:
        made = (await person.call("POST", f"/workspaces/{workspace}/fleets", {"name": "Fillers"}))["fleet"]
        assert set(made) == {"id", "name", "description", "account_id", "workspace_id", "created_at"}
        assert (made["description"], made["workspace_id"], made["account_id"]) == ("", workspace, "acc-1")
        assert (await person.call("GET", f"/workspaces/{workspace}/fleets/{made['id']}"))["fleet"] == made

    async def test_the_last_one_of_a_workspace_stays(self, person: Caller, workspace: str) -> None:
        fleets = (await person.call("GET", f"/workspaces/{workspace}/fleets"))["fleets"]
        path = f"/workspaces/{workspace}/fleets/{fleets[0]['id']}"
        refused = await person.ask("DELETE", path)
        assert (refused.status, refused.json["code"]) == (409, "conflict")
        await person.device(workspace)
        assert (await person.ask("GET", path)).status == 200

    async def test_one_with_devices_stays_and_goes_once_it_is_empty(self, person: Caller, workspace: str) -> None:
        fleet = await person.fleet(workspace)
        device = await person.device(workspace, fleet_id=fleet)
        path = f"/workspaces/{workspace}/fleets/{fleet}"
        assert (await person.ask("DELETE", path)).status == 409
        await person.call("DELETE", f"/workspaces/{workspace}/devices/{device}")
        assert await person.call("DELETE", path) == {}
        assert (await person.ask("GET", path)).status == 404
        assert (await person.ask("DELETE", path)).status == 404

    async def test_a_refused_deletion_lets_devices_in_again(self, person: Caller, workspace: str) -> None:
        fleet = await person.fleet(workspace)
        await person.device(workspace, fleet_id=fleet)
        assert (await person.ask("DELETE", f"/workspaces/{workspace}/fleets/{fleet}")).status == 409
        await person.device(workspace, "second", fleet_id=fleet)

    async def test_of_two_deleted_at_once_one_stays(self, person: Caller, workspace: str) -> None:
        fleets = [one["id"] for one in (await person.call("GET", f"/workspaces/{workspace}/fleets"))["fleets"]]
        fleets.append(await person.fleet(workspace))
        await asyncio.gather(*(person.ask("DELETE", f"/workspaces/{workspace}/fleets/{fleet}") for fleet in fleets))
        assert len((await person.call("GET", f"/workspaces/{workspace}/fleets"))["fleets"]) >= 1

    async def test_a_new_name_shows_on_its_devices_at_once(self, person: Caller, workspace: str) -> None:
        fleet = await person.fleet(workspace, "old")
        device = await person.device(workspace, fleet_id=fleet)
        await person.call("PUT", f"/workspaces/{workspace}/fleets/{fleet}", {"name": "new"})
        found = (await person.call("GET", f"/workspaces/{workspace}/devices/{device}"))["device"]
        assert found["fleet_name"] == "new"


class TestDevices:
    async def test_a_new_one_has_every_field(self, person: Caller, workspace: str) -> None:
        made = (await person.call("POST", f"/workspaces/{workspace}/devices", {"name": "filler-01"}))["device"]
        fleet = (await person.call("GET", f"/workspaces/{workspace}/fleets"))["fleets"][0]
        assert re.fullmatch(r"dev-[0-9a-z]{12}", made.pop("id"))
        assert CREATED_AT.fullmatch(made.pop("created_at"))
        assert made == {
            "name": "filler-01",
            "account_id": "acc-1",
            "fleet_id": fleet["id"],
            "fleet_name": "default",
            "workspace_id": workspace,
            "workspace_name": "plant",
            "phys_id": "",
            "identities": None,
            "enabled": True,
            "is_connected": False,
            "last_connected_at": "0001-01-01T00:00:00.000Z",
            "last_seen_at": "0001-01-01T00:00:00.000Z",
            "remote_address": "",
        }

    async def test_without_a_fleet_called_default_the_oldest_takes_new_ones(
        self, person: Caller, workspace: str
    ) -> None:
        oldest = (await person.call("GET", f"/workspaces/{workspace}/fleets"))["fleets"][0]["id"]
        await person.fleet(workspace, "younger")
        await person.call("PUT", f"/workspaces/{workspace}/fleets/{oldest}", {"name": "renamed"})
        made = (await person.call("POST", f"/workspaces/{workspace}/devices", {"name": "a", "fleet_id": None}))[
            "device"
        ]
        assert (made["fleet_id"], made["fleet_name"]) == (oldest, "renamed")

    async def test_a_fleet_of_another_workspace_is_not_found(self, person: Caller, workspace: str) -> None:
        other = await person.fleet(await person.workspace("other"))
        device = await person.device(workspace)
        body = {"name": "a", "fleet_id": other}
        for method, path in (("POST", "devices"), ("PUT", f"devices/{device}")):
            refused = await person.ask(method, f"/workspaces/{workspace}/{path}", body)
            assert (refused.status, refused.json["code"]) == (404, "fleet_not_found")
        assert len((await person.call("GET", f"/workspaces/{workspace}/devices"))["devices"]) == 1

    async def test_moving_answers_with_the_new_fleets_name(self, person: Caller, workspace: str) -> None:
        fleet, device = await person.fleet(workspace), await person.device(workspace, "before")
        path = f"/workspaces/{workspace}/devices/{device}"
        moved = (await person.call("PUT", path, {"fleet_id": fleet}))["device"]
        assert (moved["name"], moved["fleet_id"], moved["fleet_name"]) == ("before", fleet, "fillers")
        renamed = (await person.call("PUT", path, {"name": "after", "fleet_id": None}))["device"]
        assert (renamed["name"], renamed["fleet_id"]) == ("after", fleet)

    async def test_more_than_one_page_of_them_is_listed_whole_and_in_order(
        self, one: Provisioning, person: Caller, workspace: str
    ) -> None:
        made = await asyncio.gather(*(person.device(workspace, f"d{number}") for number in range(520)))
        found = (await person.call("GET", f"/workspaces/{workspace}/devices"))["devices"]
        assert [device["id"] for device in found] == sorted(made)
        assert found[0] == (await person.call("GET", f"/workspaces/{workspace}/devices/{found[0]['id']}"))["device"]

    async def test_a_deleted_one_is_gone_from_everywhere(
        self, one: Provisioning, person: Caller, workspace: str
    ) -> None:
        device = await person.device(workspace)
        path = f"/workspaces/{workspace}/devices/{device}"
        await person.call("POST", f"{path}/credentials")
        assert await person.call("DELETE", path) == {}
        for method, rest, body in (
            ("GET", "", None),
            ("DELETE", "", None),
            ("PUT", "", {"name": "x"}),
            ("POST", "/credentials", {}),
            ("GET", "/certificates", None),
            ("POST", "/certificates", {"csr": csr(p256_key())}),
        ):
            assert (await person.ask(method, path + rest, body)).status == 404
        assert (await person.call("GET", f"/workspaces/{workspace}/devices"))["devices"] == []
        assert await keys_kept(one) == 0

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/devices", {}),
            ("POST", "/devices", {"name": ""}),
            ("POST", "/devices", {"name": "x" * 33}),
            ("POST", "/devices", {"name": None}),
            ("POST", "/devices", {"name": {"$ne": None}}),
            ("POST", "/devices", {"name": "a", "fleet_id": {"$ne": None}}),
            ("POST", "/devices", {"name": "a", "fleet_id": 7}),
            ("POST", "/devices", {"name": "a\u0000b"}),
            ("POST", "/fleets", {"name": ["a"]}),
            ("POST", "/fleets", {"name": "x" * 65}),
            ("POST", "/fleets", {"name": "a", "description": "x" * 1025}),
            ("PUT", "", {}),
            ("PUT", "", {"name": None, "description": None}),
            ("PUT", "", {"name": ""}),
        ],
    )
    async def test_bodies_that_break_a_rule_are_refused(
        self, person: Caller, workspace: str, method: str, path: str, body: Any
    ) -> None:
        refused = await person.ask(method, f"/workspaces/{workspace}{path}", body)
        assert (refused.status, refused.json["code"]) == (400, "bad_request")

    async def test_nothing_to_change_or_the_wrong_type_is_refused(self, person: Caller, workspace: str) -> None:
        path = f"/workspaces/{workspace}/devices/{await person.device(workspace)}"
        for body in ({}, {"name": None, "fleet_id": None}, {"enabled": "no"}, {"enabled": 0}, {"nme": "typo"}):
            assert (await person.ask("PUT", path, body)).status == 400

    async def test_the_ids_of_another_tenant_are_not_found(
        self, one: Provisioning, person: Caller, workspace: str
    ) -> None:
        device = await person.device(workspace)
        stranger = one.session("acc-2")
        own = await stranger.workspace()
        for path in (f"/workspaces/{workspace}/devices/{device}", f"/workspaces/{own}/devices/{device}"):
            for method, rest in (("GET", ""), ("DELETE", ""), ("POST", "/credentials"), ("GET", "/certificates")):
                answer = await stranger.ask(method, path + rest)
                assert (answer.status, set(answer.json) >= {"code", "title", "message"}) == (404, True)
        assert (await stranger.ask("POST", f"/devices/{device}/credentials")).status == 404
        assert (await person.ask("GET", f"/workspaces/{workspace}/devices/{device}")).status == 200


class TestCredentials:
    @pytest.fixture
    async def device(self, person: Caller, workspace: str) -> str:
        return await person.device(workspace)

    async def test_the_document_is_complete(self, person: Caller, workspace: str, device: str) -> None:
        answer = await person.call("POST", f"/workspaces/{workspace}/devices/{device}/credentials")
        made = answer["credential"]
        assert re.fullmatch(r"crd-[0-9a-z]{12}", made["id"])
        assert made["devinfo"] == {"device_id": device, "mode": "device_token", "key_id": 1, "key_type": "sym"}
        assert made["endpoint"] == {"host": "mqtt.example.org", "port": 8884, "mode": "secure"}
        assert len(base64.b64decode(made["prvkey"], validate=True)) == 32
        assert made["cacert"].startswith("-----BEGIN CERTIFICATE-----\n")
        assert made["cacert"].count("BEGIN") == 1
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", made["created_at"])

    async def test_an_asymmetric_key_leaves_only_its_public_half_here(
        self, one: Provisioning, person: Caller, device: str
    ) -> None:
        made = (await person.call("POST", f"/devices/{device}/credentials", {"key_type": "asym"}))["credential"]
        assert made["devinfo"]["key_type"] == "asym"
        private = serialization.load_pem_private_key(base64.b64decode(made["prvkey"]), None)
        public = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        granted = json.loads((await records_in(one.platform, ACCESS))[-1].value or b"")
        assert granted["keys"] == [{"id": 1, "type": "ES256", "key_base64": base64.b64encode(public).decode()}]

    async def test_a_cloud_token_is_a_finished_token(self, one: Provisioning, person: Caller, device: str) -> None:
        body = {"provision_mode": "cloud_token"}
        made = (await person.call("POST", f"/devices/{device}/credentials", body))["credential"]
        granted = json.loads((await records_in(one.platform, ACCESS))[-1].value or b"")
        key = base64.b64decode(granted["keys"][0]["key_base64"])
        claims = jwt.decode(made["prvkey"], key, algorithms=["HS256"])
        assert claims == {"sub": device, "user": device, "key": 1, "exp": 2516239022}
        assert made["devinfo"] == {"device_id": device, "mode": "cloud_token", "key_id": 1, "key_type": "sym"}

    async def test_key_numbers_rise_and_are_never_used_again(
        self, one: Provisioning, person: Caller, device: str
    ) -> None:
        path = f"/devices/{device}/credentials"
        numbers = [(await person.call("POST", path))["credential"]["devinfo"]["key_id"] for _ in range(3)]
        last = (await person.call("POST", path, {"revoke_previous": True}))["credential"]["devinfo"]["key_id"]
        assert [*numbers, last] == [1, 2, 3, 4]
        granted = json.loads((await records_in(one.platform, ACCESS))[-1].value or b"")
        assert [key["id"] for key in granted["keys"]] == [4]
        assert await keys_kept(one) == 1

    async def test_keys_made_at_once_all_count(self, one: Provisioning, person: Caller, device: str) -> None:
        path = f"/devices/{device}/credentials"
        made = await asyncio.gather(*(person.call("POST", path) for _ in range(8)))
        assert sorted(one["credential"]["devinfo"]["key_id"] for one in made) == list(range(1, 9))
        granted = json.loads((await records_in(one.platform, ACCESS))[-1].value or b"")
        assert sorted(key["id"] for key in granted["keys"]) == list(range(1, 9))

    async def test_without_a_plain_listener_there_is_no_insecure_endpoint(self, person: Caller, device: str) -> None:
        refused = await person.ask("POST", f"/devices/{device}/credentials", {"endpoint_mode": "insecure"})
        assert (refused.status, refused.json["field"]) == (400, "endpoint_mode")
        assert "ZDM_MQTT_PLAIN_PORT" in refused.json["message"]

    async def test_with_a_plain_listener_there_is(self, tmp_path: Path) -> None:
        async with provisioning(tmp_path / "other", ZDM_MQTT_PLAIN_PORT="1883") as one:
            person = one.session()
            device = await person.device(await person.workspace())
            body = {"endpoint_mode": "insecure"}
            made = (await person.call("POST", f"/devices/{device}/credentials", body))["credential"]
            assert made["endpoint"] == {"host": "localhost", "port": 1883, "mode": "insecure"}
            assert made["cacert"]

    @pytest.mark.parametrize(
        "body",
        [
            {"provision_mode": "certificate"},
            {"provision_mode": {"$ne": None}},
            {"endpoint_mode": "both"},
            {"key_type": "RS256"},
            {"revoke_previous": "yes"},
            {"provision_mode": "cloud_token", "key_type": "asym"},
        ],
    )
    async def test_other_kinds_are_refused(self, person: Caller, device: str, body: Any) -> None:
        assert (await person.ask("POST", f"/devices/{device}/credentials", body)).status == 400

    async def test_no_secret_is_in_the_registry_or_in_any_other_answer(
        self, one: Provisioning, person: Caller, workspace: str, device: str
    ) -> None:
        secret = (await person.call("POST", f"/devices/{device}/credentials"))["credential"]["prvkey"]
        seen = b"".join(record.value or b"" for record in await records_in(one.platform, REGISTRY))
        for path in ("", f"/{device}", f"/{device}/certificates"):
            seen += (await person.ask("GET", f"/workspaces/{workspace}/devices{path}")).body
        assert secret.encode() not in seen


class TestCertificates:
    async def test_signed_listed_and_revoked(self, one: Provisioning, person: Caller, workspace: str) -> None:
        path = f"/workspaces/{workspace}/devices/{await person.device(workspace)}/certificates"
        first = await person.call("POST", path, {"csr": csr(p256_key())})
        second = await person.call("POST", path, {"csr": csr(p256_key())})
        assert set(first) == {"certificate", "chain", "serial", "expire_at"}
        assert await person.call("DELETE", f"{path}/{first['serial'].upper()}") == {}
        listed = (await person.call("GET", path))["certificates"]
        assert [(one["serial"], one["revoked"]) for one in listed] == [
            (first["serial"], True),
            (second["serial"], False),
        ]
        assert (listed[1]["certificate"], listed[1]["expire_at"]) == (second["certificate"], second["expire_at"])
        granted = json.loads((await records_in(one.platform, ACCESS))[-1].value or b"")
        assert granted["certificates"] == [listed[1]["fingerprint"]]
        assert await person.call("DELETE", f"{path}/{first['serial']}") == {}

    async def test_unknown_serials_and_those_of_another_device_are_not_found(
        self, person: Caller, workspace: str
    ) -> None:
        devices = f"/workspaces/{workspace}/devices"
        mine, other = await person.device(workspace, "a"), await person.device(workspace, "b")
        serial = (await person.call("POST", f"{devices}/{other}/certificates", {"csr": csr(p256_key())}))["serial"]
        for wanted in (serial, "00", "x" * 200):
            refused = await person.ask("DELETE", f"{devices}/{mine}/certificates/{wanted}")
            assert (refused.status, refused.json["code"]) == (404, "certificate_not_found")
        listed = (await person.call("GET", f"{devices}/{other}/certificates"))["certificates"]
        assert [one["revoked"] for one in listed] == [False]

    @pytest.mark.parametrize("body", [{}, {"csr": None}, {"csr": 7}, {"csr": "no"}, {"csr": "x" * 20_000}])
    async def test_bad_requests_are_refused_and_leave_nothing(self, person: Caller, workspace: str, body: Any) -> None:
        path = f"/workspaces/{workspace}/devices/{await person.device(workspace)}/certificates"
        refused = await person.ask("POST", path, body)
        assert (refused.status, refused.json["field"]) == (400, "csr")
        assert (await person.call("GET", path))["certificates"] == []
