"""What MongoDB says, in the words of the port: of failures that no test can bring about in a server at hand."""

from typing import Any

import pytest
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure, PyMongoError, ServerSelectionTimeoutError

from shared.documents.mongo import translation
from shared.errors import Conflict, OutOfSpace, Unavailable, ZdmError

_FULL = {"ok": 0.0, "code": 14031, "codeName": "OutOfDiskSpace", "errmsg": "available disk space of 1 bytes is less"}
_FULL_ENGINE = {"ok": 0.0, "code": 8, "codeName": "UnknownError", "errmsg": "28: No space left on device"}
_DUPLICATE = {"code": 11000, "keyPattern": {"email": 1}, "errmsg": 'E11000 dup key: { email: "ann@example.org" }'}
_NO_MAJORITY = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}


def bulk(*errors: dict[str, Any], concern: tuple[dict[str, Any], ...] = ()) -> BulkWriteError:
    writes = [{"index": place, **error} for place, error in enumerate(errors)]
    return BulkWriteError({"writeErrors": writes, "writeConcernErrors": list(concern), "nInserted": 0})


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (OperationFailure("full", 14031, _FULL), OutOfSpace),
        (OperationFailure("full", 8, _FULL_ENGINE), OutOfSpace),
        (bulk(_DUPLICATE, _FULL), OutOfSpace),
        (bulk(_DUPLICATE), Conflict),
        (bulk(concern=(_NO_MAJORITY,)), Unavailable),
        (bulk(_DUPLICATE, concern=(_NO_MAJORITY,)), Unavailable),
        (OperationFailure("dup", 11000, _DUPLICATE), Conflict),
        (OperationFailure("stepping down", 189, {"codeName": "PrimarySteppedDown"}), Unavailable),
        (OperationFailure("no words", None, None), Unavailable),
        (AutoReconnect("connection closed"), Unavailable),
    ],
)
def test_errors_mean_what_a_caller_does_about_them(error: PyMongoError, meaning: type[ZdmError]) -> None:
    assert type(translation(error)) is meaning


def test_an_error_names_fields_and_no_values() -> None:
    said = translation(OperationFailure("dup", 11000, _DUPLICATE)).message
    assert "email" in said
    assert "ann@example.org" not in said


def test_a_server_that_is_not_found_is_named_without_all_that_the_driver_knows() -> None:
    error = ServerSelectionTimeoutError(
        "db:27017: [Errno 111] Connection refused (configured timeouts: timeoutMS: 5000.0ms), Timeout: 5.0s, "
        "Topology Description: <TopologyDescription id: 6b05993c2886eb1f96991c9f>"
    )
    assert translation(error).message == "The document store does not answer: db:27017: [Errno 111] Connection refused"
