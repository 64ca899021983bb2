"""REST as the first account of this machine's installation, for the demo and for trying things out."""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp

_READY_S = 60


class Api:
    """REST as the first account."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self._headers: dict[str, str] = {}

    async def login(self, email: str, password: str) -> None:
        """Open a session."""
        answer = await self.call("POST", "/v3/auth/login", {"email": email, "password": password})
        self._headers = {"Authorization": f"Bearer {answer['token']}"}

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a success; end the program with what went wrong otherwise."""
        async with self._http.request(method, path, json=body, headers=self._headers) as answer:
            content = await answer.json()
            if answer.status != 200:
                sys.exit(f"{method} {path}: {content['message']}")
            return content

    async def ready(self) -> None:
        """Wait until the system can take work."""
        for _ in range(_READY_S * 5):
            with suppress(aiohttp.ClientError):
                async with self._http.get("/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.2)
        sys.exit(f"The system was not ready within {_READY_S} s")


def first_login(environment: Mapping[str, str]) -> tuple[str, str]:
    """E-mail and password of the first account."""
    email = environment.get("ZDM_ADMIN_EMAIL") or "admin@localhost"
    if password := environment.get("ZDM_ADMIN_PASSWORD"):
        return email, password
    text = (Path(environment.get("ZDM_HOME") or "var") / "first-login.txt").read_text()
    words = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    return words["email"], words["password"]


def base_url(environment: Mapping[str, str]) -> str:
    """Where the installation's REST is: `ZDM_URL`, or on this machine."""
    return environment.get("ZDM_URL") or f"http://127.0.0.1:{environment.get('ZDM_HTTP_PORT') or 8080}"
