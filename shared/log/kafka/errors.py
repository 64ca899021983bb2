"""What the driver's errors mean to a caller."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

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


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """Whatever the steps within may take each: together no longer than this."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Unavailable("Kafka does not do it in time") from None


def check(code: int) -> None:
    """Raise the driver's error for a code that is not success."""
    if code:
        raise for_code(code)()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (str(error) or type(error).__name__)[:_SAID_LIMIT]
