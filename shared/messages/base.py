"""What all records have in common."""

from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import Refused
from shared.log import Record


class Message(BaseModel):
    """A record's value as JSON. Members that a later version adds are ignored by this one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Raise `Refused` when `value` is no such message."""
        try:
            return cls.model_validate_json(value)
        except ValidationError as error:
            raise Refused(f"not a {cls.__name__}: {error}") from error

    def encode(self) -> bytes:
        """UTF-8 JSON."""
        return self.model_dump_json().encode()

    def record(self, key: str) -> Record:
        """This message, ready to append."""
        return Record(key, self.encode())
