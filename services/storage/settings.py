"""What storage is told."""

from pydantic import Field

from shared.settings import Settings


class StorageSettings(Settings):
    """How long data is kept."""

    retention_days: int = Field(90, alias="ZDM_RETENTION_DAYS", ge=1, le=36500)
