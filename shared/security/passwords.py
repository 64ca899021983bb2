"""Passwords: argon2id with the library's recommended cost, in a thread, a bounded number at once."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_AT_ONCE = 2


class Passwords:
    """Hashes and checks. Each check costs some 50 ms and 64 MiB, hence the bound."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """What is kept of a password."""
        async with self._room:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether `kept` is of `password`; None (no such account) takes as long and is never right."""
        if kept is None:
            self._nobody = self._nobody or await self.hash("nobody has this password")
        async with self._room:
            right = await asyncio.to_thread(self._matches, kept or self._nobody or "", password)
        return right and kept is not None

    def _matches(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False
