"""What an address of Kafka says: `kafka://[user:secret@]host[:port][,host[:port]][?tls=true&ca=PATH&sasl=MECHANISM]`."""

import re
import ssl
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from shared.settings import WrongSetting

_PORT = 9092
_SERVER = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_RULES = {"tls": "true or false", "ca": "a file with certificates", "sasl": " or ".join(_MECHANISMS)}


class Access(NamedTuple):
    """How the driver's clients are told to reach Kafka. `options` holds the secret: not for logs."""

    servers: tuple[str, ...]
    options: dict[str, Any]


def parse(address: str) -> Access:
    """Raise `WrongSetting`, whose complaint repeats nothing of the address: a secret may be in it."""
    # By hand: for the standard library, several hosts with one in brackets among them are no URL.
    place, _, query = address.partition("://")[2].partition("?")
    authority, _, path = place.partition("/")
    credentials, _, servers = authority.rpartition("@")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if path or "#" in address:
        raise _wrong("nothing but ?options may follow the hosts; write %23 %2F %3F for # / ? in a secret")
    if unknown := options.keys() - _RULES.keys():
        raise _wrong(f"no option {', '.join(sorted(unknown))}; there are {', '.join(_RULES)}")
    tls = _choice(options, "tls", "false", ("true", "false")) == "true"
    security = "SSL" if tls else "PLAINTEXT"
    found: dict[str, Any] = {"ssl_context": _context(options.get("ca"))} if tls else {}
    if credentials:
        user, _, secret = credentials.partition(":")
        security = f"SASL_{security}"
        found |= {
            "sasl_mechanism": _choice(options, "sasl", "PLAIN", _MECHANISMS),
            "sasl_plain_username": unquote(user),
            "sasl_plain_password": unquote(secret),
        }
    return Access(tuple(_server(text) for text in servers.split(",")), found | {"security_protocol": security})


def _server(text: str) -> str:
    match = _SERVER.fullmatch(text)
    if match is None or not 0 < (port := int(match[2] or _PORT)) < 1 << 16:
        raise _wrong("hosts are host[:port], with commas between")
    return f"{match[1]}:{port}"


def _choice(options: dict[str, str], name: str, default: str, allowed: tuple[str, ...]) -> str:
    if (value := options.get(name, default)) not in allowed:
        raise _wrong(f"{name} is {_RULES[name]}")
    return value


def _context(file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=file)
    except OSError as error:
        raise _wrong(f"ca is {_RULES['ca']}: {error.strerror or 'none in it'}") from error


def _wrong(rule: str) -> WrongSetting:
    return WrongSetting([f"ZDM_LOG: in an address of Kafka, {rule}"])
