"""The embedded profile: every service in one process and one event loop, sharing log, documents and registry."""

from collections.abc import Mapping

from services.gateway.domain.use_cases.first_account import FIRST_LOGIN
from services.gateway.settings import GatewaySettings
from services.gateway.wiring import wire as wire_gateway
from services.ingestion.settings import IngestionSettings
from services.ingestion.wiring import wire as wire_ingestion
from services.integrations.settings import IntegrationsSettings
from services.integrations.wiring import wire as wire_integrations
from services.jobs.settings import JobsSettings
from services.jobs.wiring import wire as wire_jobs
from services.provisioning.settings import ProvisioningSettings
from services.provisioning.wiring import wire as wire_provisioning
from services.storage.settings import StorageSettings
from services.storage.wiring import wire as wire_storage
from shared.runtime import begin, run, start
from shared.settings import Installation


async def main(environment: Mapping[str, str]) -> None:
    """Serve and work until cancelled."""
    # All of them first: what is wrong stops the start before anything is made.
    installation, gateway = Installation.load(environment), GatewaySettings.load(environment)
    provisioning, ingestion = ProvisioningSettings.load(environment), IngestionSettings.load(environment)
    jobs, storage = JobsSettings.load(environment), StorageSettings.load(environment)
    integrations = IntegrationsSettings.load(environment)
    async with begin(installation) as platform:
        others = [
            await wire_provisioning(provisioning, platform),
            await wire_ingestion(ingestion, platform),
            await wire_jobs(jobs, platform),
            await wire_storage(storage, platform),
            await wire_integrations(integrations, platform),
        ]
        door = await wire_gateway(gateway, platform, [route for service in others for route in service.routes])
        greeting = f"zDeviceManager is ready: http://localhost:{gateway.http_port}/docs"
        if (note := platform.home / FIRST_LOGIN).exists():
            greeting += f"\nFirst login: {note}"
        await run(installation, platform, [door.service, *others], [door.site], greeting=greeting)


if __name__ == "__main__":
    start(main)
