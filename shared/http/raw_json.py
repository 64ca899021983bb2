"""JSON text that answers carry as it is: a device's payload is never parsed and written anew.

A model declares a member as `RawJson` and is given the text; the server splices it into the answer:

    class DataPoint(BaseModel):
        tag: str
        payload: RawJson

    DataPoint(tag="env", payload='{"temp": 21.40}')
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
    return orjson.dumps(answer.model_dump(mode="python", by_alias=True), option=orjson.OPT_UTC_Z)
