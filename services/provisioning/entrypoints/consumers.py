"""What provisioning hears from the log: accounts that were opened, and presence."""

import structlog
from prometheus_client import Counter

from services.provisioning.domain.use_cases.presence import FollowPresence
from services.provisioning.domain.use_cases.workspaces import Workspaces
from shared.errors import Refused
from shared.log import Log, StoredRecord
from shared.messages.devices import PresenceChanged
from shared.messages.registry import AccountOpened
from shared.messages.topics import ACCOUNTS, PRESENCE

logger = structlog.get_logger()

GROUP = "provisioning"

_REFUSED = Counter("zdm_provisioning_records_refused_total", "Records that no rule could read", ["topic"])


async def consume_accounts(log: Log, workspaces: Workspaces) -> None:
    """Each account gets its first workspace. For ever."""
    async with log.subscribe(ACCOUNTS, GROUP) as records:
        while True:
            batch = await records.fetch()
            for record in batch:
                if record.value is not None:
                    await workspaces.make_first(AccountOpened.decode(record.value).id)
            await records.commit(batch)


async def consume_presence(log: Log, follow: FollowPresence) -> None:
    """For ever."""
    async with log.subscribe(PRESENCE, GROUP) as records:
        while True:
            batch = await records.fetch(2000)
            await follow([change for record in batch if (change := _presence(record)) is not None])
            await records.commit(batch)


def _presence(record: StoredRecord) -> PresenceChanged | None:
    try:
        return PresenceChanged.decode(record.value or b"")
    except Refused as refusal:
        # Ours wrote it: a fault to be found, and nothing of a device's that could be lost.
        _REFUSED.labels(PRESENCE.name).inc()
        logger.error("presence_record_refused", offset=record.offset, reason=str(refusal))
        return None
