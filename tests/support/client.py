"""The public Python client of the original in a process of its own, and what it is told and says."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.system import ROOT

PYTHON = ROOT / ".venv-client/bin/python"
SCRIPT = Path(__file__).with_name("public_client.py")


@asynccontextmanager
async def client(folder: Path, credential: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """The client's process, which reads commands and prints events, a JSON object a line."""
    document = folder / "zdevice.json"
    document.write_text(json.dumps(credential))
    process = await asyncio.create_subprocess_exec(
        PYTHON, "-P", SCRIPT, document, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(20):
            await process.wait()


async def say(process: asyncio.subprocess.Process, **command: Any) -> None:
    """Tell it what to do."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(command).encode() + b"\n")
    await process.stdin.drain()


async def heard(process: asyncio.subprocess.Process, event: str) -> Any:
    """The value of the next `event`."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while line := await process.stdout.readline():
            said = json.loads(line)
            if said["event"] == event:
                return said.get("value")
    raise AssertionError(f"the client ended before it said {event}")
