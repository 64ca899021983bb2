"""The jobs service as a process of its own."""

from services.jobs.settings import JobsSettings
from services.jobs.wiring import wire
from shared.runtime import run_alone

if __name__ == "__main__":
    run_alone("jobs", JobsSettings, wire)
