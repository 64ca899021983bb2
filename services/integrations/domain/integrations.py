"""Integrations: what is sent, where to (spec: integrations 1, 2)."""

from dataclasses import dataclass, field
from typing import Literal

from shared.messages.devices import DataReceived

Status = Literal["active", "disabled"]


@dataclass(frozen=True)
class Integration:
    """A webhook for data. Empty `tags` or `fleets` match all; both must match. `since`: source -> offset of the last
    record before its creation.
    """

    id: str
    workspace_id: str
    name: str
    status: Status
    url: str
    token: str = field(repr=False)
    secret: str = field(repr=False)  # whsec_…, signs what is sent
    tags: tuple[str, ...]
    fleets: tuple[str, ...]
    period_s: float
    created_at: str
    since: dict[str, int]

    @property
    def active(self) -> bool:
        """Whether it sends now."""
        return self.status == "active"

    def wants(self, point: DataReceived) -> bool:
        """Whether a point of its workspace is for it."""
        return (not self.tags or point.tag in self.tags) and (not self.fleets or point.fleet_id in self.fleets)
