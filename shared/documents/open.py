"""Opens the document store that an address names."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from shared.documents import Documents
from shared.documents.sqlite import sqlite_documents
from shared.settings import WrongSetting


def open_documents(address: str) -> AbstractAsyncContextManager[Documents]:
    """`sqlite:PATH`; raise `WrongSetting` for anything else."""
    scheme, _, rest = address.partition(":")
    if scheme != "sqlite":
        raise WrongSetting(
            [f"ZDM_DOCUMENTS: this version has no store for addresses of {scheme!r}; it has sqlite:PATH"]
        )
    return sqlite_documents(Path(rest))
