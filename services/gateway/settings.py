"""What the gateway is told."""

from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr

from shared.settings import Networks, Port, Settings


def _upstreams(text: object) -> object:
    if not isinstance(text, str):
        return text
    pairs = [part.strip().split("=", 1) for part in text.split(",") if part.strip()]
    for pair in pairs:
        if len(pair) != 2 or not pair[1].startswith(("http://", "https://")):
            raise ValueError(f"must be name=url pairs separated by commas; {'='.join(pair)!r} is none")
    return dict(pairs)


class GatewaySettings(Settings):
    """Where it listens, the first account, and where the other services are when it is started alone."""

    http_host: str = Field("0.0.0.0", alias="ZDM_HTTP_HOST")  # noqa: S104 (the one door to the outside)
    http_port: Port = Field(8080, alias="ZDM_HTTP_PORT")
    # Reverse proxies in front of it: from them alone an `X-Forwarded-For` is believed.
    trusted_proxies: Networks = Field((), alias="ZDM_TRUSTED_PROXIES")
    admin_email: str = Field("admin@localhost", alias="ZDM_ADMIN_EMAIL", pattern=r"^[^@\s]+@[^@\s]+$")
    admin_password: SecretStr | None = Field(None, alias="ZDM_ADMIN_PASSWORD", min_length=8)
    session_days: int = Field(30, alias="ZDM_SESSION_DAYS", ge=1, le=365)
    # name=url, separated by commas
    upstreams: Annotated[dict[str, str], BeforeValidator(_upstreams)] = Field(
        default_factory=dict, alias="ZDM_UPSTREAMS"
    )
