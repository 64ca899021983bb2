"""Whether a device is connected: the newest session that began, the newest that ended, and the broker's last start.

Sequence numbers of one spool only rise, so "newest" does not depend on the order in which records arrive, and
hearing one again changes nothing.
"""

from dataclasses import dataclass, replace

from shared.messages.devices import PresenceChanged


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of one device's sessions in one spool. Times are ms since 1970, 0 for never."""

    device_id: str
    spool: str
    boot: int = 0  # of the newest session that began
    session: int = 0
    ended: int = 0  # the newest session that ended
    connected_at: int = 0
    seen_at: int = 0
    remote_address: str = ""
    credential: str = ""

    def after(self, said: PresenceChanged) -> "Presence":
        """With what `said` adds."""
        if said.spool != self.spool:
            # Another broker has the device now, or had it before; only a session that begins later tells.
            moved = said.kind == "connected" and said.at > self.connected_at
            return Presence(self.device_id, said.spool).after(said) if moved else self
        seen_at = max(self.seen_at, said.at)
        if said.kind == "connected" and said.session > self.session:
            return replace(
                self,
                boot=said.boot,
                session=said.session,
                connected_at=said.at,
                seen_at=seen_at,
                remote_address=said.remote_address,
                credential=said.credential,
            )
        if said.kind == "disconnected" and said.session > self.ended:
            return replace(self, ended=said.session, seen_at=seen_at)
        return self

    def is_connected(self, newest_boot: int) -> bool:
        """Given the newest start of the broker that writes this spool: sessions of earlier ones died with it."""
        return self.session > self.ended and self.boot >= newest_boot
