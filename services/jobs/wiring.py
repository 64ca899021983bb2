"""What the jobs service is made of."""

from services.jobs.adapters.statuses import KeptStatuses
from services.jobs.domain.use_cases.hear_devices import HearDevices
from services.jobs.entrypoints.devices import Forgetting, Hearing
from services.jobs.entrypoints.http import Handlers, routes
from services.jobs.settings import JobsSettings
from shared.service import Platform, Service, Worker


async def wire(_settings: JobsSettings, platform: Platform) -> Service:
    """Device status and the requests of devices."""
    statuses = await KeptStatuses.open(platform.documents)
    hear = HearDevices(statuses, platform.log, platform.registry, platform.clock)
    hearing = Hearing(platform.log, platform.registry, hear, platform.clock)
    forgetting = Forgetting(platform.log, platform.registry, statuses)
    return Service(
        "jobs",
        routes=routes(Handlers(statuses)),
        workers=[Worker("jobs-hear", hearing.run), Worker("jobs-forget", forgetting.run)],
    )
