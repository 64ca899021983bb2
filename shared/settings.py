"""Settings: one frozen class per service, read once from the environment.

A field's alias is the name of its variable. What is wrong stops the start, named with its rule.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared import brokers

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class WrongSetting(SystemExit):
    """Ends the process with status 2 and one line for each wrong setting."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__(2)
        self.complaints = complaints

    def __str__(self) -> str:
        return "\n".join(self.complaints)


def _networks(text: object) -> object:
    if not isinstance(text, str):
        return text
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())


def _port_or_off(text: object) -> object:
    return None if text in ("", "off") else text


def _words(text: object) -> object:
    if not isinstance(text, str):
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("must name each once")
    return names


Port = Annotated[int, Field(ge=1, le=65535)]
PortOrOff = Annotated[Port | None, BeforeValidator(_port_or_off)]
# Networks in CIDR form separated by commas, single addresses too.
Networks = Annotated[tuple[IPNetwork, ...], BeforeValidator(_networks)]
BrokerName = Annotated[str, Field(pattern=rf"^{brokers.NAME}$")]
# Separated by commas.
BrokerNames = Annotated[
    tuple[BrokerName, ...], BeforeValidator(_words), Field(min_length=1), AfterValidator(_all_different)
]


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_default=True)

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Self:
        """Read from `environment`; raise `WrongSetting`.

        What NAME does not say, the file that NAME_FILE names does: secrets need not be in the environment.
        """
        names = {info.alias or name for name, info in cls.model_fields.items()}
        try:
            return cls.model_validate(_with_files(names, environment))
        except ValidationError as error:
            complaints = [_complaint(cls, environment, str(one["loc"][0]), one["msg"]) for one in error.errors()]
        # Not `from` the error: that one shows every value, secret ones too.
        raise WrongSetting(complaints)


def _with_files(names: set[str], environment: Mapping[str, str]) -> dict[str, str]:
    given = {name: value for name, value in environment.items() if value != ""}
    for name in sorted(names - given.keys()):
        if (path := given.get(f"{name}_FILE")) is not None:
            try:
                given[name] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise WrongSetting([f"{name}_FILE: cannot read {path}: {error}"]) from None
    return given


def _complaint(cls: type[Settings], environment: Mapping[str, str], name: str, rule: str) -> str:
    # Of a default it is the field that is named.
    name = (cls.model_fields[name].alias or name) if name in cls.model_fields else name
    rule = _without_credentials(rule.removeprefix("Value error, "))
    if name not in environment or name in _secret_names(cls):
        return f"{name}: {rule}"
    return f"{name}: {rule} (is {_without_credentials(environment[name])!r})"


def _secret_names(cls: type[Settings]) -> set[str]:
    fields = cls.model_fields
    return {info.alias or name for name, info in fields.items() if "SecretStr" in str(info.annotation)}


def _without_credentials(text: str) -> str:
    """Of an address, what stands before the last @ may hold a password; with or without a scheme."""
    scheme, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    user, at, host = rest.rpartition("@")
    return f"{scheme}{mark}***@{host}" if at and ":" in user else text


class Installation(Settings):
    """What all processes of an installation are told."""

    home: Path = Field(Path("var"), alias="ZDM_HOME")
    log: str = Field("", alias="ZDM_LOG", pattern=r"^(|sqlite:.+|kafka://.+)$")
    log_partitions: int = Field(6, alias="ZDM_LOG_PARTITIONS", ge=1, le=1000)
    log_replication: int = Field(1, alias="ZDM_LOG_REPLICATION", ge=1, le=9)
    documents: str = Field("", alias="ZDM_DOCUMENTS", pattern=r"^(|sqlite:.+|mongodb(\+srv)?://.+)$")
    public_host: str = Field("localhost", alias="ZDM_PUBLIC_HOST", pattern=r"^[A-Za-z0-9.:-]+$")
    log_level: str = Field("info", alias="ZDM_LOG_LEVEL", pattern=r"^(debug|info|warning|error)$")
    log_format: str = Field("auto", alias="ZDM_LOG_FORMAT", pattern=r"^(auto|json|console)$")
    internal_host: str = Field("127.0.0.1", alias="ZDM_INTERNAL_HOST")
    internal_port: Port = Field(9090, alias="ZDM_INTERNAL_PORT")

    @property
    def log_address(self) -> str:
        """Where the log is: `sqlite:PATH` or `kafka://host:port`."""
        return self.log or f"sqlite:{self.home / 'log.sqlite'}"

    @property
    def documents_address(self) -> str:
        """Where the documents are: `sqlite:PATH` or `mongodb://…`."""
        return self.documents or f"sqlite:{self.home / 'documents.sqlite'}"
