"""Presence: from what brokers say to whether a device is connected. Safe in any order across devices, and to repeat."""

from collections.abc import Sequence

from services.provisioning.domain.ports import Presences
from services.provisioning.domain.things import Presence
from shared.messages.devices import PresenceChanged


class FollowPresence:
    """Takes batches of records."""

    def __init__(self, presences: Presences) -> None:
        self._presences = presences

    async def __call__(self, changes: Sequence[PresenceChanged]) -> None:
        """Apply them in order, each device's presence read and written once."""
        of_devices = [change for change in changes if change.kind != "broker_started"]
        await self._devices(of_devices)
        for change in changes:
            if change.kind == "broker_started":
                await self._started(change)

    async def _devices(self, changes: Sequence[PresenceChanged]) -> None:
        if not changes:
            return
        known = dict(await self._presences.get_many(list({change.device_id for change in changes})))
        boots = {spool: await self._presences.boot(spool) for spool in {change.spool for change in changes}}
        before = dict(known)
        for change in changes:
            presence = _applied(known[change.device_id], change)
            known[change.device_id] = presence.gone_with(change.spool, boots[change.spool], change.at)
        await self._presences.put_many([one for one in known.values() if one is not before[one.id]])

    async def _started(self, change: PresenceChanged) -> None:
        if change.boot <= await self._presences.boot(change.spool):
            return
        await self._presences.booted(change.spool, change.boot)
        connected = await self._presences.connected_at(change.spool)
        gone = [(one, one.gone_with(change.spool, change.boot, change.at)) for one in connected]
        await self._presences.put_many([now for before, now in gone if now is not before])


def _applied(presence: Presence, change: PresenceChanged) -> Presence:
    if change.kind == "connected":
        return presence.began(change.spool, change.boot, change.session, change.at, change.remote_address)
    return presence.ended(change.spool, change.session, change.at)
