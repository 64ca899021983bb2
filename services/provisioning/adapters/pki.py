"""The installation's own certificates, in `$ZDM_HOME/pki`, made at its first start.

`server-ca` signs what the broker shows, `device-ca` what devices show; neither certificate is ever made anew, since
devices keep the first and have been signed by the second. The keys of both lie in a folder below, so that the broker,
which reads the rest, can be kept from them.
"""

import ipaddress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.provisioning.adapters.x509 import (
    certificate_pem,
    key_from,
    key_pem,
    name,
    new_key,
    self_signed_authority,
    signed_by,
)
from shared.security.secrets import load_or_create, replace_file

_AUTHORITY_LIFETIME = timedelta(days=25 * 365)
_SERVER_LIFETIME = timedelta(days=825)
_RENEWED_BEFORE = timedelta(days=90)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class Pair(NamedTuple):
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Pki(NamedTuple):
    """What there is after `prepare`."""

    server_authority: str  # PEM; what devices must trust
    device_authority: Pair


def prepare(folder: Path, public_host: str, now: datetime) -> Pki:
    """Make what is missing; renew the server's certificate when it ends soon or is for other names.

    Safe with several processes at once, and to repeat after a crash at any point.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    servers = _authority(folder, "server-ca", "ZDM server CA", now)
    devices = _authority(folder, "device-ca", "ZDM device CA", now)
    key = _key(folder / "server.key")
    certificate = folder / "server.crt"
    if not _still_good(certificate, servers, key, public_host, now):
        made = _server_certificate(servers, key, public_host, now)
        replace_file(certificate, certificate_pem(made) + certificate_pem(servers.certificate), 0o644)
    return Pki(certificate_pem(servers.certificate).decode(), devices)


def _authority(folder: Path, stem: str, common_name: str, now: datetime) -> Pair:
    key = _key(folder / "authority" / f"{stem}.key")
    pem = load_or_create(
        folder / f"{stem}.crt",
        lambda: certificate_pem(self_signed_authority(common_name, key, now, _AUTHORITY_LIFETIME)),
    )
    return Pair(x509.load_pem_x509_certificate(pem), key)


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    return key_from(load_or_create(path, lambda: key_pem(new_key())))


def _server_certificate(
    authority: Pair, key: ec.EllipticCurvePrivateKey, public_host: str, now: datetime
) -> x509.Certificate:
    return signed_by(
        authority.certificate,
        authority.key,
        name(public_host[:64]),
        key.public_key(),
        now,
        now + _SERVER_LIFETIME,
        [
            (False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])),
            (False, x509.SubjectAlternativeName(_names(public_host))),
        ],
    )


def _names(public_host: str) -> list[x509.GeneralName]:
    return [_name(host) for host in dict.fromkeys((public_host.lower(), *_LOCAL_HOSTS))]


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _still_good(path: Path, authority: Pair, key: ec.EllipticCurvePrivateKey, public_host: str, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        certificate.verify_directly_issued_by(authority.certificate)
    except (FileNotFoundError, ValueError, TypeError, x509.ExtensionNotFound, InvalidSignature):
        return False
    return (
        set(names) == set(_names(public_host))
        and certificate.public_key() == key.public_key()
        and certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEWED_BEFORE
    )
