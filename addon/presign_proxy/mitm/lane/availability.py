"""The availability of the lane: it is open only while nothing looks at flows or changes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

CHOICES: Final = ("auto", "on", "off")

# Options whose work is done on flows, in hooks that the lane does not call.
_ON_FLOWS: Final = (
    "anticache",
    "anticomp",
    "block_list",
    "body_size_limit",
    "dumper_filter",
    "hardump",
    "intercept",
    "keep_host_header",
    "map_local",
    "map_remote",
    "modify_body",
    "modify_headers",
    "save_stream_file",
    "server_replay",
    "stickyauth",
    "stickycookie",
    "stream_large_bodies",
)
# Options that say which clients may come in, or how upstreams are connected to. The lane would undo them.
_ON_CONNECTIONS: Final = (
    "ciphers_server",
    "client_certs",
    "connect_addr",
    "proxyauth",
    "tls_ecdh_curve_server",
    "tls_version_server_max",
    "tls_version_server_min",
)


def hindrances(options: Any, chosen: str) -> Iterator[str]:
    """Yield the options that keep the lane shut.

    Args:
        chosen: `presign_lane`. "on" ignores what only looks at flows, never what guards a connection.
    """
    names = _ON_CONNECTIONS if chosen == "on" else (*_ON_CONNECTIONS, *_ON_FLOWS)
    for name in names:
        if name in options and getattr(options, name) != options.default(name):
            yield name
    if chosen != "on" and "flow_detail" in options and options.flow_detail > options.default("flow_detail"):
        yield "flow_detail"  # header and bodies are printed of flows only


def shows_flows(master: Any) -> bool:
    """Return whether this is mitmproxy or mitmweb, which show flows to people."""
    return master.addons.get("view") is not None


def is_open(master: Any, chosen: str) -> bool:
    """Return whether requests may take the lane under these options, in this program."""
    if chosen == "off" or any(hindrances(master.options, chosen)):
        return False
    if chosen == "on":
        return True
    # Other scripts expect their hooks to be called.
    return not shows_flows(master) and len(getattr(master.options, "scripts", ())) <= 1
