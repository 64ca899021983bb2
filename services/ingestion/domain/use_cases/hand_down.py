"""Messages for devices: from the log to the broker, which hands them to sessions or notes that a device is away."""

from base64 import b64encode
from collections.abc import Sequence

from services.ingestion.domain.messages import BATCH_BYTES, Outgoing, batches, outgoing
from services.ingestion.domain.ports import Broker, PatientLog
from shared.clock import Clock
from shared.errors import Refused
from shared.log import Record, StoredRecord
from shared.messages.devices import DownRequested, Rejected
from shared.messages.topics import DOWN, rejected

# By so much the clocks of a broker and of whoever requests may differ.
TOLERANCE_MS = 1000
_LATEST = 2**64 - 1

MALFORMED = "malformed"
TOO_LARGE = "too_large"


class HandDown:
    """Each message once or, after a crash, again; what cannot be sent at all is set aside.

    Where there are several brokers (not `alone`) each is given every message, perhaps long after the others: there, a
    message is for the session that there was when it was requested. One that began later has no claim to it: the
    device had one elsewhere then, whose broker sees to it, or none.
    """

    def __init__(self, broker: Broker, log: PatientLog, clock: Clock, *, alone: bool = True) -> None:
        self._broker = broker
        self._alone = alone
        self._log = log
        self._clock = clock

    async def __call__(self, records: Sequence[StoredRecord]) -> list[str]:
        """Hand over all of `records`, in order; the reasons of those that were set aside."""
        refused: list[Rejected] = []
        messages: list[Outgoing] = []
        for record in records:
            message = self._message(record)
            if isinstance(message, Rejected):
                refused.append(message)
            else:
                messages.append(message)
        for batch in batches(messages):
            refused += await self._sent(batch)
        if refused:
            await self._log.append({rejected(DOWN): [_record(refusal) for refusal in refused]})
        return [refusal.reason for refusal in refused]

    def _message(self, record: StoredRecord) -> Outgoing | Rejected:
        try:
            request = DownRequested.decode(record.value or b"")
            message = outgoing(request, self._began_by(request))
        except Refused as refusal:
            return self._refusal(
                f"{DOWN.name}-{record.partition}-{record.offset}",
                record.key,
                MALFORMED,
                refusal.message,
                record.value or b"",
            )
        if message.size > BATCH_BYTES:
            return self._refusal(
                message.id, message.device_id, TOO_LARGE, "More than one publish takes", message.payload
            )
        return message

    def _began_by(self, request: DownRequested) -> int | None:
        return None if self._alone else min(max(0, request.version + TOLERANCE_MS), _LATEST)

    async def _sent(self, batch: list[Outgoing]) -> list[Rejected]:
        """Those of `batch` that the broker calls malformed, found by sending each alone."""
        if await self._broker.send(batch):
            return []
        if len(batch) == 1:
            (one,) = batch
            return [self._refusal(one.id, one.device_id, MALFORMED, "The broker refuses it", one.payload)]
        return [refusal for message in batch for refusal in await self._sent([message])]

    def _refusal(self, identifier: str, device_id: str, reason: str, message: str, payload: bytes) -> Rejected:
        return Rejected(
            id=identifier,
            device_id=device_id,
            reason=reason,
            message=message,
            topic=DOWN.name,
            at=self._clock.ms(),
            payload_base64=b64encode(payload).decode(),
        )


def _record(refusal: Rejected) -> Record:
    return refusal.record(refusal.device_id)
