"""Noting who is connected."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from services.provisioning.domain.ports import Presences
from services.provisioning.domain.presence import Presence
from shared.messages.devices import PresenceChanged
from shared.registry import Registry


class NotePresence:
    """Takes in what brokers say of sessions. Order and repetition do not matter."""

    def __init__(self, presences: Presences, registry: Registry) -> None:
        self._presences = presences
        self._registry = registry

    async def __call__(self, said: Sequence[PresenceChanged]) -> None:
        """One read and one write for all of them."""
        await self._note_boots(said)
        by_device: defaultdict[str, list[PresenceChanged]] = defaultdict(list)
        for one in said:
            if one.kind != "broker_started":
                by_device[one.device_id].append(one)
        await self._note_sessions({device: by_device[device] for device in await self._known(by_device)})

    async def _note_boots(self, said: Sequence[PresenceChanged]) -> None:
        # A session tells as well that its broker has started.
        heard: dict[str, int] = {}
        for one in said:
            heard[one.spool] = max(one.boot, heard.get(one.spool, 0))
        known = await self._presences.boots()
        newer = {spool: boot for spool, boot in heard.items() if boot > known.get(spool, 0)}
        if newer:
            await self._presences.put_boots(newer)

    async def _known(self, devices: Iterable[str]) -> list[str]:
        """Those that there are: what a deleted device's end adds would stay for ever."""
        found = [device for device in devices if self._registry.device(device) is not None]
        if len(found) == len(set(devices)):
            return found
        await self._registry.settled()
        return [device for device in devices if self._registry.device(device) is not None]

    async def _note_sessions(self, said: dict[str, list[PresenceChanged]]) -> None:
        known = await self._presences.get_many(list(said))
        changed = []
        for device, changes in said.items():
            before = after = known.get(device, Presence(device, changes[0].spool))
            for change in changes:
                after = after.after(change)
            if after is not before:
                changed.append(after)
        if changed:
            await self._presences.put(changed)
