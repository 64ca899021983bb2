"""Opens the document store that an address names."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path

from shared.documents import Documents
from shared.documents.sqlite import sqlite_documents
from shared.settings import WrongSetting


def open_documents(address: str) -> AbstractAsyncContextManager[Documents]:
    """`sqlite:PATH`, `mongodb://…` or `mongodb+srv://…`; raise `WrongSetting` for anything else."""
    scheme, _, rest = address.partition(":")
    match scheme:
        case "sqlite":
            return sqlite_documents(Path(rest))
        case "mongodb" | "mongodb+srv":
            # Only where it is used: an edge box has better uses for the driver's memory.
            from shared.documents.mongo import mongo_documents

            return mongo_documents(address)
    raise WrongSetting([f"ZDM_DOCUMENTS: no store for addresses of {scheme!r}; there are sqlite:PATH and mongodb://…"])
