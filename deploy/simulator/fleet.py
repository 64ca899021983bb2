"""A fleet of virtual fillers in a bottling plant: readings, a counter of bottles, and a new start after each cut."""

import asyncio
import math
import random
import ssl
from dataclasses import dataclass
from typing import Any

from deploy.simulator.device import ConnectionRefused, Device

_READING_EVERY_S = (1.0, 4.0)
_RETRY_S = (1.0, 5.0)


@dataclass
class Filler:
    """One machine: temperature and fill level wander, bottles are counted."""

    credential: dict[str, Any]
    context: ssl.SSLContext
    bottles: int = 0
    phase: float = 0.0

    async def run(self) -> None:
        """Send for ever, through every interruption."""
        while True:
            try:
                device = await Device.connect(self.credential, context=self.context)
                await self._work(device)
            except (OSError, ConnectionRefused, TimeoutError):
                await asyncio.sleep(random.uniform(*_RETRY_S))

    async def _work(self, device: Device) -> None:
        await device.subscribe()
        await device.up("#status", {})
        await device.up("__manifest", {"jobs": ["set_speed", "reset"], "conditions": ["overheating"]})
        while True:
            await device.data("env", self._reading())
            self.bottles += random.randint(0, 5)
            await device.data("production", {"bottles": self.bottles})
            await asyncio.sleep(random.uniform(*_READING_EVERY_S))

    def _reading(self) -> dict[str, float]:
        self.phase += 0.1
        temperature = 21 + 4 * math.sin(self.phase) + random.gauss(0, 0.2)
        return {"temp": round(temperature, 2), "level": round(random.uniform(40, 95), 1)}
