"""What storage is made of."""

from functools import partial

from services.storage.adapters.store import open_store
from services.storage.domain.use_cases.keep_points import KeepPoints
from services.storage.entrypoints.consumer import consume_data, consume_registry
from services.storage.entrypoints.http import Handlers, routes
from services.storage.settings import StorageSettings
from shared.security.tenancy import Tenancy
from shared.service import Platform, Service, Worker


async def wire(settings: StorageSettings, platform: Platform) -> Service:
    """Ready to take data."""
    points = await open_store(platform.documents, settings.retention_days)
    return Service(
        "storage",
        routes=routes(Handlers(points, Tenancy(platform.registry))),
        workers=[
            Worker("storage-data", partial(consume_data, platform.log, KeepPoints(points, platform.registry))),
            Worker("storage-deletions", partial(consume_registry, platform.log, points)),
        ],
    )
