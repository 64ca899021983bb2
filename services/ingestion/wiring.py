"""What ingestion is made of."""

from prometheus_client import REGISTRY as PROMETHEUS

from services.ingestion.adapters.broker import DownLink
from services.ingestion.adapters.counters import BrokerCollector
from services.ingestion.adapters.patient_log import PatientAppends
from services.ingestion.adapters.spool import SpoolFolder
from services.ingestion.domain.use_cases.hand_down import HandDown
from services.ingestion.domain.use_cases.take_in import TakeIn
from services.ingestion.entrypoints.down import Down
from services.ingestion.entrypoints.up import Up
from services.ingestion.settings import IngestionSettings
from shared.broker_control import BrokerControl
from shared.service import Platform, Service, Worker


async def wire(settings: IngestionSettings, platform: Platform) -> Service:
    """A bridge between the broker's spool and the log, and back."""
    spool = SpoolFolder(platform.home / "spool", settings.block_bytes)
    log, down_log = PatientAppends(platform.log), PatientAppends(platform.log)
    up = Up(spool, TakeIn(spool, log, platform.registry, platform.clock), platform.registry)
    link = DownLink(BrokerControl("zdm-ingestion", platform.home))
    down = Down(platform.log, spool, link, HandDown(link, down_log, platform.clock))
    collector = BrokerCollector(platform.home / "broker" / "counters", spool)
    PROMETHEUS.register(collector)

    async def close() -> None:
        PROMETHEUS.unregister(collector)

    return Service(
        "ingestion",
        workers=[Worker("ingestion-up", up.run), Worker("ingestion-down", down.run)],
        ready={"spool": spool.waiting_for, "log": log.waiting_for, "broker": link.waiting_for},
        close=close,
    )
