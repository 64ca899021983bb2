"""Secrets that are made once and then kept in files that only their owner can read."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def load_or_create(path: Path, make: Callable[[], bytes]) -> bytes:
    """What is in `path`; when it is missing, what `make` returns, kept there first (mode 0600, folder 0700, on disk).

    Of several processes that start together one wins, and all return what it wrote.
    """
    with suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.") as draft:
        draft.write(make())
        draft.flush()
        os.fsync(draft.fileno())
        # Unlike a rename, a link never replaces what another process has put there meanwhile.
        with suppress(FileExistsError):
            os.link(draft.name, path)
    return path.read_bytes()


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Write `path` as a whole or not at all: a reader sees the old content or the new."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
