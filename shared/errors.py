"""What can go wrong, by what the caller does about it.

`Refused`: change something and ask again. `NotFound`: it is not there, or not yours. `Conflict`: read again and decide.
`Unavailable`: the same request may succeed later. Adapters translate their drivers' errors into these.
"""


class ZdmError(Exception):
    """Root of the errors that mean something to a caller."""

    code = "internal"
    title = "Internal error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class Refused(ZdmError):
    """The request breaks a rule; `field` names the member at fault, when there is one."""

    code = "bad_request"
    title = "Bad request"

    def __init__(self, message: str, *, field: str | None = None, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.field = field


class TooLarge(Refused):
    """More bytes than the rule allows."""

    code = "payload_too_large"
    title = "Payload too large"


class Unauthorized(ZdmError):
    """Nobody known is asking."""

    code = "unauthorized"
    title = "Unauthorized"


class Forbidden(ZdmError):
    """Who asks is known and may not do this."""

    code = "forbidden"
    title = "Forbidden"


class NotFound(ZdmError):
    """There is no such thing, or none that the caller may know of."""

    code = "not_found"
    title = "Not found"

    @classmethod
    def of(cls, kind: str, identifier: str, where: str = "") -> "NotFound":
        """No `kind` called `identifier`: code `<kind>_not_found`, as clients expect it."""
        return cls(f"No {kind} {identifier}{where}", code=f"{kind}_not_found")


class Conflict(ZdmError):
    """Something else holds the name, or changed what was read."""

    code = "conflict"
    title = "Conflict"


class TooMany(ZdmError):
    """A limit on rate or number is reached."""

    code = "too_many_requests"
    title = "Too many requests"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(ZdmError):
    """Something that is needed does not answer; try again after `retry_after` seconds."""

    code = "unavailable"
    title = "Temporarily unavailable"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class OutOfSpace(Unavailable):
    """The disk is full, or the limit set for this file is reached; nothing of the write was kept."""

    code = "out_of_space"
    title = "Out of space"
