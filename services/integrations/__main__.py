"""Integrations as a process of its own."""

from services.integrations.settings import IntegrationsSettings
from services.integrations.wiring import wire
from shared.runtime import run_alone

if __name__ == "__main__":
    run_alone("integrations", IntegrationsSettings, wire)
