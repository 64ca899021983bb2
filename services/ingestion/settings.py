"""What ingestion is told."""

from pydantic import Field

from shared.settings import Settings


class IngestionSettings(Settings):
    """How much it takes at once."""

    # More a batch is cheaper a message, and holds up the others in the process for longer: 128 KiB are some 5 ms.
    block_bytes: int = Field(128 * 1024, alias="ZDM_INGESTION_BLOCK_BYTES", ge=4096, le=4 * 1024 * 1024)
