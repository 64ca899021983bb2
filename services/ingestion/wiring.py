"""What ingestion is made of."""

from prometheus_client import REGISTRY as PROMETHEUS

from services.ingestion.adapters.broker import DownLink
from services.ingestion.adapters.counters import BrokerCollector
from services.ingestion.adapters.patient_log import PatientAppends
from services.ingestion.adapters.spool import SpoolFolder
from services.ingestion.domain.use_cases.follow_moves import FollowMoves
from services.ingestion.domain.use_cases.hand_down import HandDown
from services.ingestion.domain.use_cases.take_in import TakeIn
from services.ingestion.entrypoints.down import Down
from services.ingestion.entrypoints.moves import Moves
from services.ingestion.entrypoints.up import Up
from services.ingestion.settings import IngestionSettings
from shared.broker_control import BrokerControl
from shared.brokers import Broker
from shared.service import Platform, Service, Worker


async def wire(settings: IngestionSettings, platform: Platform) -> Service:
    """A bridge between the broker's spool and the log, and back."""
    broker = Broker(platform.home, settings.broker)
    spool = SpoolFolder(broker.spool, settings.block_bytes)
    log, down_log = PatientAppends(platform.log), PatientAppends(platform.log)
    up = Up(spool, TakeIn(spool, log, platform.registry, platform.clock), platform.registry)
    link = DownLink(BrokerControl("zdm-ingestion", broker))
    hand_down = HandDown(link, down_log, platform.clock, alone=settings.alone)
    down = Down(platform.log, broker.group, spool, link, hand_down)
    workers = [Worker("ingestion-up", up.run), Worker("ingestion-down", down.run)]
    if not settings.alone:
        moves = Moves(platform.log, broker.group, spool, FollowMoves(link))
        workers.append(Worker("ingestion-moves", moves.run))
    collector = BrokerCollector(broker.counters, spool)
    PROMETHEUS.register(collector)

    async def close() -> None:
        PROMETHEUS.unregister(collector)

    return Service(
        "ingestion",
        workers=workers,
        ready={"spool": spool.waiting_for, "log": log.waiting_for, "broker": link.waiting_for},
        close=close,
    )
