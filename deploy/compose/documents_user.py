"""Gives the services a user of their own in the database of the Compose installation; nothing when it has one."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from pymongo import MongoClient
from pymongo.errors import OperationFailure

from deploy.compose.secrets import DATABASE, HOST, address, root_password

_EXISTS = 51003
_PATIENCE_MS = 30_000


def main(home: Path) -> None:
    """Make it, or give it the password that the services have."""
    parts = urlsplit(address(home))
    with MongoClient[dict[str, object]](
        HOST,
        username="root",
        password=root_password(home),
        serverSelectionTimeoutMS=_PATIENCE_MS,
        timeoutMS=_PATIENCE_MS,
    ) as client:
        database = client[DATABASE]
        role = {"role": "readWrite", "db": DATABASE}
        try:
            database.command("createUser", parts.username, pwd=parts.password, roles=[role])
        except OperationFailure as error:
            if error.code != _EXISTS:
                raise
            database.command("updateUser", parts.username, pwd=parts.password)


if __name__ == "__main__":
    if os.environ.get("ZDM_DOCUMENTS"):
        sys.exit(0)  # a database of somebody else's
    main(Path(os.environ["ZDM_HOME"]))
