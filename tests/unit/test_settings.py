"""Settings: what is wrong is named with its rule, and nothing secret is ever said."""

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import Field, SecretStr, ValidationError

from services.gateway.settings import GatewaySettings
from services.ingestion.settings import IngestionSettings
from services.integrations.settings import IntegrationsSettings
from services.jobs.settings import JobsSettings
from services.provisioning.settings import ProvisioningSettings
from services.storage.settings import StorageSettings
from shared.brokers import Broker
from shared.settings import Installation, Networks, Port, PortOrOff, Settings, WrongSetting

ROOT = Path(__file__).parents[2]
EVERY = (
    Installation,
    GatewaySettings,
    ProvisioningSettings,
    IngestionSettings,
    JobsSettings,
    StorageSettings,
    IntegrationsSettings,
)


class Example(Settings):
    port: Port = Field(1, alias="ZDM_PORT")
    other: PortOrOff = Field(None, alias="ZDM_OTHER")
    networks: Networks = Field((), alias="ZDM_NETWORKS")
    needed: str = Field(alias="ZDM_NEEDED")
    pin: SecretStr | None = Field(None, alias="ZDM_PIN", min_length=8)


def complaints(kind: type[Settings], environment: Mapping[str, str]) -> list[str]:
    with pytest.raises(WrongSetting) as caught:
        kind.load(environment)
    assert caught.value.code == 2
    assert str(caught.value) == "\n".join(caught.value.complaints)
    return caught.value.complaints


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    names = {info.alias for kind in EVERY for info in kind.model_fields.values()}
    names |= set(re.findall(r"\$\{(ZDM_\w+)", (ROOT / "deploy/mosquitto/start").read_text()))
    assert [name for name in names if f"| `{name}` |" not in text] == []


def test_all_have_defaults_and_take_nothing_from_elsewhere() -> None:
    for kind in EVERY:
        kind.load({})
        kind.load({"home": "x", "PATH": "/bin", "ZDM_UNKNOWN": "1"})


def test_an_empty_variable_counts_as_not_given() -> None:
    empty = {info.alias or name: "" for kind in EVERY for name, info in kind.model_fields.items()}
    assert all(kind.load(empty) == kind.load({}) for kind in EVERY)


