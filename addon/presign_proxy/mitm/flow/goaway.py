"""An upstream's GOAWAY over HTTP/2, which ends no stream that the upstream goes on with (RFC 9113, 6.8).

For h2 it ends the connection: every frame behind it is an error, which takes all of its segment with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import h2.events
from h2.connection import GoAwayFrame, H2Connection  # type: ignore[attr-defined]  # of hyperframe

NOT_TAKEN: Final = "the upstream said goodbye before it took the request"


@dataclass
class Goodbye(h2.events.Event):
    """A GOAWAY, without the text of the upstream in it, which is not read."""

    error_code: int
    last_stream_id: int
    """Streams with greater numbers were not processed."""


def report_goodbyes(connection: H2Connection) -> None:
    """Make a connection report each GOAWAY and go on. To be called before the first byte comes."""
    table: Any = vars(connection)["_frame_dispatch_table"]
    table[GoAwayFrame] = _goodbye


def _goodbye(frame: Any) -> tuple[list[Any], list[h2.events.Event]]:
    return [], [Goodbye(frame.error_code, frame.last_stream_id)]
