"""Devices that go from one broker to another: the newest connection counts, as it does within one broker."""

from collections.abc import Sequence

from services.ingestion.domain.ports import Sessions
from shared.messages.devices import PresenceChanged


class FollowMoves:
    """Tells a broker of connections elsewhere. Order and repetition do not matter: the broker compares times."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def __call__(self, said: Sequence[PresenceChanged], spool: str) -> int:
        """How many devices have connected elsewhere. `spool`: this broker's own, which knows what it wrote."""
        connected_at: dict[str, int] = {}
        for one in said:
            if one.kind == "connected" and one.spool != spool:
                connected_at[one.device_id] = max(one.at, connected_at.get(one.device_id, 0))
        if connected_at:
            await self._sessions.moved(connected_at)
        return len(connected_at)