def test_every_wrong_one_is_named_with_its_rule_and_what_it_is() -> None:
    found = complaints(Example, {"ZDM_PORT": "70000", "ZDM_OTHER": "on", "ZDM_NETWORKS": "10.0.0.0/8, 300.0.0.0"})
    assert [one.partition(":")[0] for one in found] == ["ZDM_PORT", "ZDM_OTHER", "ZDM_NETWORKS", "ZDM_NEEDED"]
    assert found[0] == "ZDM_PORT: Input should be less than or equal to 65535 (is '70000')"
    assert "'on'" in found[1]
    assert "'300.0.0.0' does not appear to be an IPv4 or IPv6 network" in found[2]
    assert found[3] == "ZDM_NEEDED: Field required"


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Installation, "ZDM_LOG", "redis://host"),
        (Installation, "ZDM_LOG", "sqlite:"),
        (Installation, "ZDM_DOCUMENTS", "postgres://host"),
        (Installation, "ZDM_PUBLIC_HOST", "a host"),
        (Installation, "ZDM_PUBLIC_HOST", "http://host"),
        (Installation, "ZDM_LOG_LEVEL", "loud"),
        (Installation, "ZDM_LOG_FORMAT", "xml"),
        (Installation, "ZDM_INTERNAL_PORT", "0"),
        (GatewaySettings, "ZDM_HTTP_PORT", "http"),
        (GatewaySettings, "ZDM_HTTP_PORT", "-1"),
        (GatewaySettings, "ZDM_ADMIN_EMAIL", "nobody"),
        (GatewaySettings, "ZDM_TRUSTED_PROXIES", "10.0.0.1/8"),
        (GatewaySettings, "ZDM_SESSION_DAYS", "0"),
        (GatewaySettings, "ZDM_UPSTREAMS", "storage"),
        (StorageSettings, "ZDM_RETENTION_DAYS", "0"),
        (StorageSettings, "ZDM_RETENTION_DAYS", "1.5"),
        (ProvisioningSettings, "ZDM_MQTT_PLAIN_PORT", "yes"),
        (ProvisioningSettings, "ZDM_MQTT_TOKEN_PORT", "65536"),
        (ProvisioningSettings, "ZDM_BROKERS", "broker,secrets"),
        (ProvisioningSettings, "ZDM_BROKERS", "broker, broker"),
        (ProvisioningSettings, "ZDM_BROKERS", ","),
        (IngestionSettings, "ZDM_BROKER", "broker-"),
        (IngestionSettings, "ZDM_BROKER", "broker-2/.."),
        (IngestionSettings, "ZDM_BROKERS", "broker-2"),
        (IntegrationsSettings, "ZDM_OUTBOUND_ALLOW", "everything"),
        (IntegrationsSettings, "ZDM_OUTBOUND_DENY", "10.0.0.0/40"),
    ],
)
def test_each_service_refuses_what_breaks_a_rule(kind: type[Settings], name: str, value: str) -> None:
    (found,) = complaints(kind, {name: value})
    assert found.startswith(f"{name}: ")
    assert found.endswith(f" (is {value!r})")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (Installation, "ZDM_DOCUMENTS", "mongo://user:secret@host/db"),
        (Installation, "ZDM_DOCUMENTS", "mongo://user:sec@secret@host/db"),
        (Installation, "ZDM_DOCUMENTS", "mongo://user:secret,/?#secret@one,two/db?x=a@b"),
        (Installation, "ZDM_DOCUMENTS", "user:secret@host"),
        (Installation, "ZDM_LOG", "amqp://:secret@host"),
        (GatewaySettings, "ZDM_UPSTREAMS", "storage=ftp://user:secret@host"),
        (GatewaySettings, "ZDM_UPSTREAMS", "jobs=http://a:secret@jobs,storage=ftp://b:secret@host"),
        (GatewaySettings, "ZDM_ADMIN_PASSWORD", "secret"),
        (Example, "ZDM_PIN", "secret"),
    ],
)
def test_no_complaint_says_a_password(kind: type[Settings], name: str, value: str) -> None:
    try:
        kind.load({"ZDM_NEEDED": "x", name: value})
    except WrongSetting as wrong:
        said = "".join(traceback.format_exception(wrong))
    assert name in said
    assert "secret" not in said.replace("test_settings", "")


def test_what_a_wrong_address_is_shows_as_far_as_it_may() -> None:
    (found,) = complaints(Installation, {"ZDM_DOCUMENTS": "mongo://user:secret@host/db"})
    assert found.endswith("(is 'mongo://***@host/db')")
    (found,) = complaints(Installation, {"ZDM_LOG": "kafka//broker@host"})
    assert found.endswith("(is 'kafka//broker@host')")


def test_secrets_are_not_in_what_settings_show_of_themselves() -> None:
    settings = GatewaySettings.load({"ZDM_ADMIN_PASSWORD": "secret and long"})
    assert "secret" not in repr(settings) + str(settings.model_dump())
    assert settings.admin_password is not None
    assert settings.admin_password.get_secret_value() == "secret and long"


def test_they_do_not_change_once_read() -> None:
    with pytest.raises(ValidationError):
        StorageSettings.load({}).retention_days = 1  # type: ignore[misc]


def test_ports_may_be_off_and_networks_single_addresses() -> None:
    told = {"ZDM_NEEDED": "x", "ZDM_OTHER": "off", "ZDM_NETWORKS": "10.0.0.0/8, ::1 ,192.0.2.7,"}
    read = Example.load(told)
    assert read.other is None
    assert [str(network) for network in read.networks] == ["10.0.0.0/8", "::1/128", "192.0.2.7/32"]


