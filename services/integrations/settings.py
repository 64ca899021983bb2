"""What integrations is told."""

from pydantic import Field

from shared.settings import Networks, Port, Settings


class IntegrationsSettings(Settings):
    """Where webhooks may go, how long data waits for them, how patiently they are tried."""

    outbound_allow: Networks = Field((), alias="ZDM_OUTBOUND_ALLOW")
    outbound_deny: Networks = Field((), alias="ZDM_OUTBOUND_DENY")
    retention_days: int = Field(90, alias="ZDM_RETENTION_DAYS", ge=1, le=36500)
    timeout_s: float = Field(30.0, alias="ZDM_WEBHOOK_TIMEOUT_S", gt=0, le=300)
    first_pause_s: float = Field(1.0, alias="ZDM_WEBHOOK_FIRST_PAUSE_S", gt=0)
    longest_pause_s: float = Field(300.0, alias="ZDM_WEBHOOK_LONGEST_PAUSE_S", gt=0)
    at_once: int = Field(32, alias="ZDM_WEBHOOKS_AT_ONCE", ge=1, le=1000)
    internal_port: Port = Field(9090, alias="ZDM_INTERNAL_PORT")
