"""Signs certificates of devices."""

from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from services.provisioning.adapters.pki import Pair
from services.provisioning.adapters.x509 import certificate_pem, name, signed_by
from services.provisioning.domain.credentials import Issued
from shared.clock import Clock, to_ms
from shared.errors import Refused

_CURVES = (ec.SECP256R1, ec.SECP384R1)
# Larger ones cost a client, and us, much and gain nothing.
_RSA_BITS = range(2048, 8193)
_RSA_EXPONENT = 65537
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)


class DeviceAuthority:
    """The device CA. What it signs is for TLS clients, ends with `lifetime`, and carries nothing that was asked for."""

    def __init__(self, authority: Pair, lifetime: timedelta, clock: Clock) -> None:
        self._authority = authority
        self._chain = certificate_pem(authority.certificate).decode()
        self._lifetime = lifetime
        self._clock = clock

    def issue(self, csr: str, device_id: str) -> Issued:
        """A certificate with the key of the PEM request `csr` and the common name `device_id`.

        Raise `Refused` when the request cannot be read, is not signed with its own key, or has a key of a kind that
        we do not take.
        """
        now = self._clock.now()
        certificate = signed_by(
            self._authority.certificate,
            self._authority.key,
            name(device_id),
            _proven_key(csr),
            now,
            now + self._lifetime,
            [(False, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]))],
        )
        return Issued(
            serial=f"{certificate.serial_number:040x}",
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            pem=certificate_pem(certificate).decode(),
            chain=self._chain,
            expires_at=to_ms(certificate.not_valid_after_utc),
        )


def _proven_key(csr: str) -> CertificatePublicKeyTypes:
    """The key of a request that was signed with it."""
    try:
        request = x509.load_pem_x509_csr(csr.encode())
        key = request.public_key()
        algorithm = request.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refusal(f"not a certificate signing request in PEM: {error}") from error
    _check_key(key)
    if not isinstance(algorithm, _HASHES):
        raise _refusal("sign the request with SHA-256, SHA-384 or SHA-512")
    if not _is_signed(request):
        raise _refusal("its signature does not match its key, so it proves nothing")
    return key


def _is_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refusal(f"its signature cannot be checked: {error}") from error


def _check_key(key: CertificatePublicKeyTypes) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise _refusal(f"a key on the curve {key.curve.name} is not taken; take P-256 or P-384")
    elif isinstance(key, rsa.RSAPublicKey):
        if key.key_size not in _RSA_BITS:
            raise _refusal(f"an RSA key must have 2048 to 8192 bits, not {key.key_size}")
        if key.public_numbers().e < _RSA_EXPONENT:
            raise _refusal(f"an RSA key's public exponent must be {_RSA_EXPONENT} or more")
    else:
        raise _refusal("keys must be elliptic (P-256, P-384) or RSA (2048 bits and more)")


def _refusal(reason: str) -> Refused:
    return Refused(f"csr: {reason}", field="csr")
