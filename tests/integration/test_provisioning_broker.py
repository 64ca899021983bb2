"""What is decided here holds at a real broker: who gets in, and who is cut off."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from deploy.simulator.device import ConnectionRefused, Device, tls_context
from services.provisioning.metrics import BROKER_SYNCS
from tests.support.pki import csr, key_pem, p256_key
from tests.support.provisioning import Broker, Caller, Provisioning, broker, provisioning
from tests.support.waiting import eventually

LINK = "provisioning-broker"
CUT_S = 1.0


class Field(NamedTuple):
    """A broker, provisioning in step with it, and a device."""

    broker: Broker
    one: Provisioning
    person: Caller
    path: str  # of the device
    device: str

    async def credential(self, **body: Any) -> dict[str, Any]:
        """`zdevice.json`."""
        return dict((await self.person.call("POST", f"{self.path}/credentials", body))["credential"])

    async def open_with_certificate(self) -> tuple[Device, str]:
        """A session over mutual TLS, and the certificate's serial number."""
        key = p256_key()
        made = await self.person.call("POST", f"{self.path}/certificates", {"csr": csr(key)})
        trusted = (self.broker.home / "pki/server-ca.crt").read_text()
        context = tls_context(trusted, (made["certificate"] + made["chain"], key_pem(key)))
        session = await Device.open(self.device, None, "localhost", self.broker.mtls_port, context=context)
        return session, made["serial"]


async def in_step(one: Provisioning) -> None:
    async def look() -> bool:
        return one.service.ready["broker"]() == ""

    await eventually(look, every_s=0.01)


@asynccontextmanager
async def field(home: Path) -> AsyncIterator[Field]:
    async with broker(home) as mosquitto, provisioning(home, LINK, **mosquitto.environment) as one:
        person = one.session()
        workspace = await person.workspace()
        device = await person.device(workspace)
        await in_step(one)
        yield Field(mosquitto, one, person, f"/workspaces/{workspace}/devices/{device}", device)


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Field]:
    async with field(tmp_path / "home") as one:
        yield one


async def is_cut(session: Device) -> None:
    async with asyncio.timeout(CUT_S):
        await session.lost.wait()


async def is_refused(credential: dict[str, Any]) -> None:
    with pytest.raises((ConnectionRefused, ConnectionError)):
        await Device.connect(credential)


async def gets_in(credential: dict[str, Any]) -> None:
    """At once or, after a broker's start, soon."""

    async def look() -> bool:
        try:
            (await Device.connect(credential)).close()
        except (ConnectionRefused, OSError):
            return False
        return True

    await eventually(look)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key_type": "asym"},
        {"provision_mode": "cloud_token"},
        {"endpoint_mode": "insecure"},
        {"provision_mode": "cloud_token", "endpoint_mode": "insecure"},
    ],
)
async def test_a_device_gets_in_with_its_document_until_it_is_disabled(there: Field, body: Mapping[str, Any]) -> None:
    credential = await there.credential(**body)
    session = await Device.connect(credential)
    await there.person.call("PUT", there.path, {"enabled": False})
    await is_cut(session)
    await is_refused(credential)
    await there.person.call("PUT", there.path, {"enabled": True})
    (await Device.connect(credential)).close()


async def test_a_deleted_device_is_cut_off_and_refused_whatever_it_shows(there: Field) -> None:
    token, certified = await there.credential(), (await there.open_with_certificate())[0]
    await there.person.call("DELETE", there.path)
    await is_cut(certified)
    await is_refused(token)
    with pytest.raises((ConnectionRefused, ConnectionError)):
        await Device.open(there.device, None, "localhost", there.broker.plain_port)


async def test_a_certificate_lets_in_until_it_is_revoked(there: Field) -> None:
    revoked, serial = await there.open_with_certificate()
    await there.person.call("DELETE", f"{there.path}/certificates/{serial}")
    await is_cut(revoked)
    session, _ = await there.open_with_certificate()
    assert not session.lost.is_set()
    session.close()


