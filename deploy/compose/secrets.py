"""Makes the secrets of a Compose installation, once: the database's passwords, and the address that holds one."""

import os
import secrets
from pathlib import Path

from shared.security.secrets import load_or_create

DATABASE = "zdm"
USER = "zdm"
HOST = "mongo:27017"


def root_password(home: Path) -> str:
    """Of the database's administrator, whom only the container that makes the services' user knows."""
    return load_or_create(home / "database" / "root-password", _password).decode()


def address(home: Path) -> str:
    """Where the services find their documents: `mongodb://…` with their own user and password."""
    return load_or_create(home / "secrets" / "documents", _address).decode()


def _password() -> bytes:
    return secrets.token_hex(32).encode()


def _address() -> bytes:
    return f"mongodb://{USER}:{_password().decode()}@{HOST}/{DATABASE}".encode()


if __name__ == "__main__":
    folder = Path(os.environ["ZDM_HOME"])
    root_password(folder)
    address(folder)
