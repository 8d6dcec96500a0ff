"""The forms an answer about points can have: JSON as a document, CSV and NDJSON as streams of lines."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from api.flow.operation import Call

JSON: Final = "application/json"
CSV: Final = "text/csv"
CSV_WITH_TITLES: Final = "text/csv; charset=utf-8; header=present"
NDJSON: Final = "application/x-ndjson"

Form = Annotated[
    Literal["json", "csv", "ndjson"] | None,
    Meta(description="json: one document; csv, ndjson: a stream of all there is. By default as Accept says."),
]

_NAMES: Final = {JSON: "json", CSV: "csv", NDJSON: "ndjson"}


def form_of(call: Call) -> str:
    """The form asked for by `format`, else the one that the Accept header likes best; JSON where it likes none."""
    query: Any = call.query
    if query.format:
        return str(query.format)
    return _NAMES[parse_accept_header(call.accept, MIMEAccept).best_match(list(_NAMES), JSON) or JSON]


def as_file(name: str) -> dict[str, str]:
    """Headers that make a browser save what comes."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}