async def test_revoking_earlier_keys_cuts_who_uses_them_alone(there: Field) -> None:
    earlier, certified = await there.credential(), (await there.open_with_certificate())[0]
    certified.close()
    session = await Device.connect(earlier)
    later = await there.credential(revoke_previous=True)
    await is_cut(session)
    await is_refused(earlier)
    session = await Device.connect(later)
    await there.credential()
    assert not session.lost.is_set()
    session.close()


async def test_changes_made_while_the_broker_was_away_reach_it(there: Field) -> None:
    disabled = await there.credential()
    await there.broker.kill()
    await there.person.call("PUT", there.path, {"enabled": False})
    workspace = there.path.split("/")[2]
    another = await there.person.device(workspace, "another")
    fresh = (await there.person.call("POST", f"/devices/{another}/credentials"))["credential"]
    await there.broker.start()
    await gets_in(fresh)
    await is_refused(disabled)
    await in_step(there.one)


async def test_a_restarted_broker_lets_devices_in_without_asking(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with broker(home) as mosquitto:
        async with provisioning(home, LINK, **mosquitto.environment) as one:
            person = one.session()
            await in_step(one)
            device = await person.device(await person.workspace())
            credential = (await person.call("POST", f"/devices/{device}/credentials"))["credential"]
        await mosquitto.kill()
        await mosquitto.start()
        await gets_in(credential)


async def test_a_broker_that_lost_its_memory_is_told_everything(there: Field) -> None:
    credential = await there.credential()
    await there.broker.kill()
    (there.broker.home / "broker/devices.snapshot").unlink()
    await there.broker.start()
    await gets_in(credential)


async def test_a_broker_that_remembers_another_installation_forgets_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with broker(home) as mosquitto:
        async with provisioning(home, LINK, **mosquitto.environment) as one:
            person = one.session()
            await in_step(one)
            device = await person.device(await person.workspace())
            old = (await person.call("POST", f"/devices/{device}/credentials"))["credential"]
            (await Device.connect(old)).close()
        for file in home.glob("*.sqlite*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        async with provisioning(home, LINK, **mosquitto.environment) as one:
            await in_step(one)
            await is_refused(old)
            person = one.session()
            device = await person.device(await person.workspace())
            (await Device.connect((await person.call("POST", f"/devices/{device}/credentials"))["credential"])).close()


def full_syncs() -> float:
    return float(BROKER_SYNCS.labels("broker")._value.get())


@pytest.mark.parametrize(("away_h", "syncs"), [(1, 0), (24, 1)])
async def test_a_broker_that_was_away_for_long_is_told_everything_anew(there: Field, away_h: int, syncs: int) -> None:
    """The log forgets removals after a day."""
    credential = await there.credential()
    await there.broker.kill()
    await there.person.call("PUT", there.path, {"name": "changed meanwhile"})
    clock = there.one.platform.clock
    await there.one.store.brokers.note_in_step("broker", clock.ms() - away_h * 3600 * 1000)
    before = full_syncs()
    await there.broker.start()
    await gets_in(credential)
    await in_step(there.one)
    assert full_syncs() - before == syncs


async def test_readiness_names_a_broker_that_is_away(there: Field) -> None:
    await there.broker.kill()

    async def look() -> bool:
        return "broker" in there.one.service.ready["broker"]()

    await eventually(look)
    await there.broker.start()
    await in_step(there.one)


async def test_of_two_processes_one_has_the_link_and_the_other_takes_over(tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with broker(home) as mosquitto, provisioning(home, **mosquitto.environment) as first:
        link = asyncio.create_task(first.worker(LINK))
        await in_step(first)
        async with provisioning(home, LINK, **mosquitto.environment) as second:
            person = second.session()
            device = await person.device(await person.workspace())
            credential = (await person.call("POST", f"/devices/{device}/credentials"))["credential"]
            await gets_in(credential)
            link.cancel()
            await asyncio.gather(link, return_exceptions=True)
            await person.call(
                "PUT", f"/workspaces/{await first_workspace(person)}/devices/{device}", {"enabled": False}
            )

            async def look() -> bool:
                try:
                    (await Device.connect(credential)).close()
                except ConnectionRefused:
                    return True
                return False

            await eventually(look)


async def first_workspace(person: Caller) -> str:
    return str((await person.call("GET", "/workspaces"))["workspaces"][0]["id"])
