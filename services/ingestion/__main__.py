"""Ingestion as a process of its own."""

from services.ingestion.settings import IngestionSettings
from services.ingestion.wiring import wire
from shared.runtime import run_alone

if __name__ == "__main__":
    run_alone("ingestion", IngestionSettings, wire)
