"""What both adapters let into a filter, and what they call a name."""

import re

from shared.documents import Scalar
from shared.errors import Refused

INT64 = range(-(2**63), 2**63)

_NAME = re.compile(r"[a-z][a-z0-9_]*")


def is_name(text: str) -> bool:
    """Whether a collection, or a field that filters, orders and indexes speak of, may be called so."""
    return _NAME.fullmatch(text) is not None


def checked_name(name: str) -> str:
    """`name`. Only names that code writes get here; the check keeps it so."""
    if not is_name(name):
        raise ValueError(f"not a name of a collection or field: {name!r}")
    return name


def checked_scalar(value: Scalar) -> Scalar:
    """`value`; raise `TypeError` for what is no plain scalar, `Refused` for what no document holds."""
    if isinstance(value, str):
        return checked_text(value)
    if value is None:
        return None
    if not isinstance(value, int):
        raise TypeError(f"a filter compares with text, integers, booleans and None, not with {type(value).__name__}")
    if value not in INT64:
        raise Refused("a number beyond 64 bits")
    return value


def checked_id(identifier: str) -> str:
    """`identifier`; raise `TypeError` when it is no text, `Refused` when it is no Unicode text."""
    if not isinstance(identifier, str):
        raise TypeError("a document's id is a string")
    return checked_text(identifier)


def checked_text(text: str) -> str:
    """`text`; raise `Refused` when it is no Unicode text."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("text with a lone surrogate is no Unicode text") from None
    return text
