"""Opens the log that an address names."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from shared.log import Log
from shared.log.sqlite import sqlite_log
from shared.settings import WrongSetting


def open_log(address: str, partitions: int = 6, replication: int = 1) -> AbstractAsyncContextManager[Log]:
    """`sqlite:PATH` or `kafka://host:port`; raise `WrongSetting` for anything else.

    Kafka makes topics that are missing with so many partitions and copies.
    """
    scheme, _, rest = address.partition(":")
    match scheme:
        case "sqlite":
            return sqlite_log(Path(rest))
        case "kafka":
            # Here, so that who has no Kafka need not hold its driver in memory.
            from shared.log.kafka import kafka_log

            return kafka_log(address, partitions, replication)
    raise WrongSetting([f"ZDM_LOG: there is no log for addresses of {scheme!r}; there are sqlite: and kafka:"])
