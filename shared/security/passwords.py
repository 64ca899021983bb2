"""Passwords: argon2id, in a thread, a bounded number at once."""

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

_AT_ONCE = 2
# One of the settings that OWASP recommends as equal; the one that suits a machine with little memory.
_MEMORY_KIB = 19 * 1024
_PASSES = 2
_LANES = 1


class Passwords:
    """Hashes and checks. Each costs some 30 ms of a core and 19 MiB, hence the bound."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY_KIB, parallelism=_LANES)
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._nobodys = ""

    async def hash(self, password: str) -> str:
        """What is kept of a password."""
        async with self._room:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether `kept` is of `password`; None (no such account) takes as long and is never right."""
        # Made with the first check of all, whatever it is about.
        self._nobodys = self._nobodys or await self.hash("nobody has this password")
        async with self._room:
            right = await asyncio.to_thread(self._matches, kept or self._nobodys, password)
        return right and kept is not None

    def _matches(self, kept: str, password: str) -> bool:
        try:
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False
