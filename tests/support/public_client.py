"""Drives the public Python client: commands come in, events go out, a JSON object a line.

Runs in the client's own virtual environment (`.venv-client`): imports nothing of ours.
"""

import json
import sys
from collections.abc import Callable

from zdm import Credentials, ZDMClient  # type: ignore[import-not-found]

# The client prints what it does; our events must have standard output to themselves.
OUT = sys.stdout
sys.stdout = sys.stderr


def tell(event: str, value: object = None) -> None:
    """One event."""
    print(json.dumps({"event": event, "value": value}), file=OUT, flush=True)


def telling(event: str, handler: Callable[..., None]) -> Callable[..., None]:
    """`handler`, followed by `event`."""

    def handle(*arguments: object) -> None:
        handler(*arguments)
        tell(event)

    return handle


def main() -> None:
    """Connect as the document in the first argument says and obey until standard input ends."""
    with open(sys.argv[1]) as document:  # noqa: PTH123
        credential = json.load(document)
    client = ZDMClient(
        cred=Credentials(credential),
        jobs_dict={"reset_counter": lambda _client, arguments: {"done": arguments}},
        on_timestamp=lambda _client, value: tell("now", value),
    )
    mqtt = client.mqttClient.client
    mqtt.on_connect = telling("connected", mqtt.on_connect)
    mqtt.on_disconnect = telling("disconnected", mqtt.on_disconnect)
    client.connect()
    tell("started")
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "publish":
            client.publish(command["payload"], command["tag"])
        elif command["do"] == "now":
            client.request_timestamp()
    mqtt.disconnect()
    mqtt.loop_stop()


main()
