"""CPU and memory of processes, from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of CPU, user and system, that the process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f"process {pid} shows no VmRSS")


@dataclass
class Meter:
    """CPU that a process uses from the moment this was made."""

    pid: int

    def __post_init__(self) -> None:
        self._began = cpu_s(self.pid)

    def used_s(self) -> float:
        """Seconds since the beginning."""
        return cpu_s(self.pid) - self._began
