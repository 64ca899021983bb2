"""The way down: batches of messages on the broker's control topic, until it has taken them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from services.ingestion import metrics
from services.ingestion.domain.ports import Message
from shared import frames
from shared.broker_control import BrokerControl
from shared.errors import Refused, Unavailable
from shared.outage import Outage
from shared.tasks import pauses

T = TypeVar("T")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_DONE, _MALFORMED = 0, 2


class DownLink:
    """See `Broker` and `Sessions`."""

    def __init__(self, control: BrokerControl) -> None:
        self._control = control
        self._outage = Outage("broker")
        self._connecting = asyncio.Lock()

    def waiting_for(self) -> str:
        """Empty unless the broker is being tried again."""
        return self._outage.waiting_for()

    async def reach(self) -> None:
        """Wait until there is a connection."""
        if not self._control.connected:
            await self._patiently(self._connect)

    async def send(self, messages: Sequence[Message]) -> bool:
        """See the port."""
        downs = [frames.Down(message.id, message.device_id, message.payload, message.began_by) for message in messages]
        try:
            return await self._patiently(partial(self._send, downs))
        except Refused:
            return False

    async def moved(self, connected_at: Mapping[str, int]) -> None:
        """See the port."""
        devices = [frames.Moved(device_id, at) for device_id, at in connected_at.items()]
        await self._patiently(partial(self._asked, partial(frames.moved, devices=devices)))

    async def close(self) -> None:
        """End the connection."""
        await self._control.close()

    async def _send(self, downs: Sequence[frames.Down]) -> bool:
        answer = await self._asked(partial(frames.send, messages=downs))
        if isinstance(answer, frames.Sent) and answer.status in (_DONE, _MALFORMED):
            return answer.status == _DONE
        raise Unavailable(f"The broker did not hand over: {answer}")

    async def _asked(self, encode: Callable[[int], bytes]) -> frames.Answer:
        await self._connect()
        return await self._control.request(encode)

    async def _connect(self) -> None:
        # A second connection under the same name would throw the first one out.
        async with self._connecting:
            if not self._control.connected:
                await self._control.connect()

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        return await self._outage.outlast(attempt, pauses(_FIRST_PAUSE_S, _LONGEST_PAUSE_S), metrics.BROKER_WAITS.inc)
