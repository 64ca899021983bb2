"""Messages for devices: their envelope, and how many go to the broker at once."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from shared.messages.devices import DownRequested

# One publish on the control topic takes 512 KiB (docs/protocols.md 3); this leaves room for what is around.
BATCH_BYTES = 500 * 1024
BATCH_COUNT = 500
# Around each message: three lengths and a time.
_AROUND = 16


class Outgoing(NamedTuple):
    """A message ready to be handed to a device's session."""

    id: str
    device_id: str
    payload: bytes
    began_by: int | None = None  # ms: for a session that began then or before; None: for whichever there is

    @property
    def size(self) -> int:
        """What it takes of a batch, bytes."""
        return _AROUND + len(self.id.encode()) + len(self.device_id.encode()) + len(self.payload)


def outgoing(request: DownRequested, began_by: int | None = None) -> Outgoing:
    """The envelope of spec mqtt-device-protocol 5, the value as its own text."""
    key = orjson.dumps(request.key)
    payload = b'{"version":%d,"key":%b,"value":%b}' % (request.version, key, request.value.encode())
    return Outgoing(request.id, request.device_id, payload, began_by)


def batches(messages: Sequence[Outgoing]) -> Iterator[list[Outgoing]]:
    """In order, each within the limits of one publish; a message that exceeds them alone is alone."""
    batch: list[Outgoing] = []
    size = 0
    for message in messages:
        if batch and (size + message.size > BATCH_BYTES or len(batch) == BATCH_COUNT):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += message.size
    if batch:
        yield batch
