"""Posts batches to webhooks: the original's token header, and the signature of Standard Webhooks."""

import base64
import hashlib
import hmac
import secrets

from services.integrations.domain.integrations import Integration
from services.integrations.domain.ports import Sent
from shared.clock import Clock
from shared.outbound.client import Outbound

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_MASK = "********"


def new_secret() -> str:
    """`whsec_` and base64 of 32 random bytes (Standard Webhooks)."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


class Webhook:
    """See `Sink`."""

    def __init__(self, outbound: Outbound, clock: Clock) -> None:
        self._outbound = outbound
        self._clock = clock

    async def send(self, integration: Integration, message_id: str, content: bytes) -> Sent:
        """See the port."""
        headers = {"Content-Type": "application/json", "User-Agent": "zDeviceManager"}
        if integration.token:
            headers["X-Auth-Token"] = integration.token
        timestamp = str(self._clock.ms() // 1000)
        headers |= {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(integration.secret, message_id, timestamp, content),
        }
        answer = await self._outbound.post(integration.url, content, headers)
        # The answer is shown to people; a receiver may say there what it was sent.
        said = answer.body.replace(integration.token, _MASK) if integration.token else answer.body
        return Sent(answer.status, answer.retry_after_s, said)


def signature(secret: str, message_id: str, timestamp: str, content: bytes) -> str:
    """`v1,` and base64 of the HMAC-SHA256 over id, time and content (Standard Webhooks)."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + content
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
