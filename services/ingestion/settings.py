"""What ingestion is told."""

from pydantic import Field, ValidationInfo, field_validator

from shared import brokers
from shared.settings import BrokerName, BrokerNames, Settings


class IngestionSettings(Settings):
    """Whose spool it reads, which other brokers there are, and how much it takes at once."""

    broker: BrokerName = Field(brokers.DEFAULT, alias="ZDM_BROKER")
    brokers: BrokerNames = Field((brokers.DEFAULT,), alias="ZDM_BROKERS")
    # More a batch is cheaper a message, and holds up the others in the process for longer: 128 KiB are some 5 ms.
    block_bytes: int = Field(128 * 1024, alias="ZDM_INGESTION_BLOCK_BYTES", ge=4096, le=4 * 1024 * 1024)

    @field_validator("brokers")
    @classmethod
    def _its_own_is_one_of_them(cls, names: tuple[str, ...], others: ValidationInfo) -> tuple[str, ...]:
        own = others.data.get("broker")
        if own is not None and own not in names:
            raise ValueError(f"must name {own} too, which ZDM_BROKER says")
        return names

    @property
    def alone(self) -> bool:
        """Whether there is no other broker."""
        return self.brokers == (self.broker,)
