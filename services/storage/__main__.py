"""Storage as a process of its own."""

from services.storage.settings import StorageSettings
from services.storage.wiring import wire
from shared.runtime import run_alone

if __name__ == "__main__":
    run_alone("storage", StorageSettings, wire)
