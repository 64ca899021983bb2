"""What the jobs service is told."""

from shared.settings import Settings


class JobsSettings(Settings):
    """Nothing yet beyond the installation."""
