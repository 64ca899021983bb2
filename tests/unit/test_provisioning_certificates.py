"""The installation's certificates, and what the device CA signs."""

import base64
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.provisioning.adapters import pki
from services.provisioning.adapters.authority import DeviceAuthority
from services.provisioning.domain.credentials import Issued
from shared.clock import SystemClock
from shared.errors import Refused
from tests.support.pki import PrivateKey, csr, csr_object, forged_csr, key_pem, p256_key, pem

NOW = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


class FixedClock(SystemClock):
    """It is always the same time."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self) -> datetime:
        return self._moment


def authority(folder: Path, now: datetime = NOW, days: int = 365) -> DeviceAuthority:
    return DeviceAuthority(
        pki.prepare(folder, "localhost", now).device_authority, timedelta(days=days), FixedClock(now)
    )


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(certificate: x509.Certificate) -> set[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(one.value) for one in found}


class TestInstallation:
    def test_files_are_for_their_owner_alone(self, tmp_path: Path) -> None:
        pki.prepare(tmp_path / "pki", "localhost", NOW)
        assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
        keys = list((tmp_path / "pki").rglob("*.key"))
        assert {key.name for key in keys} == {"server.key", "server-ca.key", "device-ca.key"}
        assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}

    def test_the_authorities_sign_end_certificates_only(self, tmp_path: Path) -> None:
        pki.prepare(tmp_path, "localhost", NOW)
        for stem in ("server-ca", "device-ca"):
            certificate = load(tmp_path / f"{stem}.crt")
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
            assert constraints.critical
            assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
            usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
            assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
            key = certificate.public_key()
            assert isinstance(key, ec.EllipticCurvePublicKey)
            assert isinstance(key.curve, ec.SECP256R1)
            assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)

    def test_the_server_certificate_is_for_every_name_it_is_reached_by(self, tmp_path: Path) -> None:
        made = pki.prepare(tmp_path, "mqtt.example.org", NOW)
        certificate = load(tmp_path / "server.crt")
        assert names(certificate) == {"mqtt.example.org", "localhost", "127.0.0.1", "::1"}
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(made.server_authority.encode()))
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]

    @pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
    def test_an_address_becomes_an_address_in_the_certificate(self, tmp_path: Path, host: str) -> None:
        pki.prepare(tmp_path, host, NOW)
        found = load(tmp_path / "server.crt").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert host in {str(one) for one in found.get_values_for_type(x509.IPAddress)}

    def test_a_second_start_changes_no_file(self, tmp_path: Path) -> None:
        pki.prepare(tmp_path, "localhost", NOW)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
        pki.prepare(tmp_path, "localhost", NOW + timedelta(days=30))
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before

    @pytest.mark.parametrize(
        ("host", "later"), [("localhost", timedelta(days=800)), ("elsewhere.example.org", timedelta())]
    )
    def test_the_server_certificate_is_renewed_near_its_end_and_for_other_names(
        self, tmp_path: Path, host: str, later: timedelta
    ) -> None:
        before = pki.prepare(tmp_path, "localhost", NOW)
        old = load(tmp_path / "server.crt")
        after = pki.prepare(tmp_path, host, NOW + later)
        new = load(tmp_path / "server.crt")
        assert new.serial_number != old.serial_number
        assert host in names(new)
        assert new.not_valid_after_utc > NOW + later + timedelta(days=90)
        assert after.server_authority == before.server_authority

    def test_a_damaged_server_certificate_is_made_anew(self, tmp_path: Path) -> None:
        pki.prepare(tmp_path, "localhost", NOW)
        (tmp_path / "server.crt").write_text("-----BEGIN CERTIFICATE-----\ncut off")
        pki.prepare(tmp_path, "localhost", NOW)
        assert "localhost" in names(load(tmp_path / "server.crt"))

    def test_a_start_that_died_between_key_and_certificate_is_completed(self, tmp_path: Path) -> None:
        pki.prepare(tmp_path, "localhost", NOW)
        for name in ("device-ca.crt", "server.crt"):
            (tmp_path / name).unlink()
        made = pki.prepare(tmp_path, "localhost", NOW)
        assert made.device_authority.certificate.public_key() == made.device_authority.key.public_key()
        load(tmp_path / "server.crt").verify_directly_issued_by(load(tmp_path / "server-ca.crt"))


def signed(issued: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(issued.pem.encode())


GOOD_KEYS: dict[str, Callable[[], ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey]] = {
    "P-256": p256_key,
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
}


class TestDeviceCertificates:
    @pytest.mark.parametrize("kind", GOOD_KEYS)
    def test_a_proven_key_gets_a_certificate_for_the_device(self, tmp_path: Path, kind: str) -> None:
        key = GOOD_KEYS[kind]()
        issued = authority(tmp_path).issue(csr(key, "dev-of-somebody-else"), "dev-1")
        certificate = signed(issued)
        assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "dev-1"
        assert len(certificate.subject) == 1
        assert certificate.public_key() == key.public_key()
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(issued.chain.encode()))
        assert issued.serial == f"{certificate.serial_number:040x}"
        assert issued.fingerprint == certificate.fingerprint(hashes.SHA256()).hex()

    def test_it_is_for_tls_clients_and_signs_nothing(self, tmp_path: Path) -> None:
        extensions = signed(authority(tmp_path).issue(csr(p256_key()), "dev-1")).extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
        assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
            ExtendedKeyUsageOID.CLIENT_AUTH
        ]

    def test_extensions_that_were_asked_for_are_not_given(self, tmp_path: Path) -> None:
        wanted = (
            x509.BasicConstraints(ca=True, path_length=3),
            x509.SubjectAlternativeName([x509.DNSName("mqtt.example.org")]),
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        )
        certificate = signed(authority(tmp_path).issue(csr(p256_key(), extensions=wanted), "dev-1"))
        assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        with pytest.raises(x509.ExtensionNotFound):
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)

    def test_serial_numbers_are_never_the_same(self, tmp_path: Path) -> None:
        one, request = authority(tmp_path), csr(p256_key())
        assert len({one.issue(request, "dev-1").serial for _ in range(20)}) == 20

    def test_it_does_not_outlive_its_authority(self, tmp_path: Path) -> None:
        certificate = signed(authority(tmp_path, days=9000 * 2).issue(csr(p256_key()), "dev-1"))
        assert certificate.not_valid_after_utc == load(tmp_path / "device-ca.crt").not_valid_after_utc

    @pytest.mark.parametrize(
        ("request_", "reason"),
        [
            ("", "not a certificate signing request"),
            ("hello", "not a certificate signing request"),
            ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "not a certificate"),
            ("-----BEGIN CERTIFICATE REQUEST-----\n!!!!\n-----END CERTIFICATE REQUEST-----\n", "not a certificate"),
            ("\udc80" * 3, "not a certificate"),
            ("ключ", "not a certificate"),
        ],
    )
    def test_what_is_no_request_is_refused(self, tmp_path: Path, request_: str, reason: str) -> None:
        with pytest.raises(Refused, match=reason) as refused:
            authority(tmp_path).issue(request_, "dev-1")
        assert refused.value.field == "csr"

    def test_a_private_key_or_a_certificate_is_no_request(self, tmp_path: Path) -> None:
        one = authority(tmp_path)
        for text in (key_pem(p256_key()), (tmp_path / "device-ca.crt").read_text()):
            with pytest.raises(Refused, match="not a certificate signing request"):
                one.issue(text, "dev-1")

    def test_a_request_cut_short_anywhere_is_refused(self, tmp_path: Path) -> None:
        one, whole = authority(tmp_path), csr(p256_key())
        for length in range(0, len(whole) - 35, 40):
            with pytest.raises(Refused):
                one.issue(whole[:length], "dev-1")

    def test_somebody_elses_key_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="proves nothing"):
            authority(tmp_path).issue(forged_csr(p256_key(), p256_key()), "dev-1")

    def test_a_request_changed_after_it_was_signed_is_refused(self, tmp_path: Path) -> None:
        request = csr_object(p256_key(), "aaaaaaaa")
        changed = request.public_bytes(serialization.Encoding.DER).replace(b"aaaaaaaa", b"bbbbbbbb")
        with pytest.raises(Refused, match="proves nothing"):
            authority(tmp_path).issue(pem(x509.load_der_x509_csr(changed)), "dev-1")

    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            (lambda: rsa.generate_private_key(65537, 1024), "2048"),
            (lambda: rsa.generate_private_key(3, 2048), "exponent"),
            (lambda: ec.generate_private_key(ec.SECP521R1()), "P-256 or P-384"),
            (lambda: ec.generate_private_key(ec.SECP256K1()), "P-256 or P-384"),
            (lambda: ec.generate_private_key(ec.SECP224R1()), "P-256 or P-384"),
            (lambda: dsa.generate_private_key(2048), "elliptic"),
        ],
    )
    def test_keys_of_other_kinds_are_refused(self, tmp_path: Path, key: Callable[[], PrivateKey], reason: str) -> None:
        with pytest.raises(Refused, match=reason):
            authority(tmp_path).issue(csr(key()), "dev-1")

    def test_an_edwards_key_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Refused, match="elliptic"):
            authority(tmp_path).issue(csr(ed25519.Ed25519PrivateKey.generate(), algorithm=None), "dev-1")

    def test_a_large_request_in_other_clothes_is_refused(self, tmp_path: Path) -> None:
        noise = base64.b64encode(bytes(12_000)).decode()
        with pytest.raises(Refused):
            authority(tmp_path).issue(
                f"-----BEGIN CERTIFICATE REQUEST-----\n{noise}\n-----END CERTIFICATE REQUEST-----", "d"
            )
