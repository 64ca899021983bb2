"""Certificates as all of ours are made: ECDSA with SHA-256, random serial numbers, identifiers of both keys."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

# Clocks of devices are slow at times; a certificate just made must be valid for them.
_BACKDATED = timedelta(days=1)

# `critical`, extension
Extension = tuple[bool, x509.ExtensionType]


def new_key() -> ec.EllipticCurvePrivateKey:
    """P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """PKCS 8, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """What `key_pem` wrote; raise `ValueError`."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an elliptic curve key")
    return key


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def name(common_name: str) -> x509.Name:
    """A subject."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def usage(*, authority: bool) -> Extension:
    """What the key may do: sign certificates, or prove itself in TLS."""
    return True, x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def self_signed_authority(
    common_name: str, key: ec.EllipticCurvePrivateKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """An authority that signs end certificates only (pathlen 0)."""
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    return _signed(
        name(common_name), key.public_key(), name(common_name), key, now, now + lifetime,
        [(True, constraints), usage(authority=True)],
    )  # fmt: skip


def signed_by(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    now: datetime,
    until: datetime,
    extensions: Sequence[Extension],
) -> x509.Certificate:
    """An end certificate; it ends with its authority at the latest."""
    until = min(until, authority.not_valid_after_utc)
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    extensions = [(True, constraints), usage(authority=False), *extensions]
    return _signed(subject, public_key, authority.subject, authority_key, now, until, extensions)


def _signed(
    subject: x509.Name,
    public_key: CertificatePublicKeyTypes,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    until: datetime,
    extensions: Sequence[Extension],
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    for critical, extension in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(issuer_key, hashes.SHA256())
