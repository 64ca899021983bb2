"""The load generator: devices over TLS that send at a fixed rate, in a process of its own.

Reads a JSON object from standard input (`credentials`, `rate`, `seconds`, `payload`), prints one with what it saw.
"""

import asyncio
import ssl
import sys
from time import process_time
from typing import Any

import orjson
import uvloop

from deploy.simulator.device import Device, tls_context

_WINDOW = 100
_TICK_S = 0.01
_LAST_ACK_S = 30


class Load:
    """All devices of the run. Sends as many as are due at each tick, round robin, and counts acknowledgements."""

    def __init__(self, devices: list[Device], rate: float, payload: bytes) -> None:
        self._devices = devices
        self._rate = rate
        self._payload = payload
        self._free = asyncio.Semaphore(_WINDOW * len(devices))
        self._waiting: set[asyncio.Task[None]] = set()
        self.acknowledged = 0
        self.failed = 0
        self.late_ms: list[float] = []

    async def run(self, seconds: float) -> float:
        """How long it took until the last acknowledgement."""
        loop = asyncio.get_running_loop()
        began, sent = loop.time(), 0
        while (elapsed := loop.time() - began) < seconds:
            for _ in range(int(elapsed * self._rate) - sent):
                await self._free.acquire()
                task = loop.create_task(self._send(self._devices[sent % len(self._devices)]))
                self._waiting.add(task)
                task.add_done_callback(self._waiting.discard)
                sent += 1
            await asyncio.sleep(_TICK_S)
        await asyncio.wait(self._waiting or {loop.create_task(asyncio.sleep(0))}, timeout=_LAST_ACK_S)
        return loop.time() - began

    async def _send(self, device: Device) -> None:
        began = asyncio.get_running_loop().time()
        try:
            await device.publish(f"j/data/{device.id}/env", self._payload)
            self.acknowledged += 1
            self.late_ms.append((asyncio.get_running_loop().time() - began) * 1000)
        except (ConnectionError, TimeoutError):
            self.failed += 1
        finally:
            self._free.release()


async def connect(credentials: list[dict[str, Any]]) -> list[Device]:
    """All connected, twenty at a time."""
    context: ssl.SSLContext = tls_context(credentials[0]["cacert"])
    gate = asyncio.Semaphore(20)

    async def one(credential: dict[str, Any]) -> Device:
        async with gate:
            return await Device.connect(credential, context=context)

    return list(await asyncio.gather(*(one(credential) for credential in credentials)))


async def main() -> None:
    """Run once."""
    order = orjson.loads(sys.stdin.buffer.read())
    devices = await connect(order["credentials"])
    load = Load(devices, order["rate"], orjson.dumps(order["payload"]))
    cpu = process_time()
    seconds = await load.run(order["seconds"])
    late = sorted(load.late_ms)
    report = {
        "acknowledged": load.acknowledged,
        "failed": load.failed,
        "seconds": seconds,
        "cpu_s": process_time() - cpu,
        "ack_ms_median": late[len(late) // 2],
        "ack_ms_p99": late[int(len(late) * 0.99)],
    }
    sys.stdout.buffer.write(orjson.dumps(report))


if __name__ == "__main__":
    uvloop.run(main())
