"""What ingestion needs of the outside."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from services.ingestion.domain.records import Batch, Place
from shared.log import Record, Topic

# What to append, by topic.
Appends = Mapping[Topic, Sequence[Record]]


class Spool(Protocol):
    """What the broker wrote down, read by one at a time."""

    async def read(self) -> Batch:
        """The next records, at least one, once there are some. They are read again after a restart until `done`."""
        ...

    def done(self, place: Place) -> None:
        """Everything before `place` is safe elsewhere and may go."""
        ...


class PatientLog(Protocol):
    """The log, for one who cannot go on without it."""

    async def append(self, appends: Appends) -> None:
        """Durable when this returns, however long the log is away; some may then be there twice."""
        ...


class Broker(Protocol):
    """The way down to the devices' sessions."""

    async def send(self, messages: Sequence["Message"]) -> bool:
        """Give each to its device's session, or note that the device is away. False: refused as malformed, all of it.

        Waits as long as the broker is away.
        """
        ...


class Sessions(Protocol):
    """The devices' sessions at this broker."""

    async def moved(self, connected_at: Mapping[str, int]) -> None:
        """These have connected to another broker, at that time (ms): sessions here that began before are over.

        Waits as long as the broker is away.
        """
        ...


class Message(Protocol):
    """What `Broker.send` takes."""

    @property
    def id(self) -> str:
        """Comes back in `HandedOver`."""
        ...

    @property
    def device_id(self) -> str:
        """Whom it is for."""
        ...

    @property
    def payload(self) -> bytes:
        """The message as it goes to the device."""
        ...

    @property
    def began_by(self) -> int | None:
        """Ms: a session gets it that began then or before, else the device counts as away; None: any session."""
        ...
