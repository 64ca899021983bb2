"""What devices say on `j/up`: reports become status, requests are answered."""

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence

from services.jobs.domain.ports import Statuses
from services.jobs.domain.requests import KNOWN, answers_to, down
from services.jobs.domain.status import Entry, Status, is_state, merge
from shared.clock import Clock
from shared.errors import Unavailable
from shared.log import Log, Record
from shared.messages.devices import Rejected, UpReceived
from shared.messages.topics import DOWN, UP, rejected
from shared.registry import Registry

STATUS_FULL = "status_full"
# Each round saves what nobody else changed meanwhile; the others are read and decided again.
_ROUNDS = 10

Said = dict[str, list[UpReceived]]


class HearDevices:
    """Takes a batch at once: one load, one save, one append of the answers. Safe to repeat."""

    def __init__(self, statuses: Statuses, log: Log, registry: Registry, clock: Clock) -> None:
        self._statuses = statuses
        self._log = log
        self._registry = registry
        self._clock = clock

    async def __call__(self, ups: Sequence[UpReceived]) -> Counter[str]:
        """What the messages were, for the counters. Raise `Unavailable` or `OutOfSpace`: then repeat the batch."""
        said = await self._of_known_devices(ups)
        outcome = _Outcome(self._clock.ms())
        for _ in range(_ROUNDS):
            if not said:
                break
            said = await self._round(said, outcome)
        else:
            raise Unavailable("Others keep changing the same statuses")
        # Told even when nothing changed: an earlier attempt may have died between the two.
        await self._log.append(DOWN, outcome.downs())
        outcome.kinds["gone"] = len(ups) - sum(outcome.kinds.values())
        return outcome.kinds

    async def _of_known_devices(self, ups: Sequence[UpReceived]) -> Said:
        """By device; without those that were deleted meanwhile, whose status must not come back."""
        if any(up.device_id not in self._registry.devices for up in ups):
            await self._registry.settled()
        said: Said = {}
        for up in ups:
            if up.device_id in self._registry.devices:
                said.setdefault(up.device_id, []).append(up)
        return said

    async def _round(self, said: Said, outcome: "_Outcome") -> Said:
        """What is to be done again."""
        kept = await self._statuses.load(list(said))
        heard = {device_id: _Heard(kept[device_id], ups, outcome.now) for device_id, ups in said.items()}
        # Before the save: a message that is in the status is not looked at again.
        await self._log.append(rejected(UP), [record for one in heard.values() for record in one.refusals])
        changed = (one.status for device_id, one in heard.items() if one.status is not kept[device_id])
        lost = await self._statuses.save(changed)
        outcome.add(one for device_id, one in heard.items() if device_id not in lost)
        return {device_id: said[device_id] for device_id in lost}


class _Heard:
    """What the messages of one device, in their order, make of its status, and the answers."""

    def __init__(self, status: Status, ups: Iterable[UpReceived], now: int) -> None:
        self.status = status
        self.downs: list[Record] = []
        self.refusals: list[Record] = []
        self.kinds: Counter[str] = Counter()
        self._now = now
        for up in ups:
            self._hear(up)

    def _hear(self, up: UpReceived) -> None:
        if is_state(up.key):
            self._report(up)
        elif up.key.startswith("#"):
            answers = answers_to(up.key, self.status, self._now)
            self.downs += [message.record() for message in down(answers, up.id, up.device_id, self._now)]
            self.kinds[up.key if up.key in KNOWN else "unknown_request"] += 1
        else:
            self.kinds[up.key] += 1

    def _report(self, up: UpReceived) -> None:
        self.status, stored = merge(self.status, up.id, up.key, Entry(up.received_at, up.value))
        self.kinds["state" if stored else STATUS_FULL] += 1
        if not stored:
            self.refusals.append(_refusal(up).record(up.device_id))


class _Outcome:
    """Of all devices of a batch."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.kinds: Counter[str] = Counter()
        self._heard: list[_Heard] = []

    def add(self, heard: Iterable[_Heard]) -> None:
        """These are saved."""
        for one in heard:
            self._heard.append(one)
            self.kinds += one.kinds

    def downs(self) -> list[Record]:
        """Per device in order."""
        return [record for one in self._heard for record in one.downs]


def _refusal(up: UpReceived) -> Rejected:
    return Rejected(
        id=up.id,
        device_id=up.device_id,
        reason=STATUS_FULL,
        message=f"The device's status has no room for {up.key!r}",
        topic=UP.name,
        at=up.received_at,
        payload_base64=b64encode(up.value.encode()).decode(),
    )
