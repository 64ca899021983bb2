"""Provisioning as a process of its own."""

from services.provisioning.settings import ProvisioningSettings
from services.provisioning.wiring import wire
from shared.runtime import run_alone

if __name__ == "__main__":
    run_alone("provisioning", ProvisioningSettings, wire)
