"""The certificate authorities and the broker's server certificate, in `$ZDM_HOME/pki` (ECDSA P-256, SHA-256).

Two authorities: devices trust the *server CA*, the broker trusts the *device CA*; so neither can pose as the other.
"""

import ipaddress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shared.clock import Clock, rfc3339_ms, to_ms
from shared.errors import Refused
from shared.security.secrets import load_or_create, replace_file

_AUTHORITY_DAYS = 25 * 365
_SERVER_DAYS = 825
_RENEW_DAYS = 90
# Clocks of devices drift: what is new is valid a little before now.
_BACKDATED = timedelta(minutes=10)
_RSA_BITS = 2048
_CURVES = ("secp256r1", "secp384r1")


class Issued(NamedTuple):
    """A device's new certificate. `serial` and `fingerprint` (SHA-256 of the DER form) are hex."""

    certificate: str
    chain: str
    serial: str
    fingerprint: str
    expire_at: str


class _Authority(NamedTuple):
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class Authority:
    """Signs for devices. Made by `open_authority`."""

    def __init__(self, device_ca: _Authority, server_ca: str, clock: Clock, days: int) -> None:
        self._device_ca = device_ca
        self._clock = clock
        self._lifetime = timedelta(days=days)
        self.server_ca = server_ca  # PEM: what devices trust

    def sign(self, device_id: str, request: str) -> Issued:
        """A client certificate for `device_id`, whatever name the request (PEM) has; raise `Refused` for a bad one."""
        public_key = _key_of(request)
        now = self._clock.now()
        expires = min(now + self._lifetime, self._device_ca.certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(device_id))
            .issuer_name(self._device_ca.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(expires)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(_issuer_key(self._device_ca.certificate), critical=False)
            .sign(self._device_ca.key, hashes.SHA256())
        )
        return Issued(
            _pem(certificate),
            _pem(self._device_ca.certificate),
            f"{certificate.serial_number:x}",
            certificate.fingerprint(hashes.SHA256()).hex(),
            rfc3339_ms(to_ms(certificate.not_valid_after_utc)),
        )


def _key_of(text: str) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """The public key of a signing request whose signature proves that its maker has the private one."""
    try:
        request = x509.load_pem_x509_csr(text.encode())
        proven, key = request.is_signature_valid, request.public_key()
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Refused("csr: not a certificate signing request in PEM form", field="csr") from error
    if not proven:
        raise Refused("csr: its signature does not prove possession of the private key", field="csr")
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS:
        return key
    raise Refused("csr: the key must be ECDSA P-256 or P-384, or RSA of 2048 bits or more", field="csr")


def open_authority(folder: Path, public_host: str, clock: Clock, certificate_days: int) -> Authority:
    """What is in `folder`, made when missing; the server certificate anew when it nears its end or the host changed."""
    server_ca = _authority(folder, "server-ca", "ZDM server CA", clock)
    device_ca = _authority(folder, "device-ca", "ZDM device CA", clock)
    _server_certificate(folder, server_ca, public_host, clock)
    return Authority(device_ca, _pem(server_ca.certificate), clock, certificate_days)


def _authority(folder: Path, name: str, common_name: str, clock: Clock) -> _Authority:
    key = _private_key(folder / f"{name}.key")

    def make() -> bytes:
        now = clock.now()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name(common_name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + timedelta(days=_AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return _pem(certificate).encode()

    return _Authority(x509.load_pem_x509_certificate(load_or_create(folder / f"{name}.crt", make)), key)


def _server_certificate(folder: Path, authority: _Authority, public_host: str, clock: Clock) -> None:
    key, path = _private_key(folder / "server.key"), folder / "server.crt"
    names = _server_names(public_host)
    if path.exists() and _still_good(x509.load_pem_x509_certificate(path.read_bytes()), authority, names, clock.now()):
        return
    now = clock.now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(public_host[:64]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=_SERVER_DAYS))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issuer_key(authority.certificate), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    replace_file(path, (_pem(certificate) + _pem(authority.certificate)).encode())


def _still_good(
    certificate: x509.Certificate, authority: _Authority, names: x509.SubjectAlternativeName, now: datetime
) -> bool:
    has = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    ours = certificate.issuer == authority.certificate.subject
    return ours and has == names and certificate.not_valid_after_utc - now > timedelta(days=_RENEW_DAYS)


def _server_names(public_host: str) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys((public_host, "localhost", "127.0.0.1", "::1")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    def make() -> bytes:
        return ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    key = serialization.load_pem_private_key(load_or_create(path, make), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError(f"{path} holds no ECDSA key")
    return key


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _issuer_key(certificate: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
