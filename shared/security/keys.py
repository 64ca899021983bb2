"""Secrets with full entropy (API keys, session tokens): kept as SHA-256 alone, compared in constant time.

A slow hash guards what people choose; 256 random bits need none.
"""

import hashlib
import hmac
import secrets
from typing import NamedTuple

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_PREFIX_LENGTH = 10
_SECRET_LENGTH = 64


class ApiKey(NamedTuple):
    """`prefix.secret` (spec: rest-v3 1.1): ten characters to find it by, sixty-four that nobody else knows."""

    prefix: str
    secret: str

    def __str__(self) -> str:
        return f"{self.prefix}.{self.secret}"

    @classmethod
    def new(cls) -> "ApiKey":
        """A key that nobody has."""
        return cls(_random(_PREFIX_LENGTH), _random(_SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> "ApiKey | None":
        """The two parts, if it looks like a key."""
        prefix, _, secret = text.partition(".")
        return cls(prefix, secret) if len(prefix) == _PREFIX_LENGTH and len(secret) == _SECRET_LENGTH else None


def new_token() -> str:
    """A session token: 256 bits."""
    return secrets.token_urlsafe(32)


def hashed(secret: str) -> str:
    """What is kept of a secret: SHA-256, hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def matches(secret: str, kept: str) -> bool:
    """Whether `kept` is the hash of `secret`."""
    return hmac.compare_digest(hashed(secret), kept)


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
