"""Brokers by name: what they are called, and where each has its files.

A name is `broker`, or `broker-` and a few letters and digits that set the second and third apart: `broker-2`.
"""

from pathlib import Path
from typing import NamedTuple

DEFAULT = "broker"
# Beside `pki`, `secrets` and the others in $ZDM_HOME no such folder can mean anything else.
NAME = r"broker(-[a-z0-9]{1,20})?"


class Broker(NamedTuple):
    """One broker of the installation in `home`."""

    home: Path
    name: str = DEFAULT

    @property
    def folder(self) -> Path:
        """Control socket, secret of the services, snapshot and counters."""
        return self.home / self.name

    @property
    def spool(self) -> Path:
        """What it writes down, read by its ingestion: `spool`, `spool-2`."""
        return self.home / f"spool{self._suffix}"

    @property
    def group(self) -> str:
        """As what its ingestion reads topics: `ingestion`, `ingestion-2`. Stays when the spool is begun anew."""
        return f"ingestion{self._suffix}"

    @property
    def socket(self) -> Path:
        """Where our services reach it."""
        return self.folder / "control.sock"

    @property
    def secret(self) -> Path:
        """What they show there."""
        return self.folder / "service.key"

    @property
    def counters(self) -> Path:
        """What its plugin counts."""
        return self.folder / "counters"

    @property
    def _suffix(self) -> str:
        return self.name.removeprefix(DEFAULT)
