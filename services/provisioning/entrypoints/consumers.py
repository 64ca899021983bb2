"""What provisioning hears of accounts and of sessions, and the look for what is untold."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import TypeVar

import structlog

from services.provisioning.domain.use_cases.note_presence import NotePresence
from services.provisioning.domain.use_cases.tell_anew import TellAnew
from services.provisioning.domain.use_cases.tell_the_rest import TellTheRest
from services.provisioning.domain.use_cases.workspaces import ManageWorkspaces
from services.provisioning.metrics import PRESENCE, REFUSED, UNTOLD
from shared.errors import Refused
from shared.log import Log, StoredRecord, Topic
from shared.messages.base import Message
from shared.messages.devices import PresenceChanged
from shared.messages.registry import AccountOpened
from shared.messages.topics import ACCOUNTS
from shared.messages.topics import PRESENCE as PRESENCE_TOPIC
from shared.registry import Registry

logger = structlog.get_logger()

_GROUP = "provisioning"
_BATCH = 5000
_TELL_EVERY_S = 10.0

M = TypeVar("M", bound=Message)


async def consume_accounts(log: Log, workspaces: ManageWorkspaces) -> None:
    """Give each account its first workspace. For ever."""
    async with log.subscribe(ACCOUNTS, _GROUP) as records:
        while True:
            batch = await records.fetch()
            for opened in _messages(ACCOUNTS, AccountOpened, batch):
                await workspaces.ensure_default(opened.id)
            await records.commit(batch)


async def consume_presence(log: Log, registry: Registry, note: NotePresence) -> None:
    """Note sessions. For ever."""
    await registry.ready.wait()
    async with log.subscribe(PRESENCE_TOPIC, _GROUP) as records:
        while True:
            batch = await records.fetch(_BATCH)
            said = list(_messages(PRESENCE_TOPIC, PresenceChanged, batch))
            await note(said)
            await records.commit(batch)
            for one in said:
                PRESENCE.labels(one.kind).inc()


async def tell_periodically(tell_anew: TellAnew, tell_the_rest: TellTheRest) -> None:
    """At the start, and now and then. For ever."""
    while True:
        if await tell_anew():
            logger.info("everything_told")
        UNTOLD.set(await tell_the_rest.backlog())
        await tell_the_rest()
        await asyncio.sleep(_TELL_EVERY_S)


def _messages(topic: Topic, kind: type[M], records: Sequence[StoredRecord]) -> Iterator[M]:
    """Those that can be read. The others hold nothing that a device sent: counted, logged and passed over."""
    for record in records:
        if record.value is None:
            continue
        try:
            yield kind.decode(record.value)
        except Refused as refusal:
            REFUSED.labels(topic.name).inc()
            logger.error("record_refused", topic=topic.name, key=record.key, reason=refusal.message)
