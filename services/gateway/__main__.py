"""The gateway as a process of its own; `ZDM_UPSTREAMS` says where the other services are."""

from collections.abc import Mapping

import structlog

from services.gateway.settings import GatewaySettings
from services.gateway.wiring import wire
from shared.runtime import begin, made, run, start
from shared.settings import Installation


async def main(environment: Mapping[str, str]) -> None:
    """Serve until cancelled."""
    installation, settings = Installation.load(environment), GatewaySettings.load(environment)
    async with begin(installation) as platform:
        structlog.contextvars.bind_contextvars(service="gateway")
        gateway = await made("gateway", lambda: wire(settings, platform))
        await run(installation, platform, [gateway.service], [gateway.site])


if __name__ == "__main__":
    start(main)
