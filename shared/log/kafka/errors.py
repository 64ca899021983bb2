"""What the driver's errors mean to a caller."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError, for_code

from shared.errors import TooLarge, Unavailable

_SAID_LIMIT = 200


@contextmanager
def translated() -> Iterator[None]:
    """Say the driver's errors in the words of the port."""
    try:
        yield
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise TooLarge("Kafka takes no record of this size (max.message.bytes of the topic)") from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"Kafka does not do it: {_words(error)}") from error


def check(code: int) -> None:
    """Raise the driver's error for a code that is not success."""
    if code:
        raise for_code(code)()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (str(error) or type(error).__name__)[:_SAID_LIMIT]
