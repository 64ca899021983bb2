"""A disk that is soon full."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MIB = 1024 * 1024
_SHARED_MEMORY = Path("/dev/shm")
_SMALL = 1024 * MIB


class SmallDisk:
    """A folder on a file system of its own; `fill` takes what room there is, `free` gives it back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leave: int = 0) -> None:
        """Leave about `leave` bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            while (room := self._room() - leave) > 0:
                try:
                    file.write(bytes(min(room, MIB)))
                except OSError:
                    return

    def free(self) -> None:
        """As it was before."""
        self._ballast.unlink(missing_ok=True)

    def _room(self) -> int:
        about = os.statvfs(self.folder)
        return about.f_bavail * about.f_frsize


@contextmanager
def small_disk(parent: Path, size: int = 64 * MIB) -> Iterator[SmallDisk]:
    """A disk in memory, mounted in `parent`; where that is not allowed, a container's own shared memory."""
    folder = parent / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode == 0:
        try:
            yield SmallDisk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    about = os.statvfs(_SHARED_MEMORY)
    if about.f_blocks * about.f_frsize > _SMALL:
        pytest.skip("needs root to mount a small disk, or a container's small /dev/shm")
    with tempfile.TemporaryDirectory(dir=_SHARED_MEMORY) as shared:
        yield SmallDisk(Path(shared))
