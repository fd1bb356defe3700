"""A second script: what `export.clip` and its relatives would put on the clipboard, in the file $EXPORTS."""

import json
import os
from pathlib import Path

from mitmproxy import ctx, http
from mitmproxy.addons import export
from mitmproxy.exceptions import CommandError


def request(flow: http.HTTPFlow) -> None:
    """In flight, when nobody has answered yet."""
    _write(flow)


def response(flow: http.HTTPFlow) -> None:
    _write(flow)


def error(flow: http.HTTPFlow) -> None:
    _write(flow)


def _write(flow: http.HTTPFlow) -> None:
    with Path(os.environ["EXPORTS"]).open("ab") as file:
        for name, make in export.formats.items():
            try:
                text = make(flow)
            except CommandError:
                continue  # there is nothing yet to export in this format
            file.write(f"\n== {name}\n".encode())
            file.write(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
        har = ctx.master.addons.get("savehar").make_har([flow])
        file.write(b"\n== har\n" + json.dumps(har).encode())
        file.write(b"\n== state\n" + repr(flow.get_state()).encode())
