"""The mitmproxy addon: hooks in, decisions out.

`PresignAddon` is what the script lists; mitmproxy removes it whenever the script is reloaded or deleted.
What protects the gateway is the `Guard`, which sits in the master's own chain from then on: without a
script it refuses all that is ours rather than letting it pass.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from mitmproxy import ctx
from mitmproxy.addonmanager import Loader

from ..config.load import UNSIGNED
from ..gateway.ca_directory import obstacle
from .guard import Guard
from .lane.availability import CHOICES as LANES

logger = logging.getLogger(__name__)


class PresignAddon:
    """The addon that declares the options and arms the guard."""

    def __init__(self) -> None:
        self._guard: Guard | None = None

    def load(self, loader: Loader) -> None:
        loader.add_option(
            "presign_config",
            str,
            "",
            "Path of the configuration of presign-proxy; else $PRESIGN_CONFIG, else ./config.yaml.",
        )
        loader.add_option(
            "presign_unsigned",
            str,
            "config",
            "What happens to requests that carry no presign: as the configuration says, pass or deny; "
            "explicit: as it says, or deny where it says nothing; "
            "closed: deny, and a configuration that says pass is refused.",
            choices=UNSIGNED,
        )
        loader.add_option(
            "presign_lane",
            str,
            "auto",
            "Serve presigned HTTP/1.1 without flows: auto (where nobody looks at flows), on or off.",
            choices=LANES,
        )
        self._guard = Guard.install(ctx.master)

    def configure(self, updated: Iterable[str]) -> None:  # noqa: ARG002 - the hook's signature
        # Called once by the script loader; changes of options reach the guard through the chain.
        guard, self._guard = self._guard, None
        if guard is None:
            return
        if why := obstacle(ctx.options.confdir):
            logger.error("presign: %s", why)
        guard.arm()

    def done(self) -> None:
        guard = Guard.installed(ctx.master)
        if guard is not None:
            guard.withdraw()