def test_brokers_are_named_with_commas_and_each_has_its_own_files() -> None:
    told = {"ZDM_BROKERS": "broker, broker-2", "ZDM_BROKER": "broker-2"}
    assert ProvisioningSettings.load(told).brokers == ("broker", "broker-2")
    ingestion = IngestionSettings.load(told)
    assert not ingestion.alone
    second = Broker(Path("/srv/zdm"), ingestion.broker)
    assert (str(second.folder), str(second.spool)) == ("/srv/zdm/broker-2", "/srv/zdm/spool-2")
    assert second.group == "ingestion-2"


def test_one_broker_has_the_files_that_it_always_had() -> None:
    assert IngestionSettings.load({}).alone
    only = Broker(Path("/srv/zdm"), IngestionSettings.load({}).broker)
    assert (str(only.folder), str(only.spool), only.group) == ("/srv/zdm/broker", "/srv/zdm/spool", "ingestion")


def test_an_ingestion_whose_broker_nobody_names_does_not_start() -> None:
    (found,) = complaints(IngestionSettings, {"ZDM_BROKER": "broker-2"})
    assert found.startswith("ZDM_BROKERS: must name broker-2 too")


def test_a_broker_with_a_wrong_name_does_not_start() -> None:
    environment = {**os.environ, "ZDM_BROKER": "secrets"}
    command = [str(ROOT / "deploy/mosquitto/start")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("wrong setting: ZDM_BROKER: ")


def test_addresses_follow_the_home_folder_unless_told() -> None:
    plain = Installation.load({"ZDM_HOME": "/srv/zdm"})
    assert plain.log_address == "sqlite:/srv/zdm/log.sqlite"
    assert plain.documents_address == "sqlite:/srv/zdm/documents.sqlite"
    told = Installation.load({"ZDM_LOG": "kafka://one:9092", "ZDM_DOCUMENTS": "mongodb+srv://a:b@host"})
    assert (told.log_address, told.documents_address) == ("kafka://one:9092", "mongodb+srv://a:b@host")


def test_a_process_that_is_told_wrong_ends_with_status_2_and_one_line_each() -> None:
    environment = {**os.environ, "ZDM_DOCUMENTS": "mongo://user:secret@host", "ZDM_INTERNAL_PORT": "0"}
    ended = subprocess.run(
        [sys.executable, "-m", "services.storage"], env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert [line.split(":")[1].strip() for line in lines] == ["ZDM_DOCUMENTS", "ZDM_INTERNAL_PORT"]
    assert "secret" not in ended.stdout + ended.stderr


def test_what_the_environment_does_not_say_a_file_may(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("correct horse\n")
    told = {"ZDM_ADMIN_PASSWORD_FILE": str(tmp_path / "password")}
    password = GatewaySettings.load(told).admin_password
    assert password is not None
    assert password.get_secret_value() == "correct horse"
    password = GatewaySettings.load({**told, "ZDM_ADMIN_PASSWORD": "battery staple"}).admin_password
    assert password is not None
    assert password.get_secret_value() == "battery staple"


def test_a_file_that_cannot_be_read_is_named_and_one_that_breaks_a_rule_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting) as wrong:
        Installation.load({"ZDM_DOCUMENTS_FILE": str(tmp_path / "missing")})
    assert wrong.value.complaints[0].startswith("ZDM_DOCUMENTS_FILE: cannot read")
    (tmp_path / "address").write_text("postgres://user:battery@here")
    with pytest.raises(WrongSetting) as wrong:
        Installation.load({"ZDM_DOCUMENTS_FILE": str(tmp_path / "address")})
    assert wrong.value.complaints[0].startswith("ZDM_DOCUMENTS: ")
    assert "battery" not in wrong.value.complaints[0]
