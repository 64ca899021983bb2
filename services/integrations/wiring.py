"""What integrations is made of."""

import socket
from functools import partial

import structlog

from services.integrations.adapters.store import open_store
from services.integrations.adapters.webhook import Webhook, new_secret
from services.integrations.domain.use_cases.deliver import Deliver
from services.integrations.domain.use_cases.directory import Directory
from services.integrations.domain.use_cases.enqueue import Enqueue
from services.integrations.domain.use_cases.manage import Manage
from services.integrations.domain.use_cases.sweep import Sweep
from services.integrations.domain.verdict import BackOff
from services.integrations.entrypoints.consumer import consume_data
from services.integrations.entrypoints.dispatcher import Dispatcher
from services.integrations.entrypoints.http import Handlers, routes
from services.integrations.settings import IntegrationsSettings
from shared.errors import Unavailable
from shared.outbound.client import Outbound
from shared.outbound.policy import OutboundPolicy
from shared.security.tenancy import Tenancy
from shared.service import Platform, Service, Worker

logger = structlog.get_logger()


async def wire(settings: IntegrationsSettings, platform: Platform) -> Service:
    """Ready to queue and to send."""
    clock, ids = platform.clock, platform.ids
    policy = OutboundPolicy(settings.outbound_allow, settings.outbound_deny)
    outbound = Outbound(policy, clock, settings.timeout_s)
    store, directory = await open_store(platform.documents, clock), Directory()
    manage = Manage(store.integrations, store.failures, directory, policy, platform.log, clock, ids, new_secret)
    enqueue = Enqueue(directory, store.queues)
    directory.on_gone(enqueue.forget)
    back_off = BackOff(settings.first_pause_s, settings.longest_pause_s)
    deliver = Deliver(
        store.queues, store.failures, Webhook(outbound, clock), back_off, clock, ids, settings.retention_days
    )
    sweep = Sweep(store.integrations, store.queues, platform.registry, clock)
    # The same after a crash, so that it has its lanes again at once; no other process's, for one has the port.
    me = f"{socket.gethostname()}:{settings.internal_port}"
    dispatcher = Dispatcher(directory, store, deliver, sweep, platform.registry, settings.at_once, me)

    async def close() -> None:
        await outbound.close()
        try:
            await store.members.leave(me)
        except Unavailable as error:
            logger.info("left_without_a_word", reason=error.message)

    return Service(
        "integrations",
        routes=routes(Handlers(manage, store.queues, Tenancy(platform.registry))),
        workers=[
            Worker("integrations-data", partial(consume_data, platform.log, enqueue, dispatcher)),
            Worker("dispatcher", dispatcher.run),
        ],
        ready={"queues": dispatcher.waiting_for},
        close=close,
    )
