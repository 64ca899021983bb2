"""Opens the log that an address names."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from shared.log import Log
from shared.log.sqlite import sqlite_log
from shared.settings import WrongSetting


def open_log(address: str) -> AbstractAsyncContextManager[Log]:
    """`sqlite:PATH`; raise `WrongSetting` for anything else."""
    scheme, _, rest = address.partition(":")
    if scheme != "sqlite":
        raise WrongSetting([f"ZDM_LOG: this version has no log for addresses of {scheme!r}; it has sqlite:PATH"])
    return sqlite_log(Path(rest))
