"""Key material and tokens of devices."""

import base64
import secrets

import jwt
from cryptography.hazmat.primitives import serialization

from services.provisioning.adapters.x509 import key_pem, new_key
from services.provisioning.domain.credentials import CLOUD_TOKEN_EXPIRY, DeviceKey, NewKey

_SYMMETRIC_BYTES = 32


class RandomKeymaker:
    """See `ports.Keymaker`."""

    def symmetric(self) -> NewKey:
        """See the port."""
        text = base64.b64encode(secrets.token_bytes(_SYMMETRIC_BYTES)).decode()
        return NewKey("HS256", text, text)

    def asymmetric(self) -> NewKey:
        """See the port. The private key leaves as base64 of PEM, as the Python client wants it (spec: M1)."""
        key = new_key()
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return NewKey("ES256", base64.b64encode(public).decode(), base64.b64encode(key_pem(key)).decode())

    def cloud_token(self, key: DeviceKey) -> str:
        """See the port."""
        claims = {"sub": key.device_id, "user": key.device_id, "key": key.number, "exp": CLOUD_TOKEN_EXPIRY}
        return jwt.encode(claims, base64.b64decode(key.key_base64), algorithm="HS256")
