"""The status of an answer over HTTP/2."""

from __future__ import annotations

import re
from typing import Any, Final

_STATUS: Final = re.compile(rb"[1-9][0-9]{2}")


def has_status(fields: Any) -> bool:
    """Return whether an answer has one status of three digits. mitmproxy takes `+200` and `2_00` for 200,
    too, and h2 takes `1000` for an interim one.
    """
    found = [value for name, value in fields if name == b":status"]
    return len(found) == 1 and _STATUS.fullmatch(found[0]) is not None
