"""What provisioning is told."""

from pydantic import Field

from shared import brokers
from shared.settings import BrokerNames, Port, PortOrOff, Settings


class ProvisioningSettings(Settings):
    """What goes into certificates and credentials, and who must know of devices."""

    public_host: str = Field("localhost", alias="ZDM_PUBLIC_HOST", pattern=r"^[A-Za-z0-9.:-]+$")
    token_port: Port = Field(8884, alias="ZDM_MQTT_TOKEN_PORT")
    plain_port: PortOrOff = Field(None, alias="ZDM_MQTT_PLAIN_PORT")
    device_certificate_days: int = Field(3650, alias="ZDM_DEVICE_CERTIFICATE_DAYS", ge=1, le=9000)
    brokers: BrokerNames = Field((brokers.DEFAULT,), alias="ZDM_BROKERS")
    api_keys_make_workspaces: bool = Field(False, alias="ZDM_API_KEYS_MAKE_WORKSPACES")
