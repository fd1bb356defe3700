"""pydantic's errors, in plain words and with their place in the file."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from ..config_problems import Location, Problem
from ..similar_names import did_you_mean
from .auth_types import AUTH_TYPES
from .forms import in_words
from .strict_yaml import Document

MAPPING: Final = "has to be a mapping, as in {key: value}"
_TYPES: Final = ", ".join(AUTH_TYPES)
"""The types of `auth`."""
# pydantic's messages are for programmers. These are the few that operators meet.
_PLAINLY: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a key that is known here",
    "union_tag_not_found": f"is required: one of {_TYPES}",
    "union_tag_invalid": f"is not one of {_TYPES}",
    "bool_type": "has to be true or false",
    "string_type": "has to be text: put it in quotes",
    "int_type": "has to be a whole number",
    "list_type": "has to be a list, as in [a, b]",
    "dict_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
}


def explain(document: Document, error: ValidationError, within: Location = ()) -> list[Problem]:
    """Return the problems, without any value of the file.

    Args:
        within: the location in the document of the part that was validated.
    """
    details = error.errors(include_input=False, include_url=False)
    return [_explain(document, (*within, *detail["loc"]), detail) for detail in details]


def _said(detail: Any) -> str:
    """Return the message without its place."""
    context = detail.get("ctx", {})
    match detail["type"]:
        case "literal_error":
            return f"has to be {context['expected'].replace(chr(39), '')}"
        case "greater_than_equal":
            return f"has to be {context['ge']} or more"
        case "less_than_equal":
            return f"has to be {context['le']} or less"
        case "string_pattern_mismatch":
            return in_words(context["pattern"])
    return _PLAINLY.get(detail["type"], str(detail["msg"]).removeprefix("Value error, "))


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
        # Any other step is the tag of a union, which does not appear in the file.
    at: Location = tuple(location)
    if detail["type"] == "union_tag_invalid" and len(at) == 2:
        return document.problem((*at, "scheme"), "has to be presign or source")
    if detail["type"].startswith("union_tag"):
        at = (*at, "type")
    message = _said(detail)
    if detail["type"] == "extra_forbidden" and (hint := did_you_mean(str(where[-1]), _keys())):
        message += f": {hint}"
    return document.problem(at, message[:1].lower() + message[1:])


@lru_cache(maxsize=1)
def _keys() -> tuple[str, ...]:
    """Return all keys that may appear anywhere in a configuration."""
    from .schema import config, connections, limits, registry

    there = [one for room in (config, connections, limits, registry) for one in vars(room).values()]
    models = [one for one in there if isinstance(one, type) and issubclass(one, BaseModel)]
    return tuple(sorted({name for model in models for name in model.model_fields}))
