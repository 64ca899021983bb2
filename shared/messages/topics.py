"""Every topic there is. The number in the name rises when a record changes in a way old readers cannot take."""

from shared.log import Topic

_YEAR = 365 * 24 * 3600

DATA = Topic("zdm.data.v1")  # ingestion -> storage, integrations: DataReceived, by device
UP = Topic("zdm.up.v1")  # ingestion -> jobs: UpReceived, by device
DOWN = Topic("zdm.down.v1")  # jobs -> ingestion -> device: DownRequested, by device
HANDED = Topic("zdm.handed.v1")  # ingestion -> jobs: HandedOver, by device
PRESENCE = Topic(
    "zdm.presence.v1"
)  # ingestion -> provisioning: PresenceChanged, by device (broker starts: by spool id)
# One partition each: their readers rely on one order over all keys.
REGISTRY = Topic("zdm.registry.v1", compacted=True, partitions=1)  # provisioning -> all: RegistryEntry, by its id
ACCESS = Topic("zdm.access.v1", compacted=True, partitions=1)  # provisioning -> broker: AccessGranted, by device
ACCOUNTS = Topic("zdm.accounts.v1", compacted=True, partitions=1)  # gateway -> provisioning: AccountOpened, by account

TOPICS = (DATA, UP, DOWN, HANDED, PRESENCE, REGISTRY, ACCESS, ACCOUNTS)


def rejected(topic: Topic) -> Topic:
    """Where records meant for `topic` are set aside (Rejected, by the source's key)."""
    return Topic(f"{topic.name}.rejected", retention_s=30 * 24 * 3600)
