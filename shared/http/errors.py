"""The one table from errors to HTTP, and the one shape in which they are said.

`code`, `title` and `message` are what clients of the original require; the other members are those of RFC 9457.
"""

from collections.abc import Iterable
from math import ceil
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import Counter

from shared.errors import (
    Conflict,
    Forbidden,
    NotFound,
    Refused,
    TooLarge,
    TooMany,
    Unauthorized,
    Unavailable,
    ZdmError,
)

JSON = "application/json; charset=utf-8"

_REFUSALS = Counter("zdm_http_refusals_total", "Requests answered with an error", ["status", "code"])


class MethodNotAllowed(ZdmError):
    """The path is known, the method is not; `allowed` names those that are."""

    code = "method_not_allowed"
    title = "Method not allowed"

    def __init__(self, message: str, allowed: Iterable[str]) -> None:
        super().__init__(message)
        self.allowed = ", ".join(allowed)


class HalfSent(ZdmError):
    """The body did not arrive in time. There is no telling where a next request would begin: the connection ends."""

    code = "request_timeout"
    title = "Request timeout"


# The first row that fits counts.
_STATUS: tuple[tuple[type[ZdmError], int], ...] = (
    (TooLarge, 413),
    (Refused, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (MethodNotAllowed, 405),
    (HalfSent, 408),
    (Conflict, 409),
    (TooMany, 429),
    (Unavailable, 503),
)


def status_of(error: ZdmError) -> int:
    """The HTTP status of `error`."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def answer_to(error: ZdmError) -> web.Response:
    """The answer that says `error`."""
    status = status_of(error)
    _REFUSALS.labels(status, error.code).inc()
    body: dict[str, Any] = {
        "code": error.code,
        "title": error.title,
        "message": error.message,
        "type": "about:blank",
        "status": status,
        "detail": error.message,
    }
    if isinstance(error, Refused) and error.field is not None:
        body["field"] = error.field
    answer = web.Response(status=status, body=orjson.dumps(body), headers={"Content-Type": JSON, **_headers(error)})
    if isinstance(error, HalfSent):
        answer.force_close()
    return answer


def _headers(error: ZdmError) -> dict[str, str]:
    if isinstance(error, TooMany | Unavailable):
        return {"Retry-After": str(max(1, ceil(error.retry_after)))}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, MethodNotAllowed):
        return {"Allow": error.allowed}
    return {}
