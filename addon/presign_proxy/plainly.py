"""pydantic's errors, said plainly and at the place in the file they are about."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from .document import Document
from .problems import Location, Problem

# pydantic speaks to programmers; these are its few messages that people meet.
_PLAINLY: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a key that is known here",
    "union_tag_not_found": "is required: one of bearer, basic, header, query",
    "union_tag_invalid": "is not one of bearer, basic, header, query",
    "bool_type": "is true or false",
    "string_type": "is text: put it in quotes",
    "int_type": "is a whole number",
    "list_type": "is a list",
    "dict_type": "is a mapping",
    "model_type": "is a mapping",
    "model_attributes_type": "is a mapping",
}


def explain(document: Document, error: ValidationError, within: Location = ()) -> list[Problem]:
    """What is wrong, without any value.

    Args:
        within: where in the document that stands which was validated.
    """
    details = error.errors(include_input=False, include_url=False)
    return [_explain(document, (*within, *detail["loc"]), detail) for detail in details]


def _explain(document: Document, where: Location, detail: Any) -> Problem:
    location: list[str | int] = []
    data: Any = document.data
    for step in where:
        inside = (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        )
        if inside:
            data = data[step]
            location.append(step)
        elif step == where[-1] and detail["type"] in ("missing", "extra_forbidden"):
            location.append(step)
        # Any other step is the tag of a union, which is not in the file.
    at: Location = tuple(location)
    if detail["type"] == "union_tag_invalid" and len(at) == 2:
        return document.problem((*at, "scheme"), "is presign or source")
    if detail["type"].startswith("union_tag"):
        at = (*at, "type")
    message = _PLAINLY.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return document.problem(at, message[:1].lower() + message[1:])
