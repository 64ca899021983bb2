"""JSON text that answers carry as it is: a device's payload is never parsed and written anew.

A model declares a member as `RawJson`; the server splices the text into the answer.
"""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, PlainSerializer, WithJsonSchema

# A member whose value is JSON text; in the answer it is that JSON.
RawJson = Annotated[
    str,
    PlainSerializer(lambda text: orjson.Fragment(text), return_type=Any, when_used="always"),
    WithJsonSchema({"description": "Any JSON, as it came"}),
]


def rendered(answer: BaseModel) -> bytes:
    """The answer as UTF-8 JSON."""
    return orjson.dumps(answer.model_dump(mode="python"))
