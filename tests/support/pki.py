"""Certificate signing requests, good and bad."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

# DER of the algorithm identifier.
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | dsa.DSAPrivateKey


def p256_key() -> ec.EllipticCurvePrivateKey:
    """What devices usually have."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: PrivateKey) -> str:
    """PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def csr(
    key: PrivateKey,
    common_name: str = "whatever",
    *,
    algorithm: hashes.SHA256 | hashes.SHA384 | None = hashes.SHA256(),  # noqa: B008 (immutable)
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> str:
    """A signing request in PEM."""
    return pem(csr_object(key, common_name, algorithm=algorithm, extensions=extensions))


def csr_object(
    key: PrivateKey,
    common_name: str = "whatever",
    *,
    algorithm: hashes.SHA256 | hashes.SHA384 | None = hashes.SHA256(),  # noqa: B008 (immutable)
    extensions: tuple[x509.ExtensionType, ...] = (),
) -> x509.CertificateSigningRequest:
    """A signing request."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name(common_name))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, algorithm)


def pem(request: x509.CertificateSigningRequest) -> str:
    """PEM."""
    return request.public_bytes(serialization.Encoding.PEM).decode()


def name(common_name: str) -> x509.Name:
    """A subject."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def self_signed(key: ec.EllipticCurvePrivateKey, address: str) -> str:
    """The certificate in PEM of a server at `address`, which is its own authority, for a day."""
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    certificate = (
        x509.CertificateBuilder(name(address), name(address), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def forged_csr(victim: PrivateKey, forger: PrivateKey) -> str:
    """A request for the key (elliptic) of `victim`, which its maker does not have: the signature is the forger's."""
    wanted, signature = csr_object(victim), csr_object(forger).signature
    body = wanted.tbs_certrequest_bytes + _ECDSA_WITH_SHA256 + _bit_string(signature)
    return pem(x509.load_der_x509_csr(b"\x30" + _length(len(body)) + body))


def _bit_string(content: bytes) -> bytes:
    return b"\x03" + _length(len(content) + 1) + b"\x00" + content


def _length(count: int) -> bytes:
    if count < 0x80:
        return bytes([count])
    encoded = count.to_bytes((count.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded
