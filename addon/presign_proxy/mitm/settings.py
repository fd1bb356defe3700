"""mitmproxy's options, as far as the gateway depends on them."""

from __future__ import annotations

import logging

from mitmproxy import ctx, exceptions

from ..config.live import Reloaded
from ..config.load import UNSIGNED
from ..config_problems import ConfigError
from ..gateway import unsafe_options
from ..gateway.gateway import Gateway
from . import display
from .flow.state import FlowStates
from .lane.availability import CHOICES
from .lane.shared import LaneShared

logger = logging.getLogger(__name__)

NAMES = frozenset({"presign_config", "presign_unsigned"})
"""The options that say which configuration is loaded."""


class Settings:
    """Loads what the options ask for, and refuses options that undo what the gateway promises."""

    def __init__(self, gateway: Gateway, states: FlowStates, shared: LaneShared) -> None:
        self._gateway = gateway
        self._states = states
        self._shared = shared

    def load(self) -> None:
        """Load the configuration. Raises OptionsError; what was loaded before stays."""
        unsigned = ctx.options.presign_unsigned
        if unsigned not in UNSIGNED:
            # mitmproxy checks choices only in its UI.
            raise exceptions.OptionsError(f"presign: presign_unsigned is one of {', '.join(UNSIGNED)}")
        try:
            self._gateway.load(ctx.options.presign_config, unsigned)
        except ConfigError as error:
            raise exceptions.OptionsError(f"presign: the configuration is not usable:\n{error}") from None

    def check(self) -> None:
        """Open or shut the lane, and refuse presigned requests while an option is unsafe.

        Raises OptionsError.
        """
        if ctx.options.presign_lane not in CHOICES:
            raise exceptions.OptionsError(f"presign: presign_lane is one of {', '.join(CHOICES)}")
        self._shared.set_out(ctx.master)
        display.attend(ctx.master, self._gateway.audit_log.terminal, self._states)
        registry = self._gateway.live_config.registry
        deny = registry is not None and registry.deny_unsigned
        problems = list(unsafe_options.unsafe(ctx.options, deny_unsigned=deny))
        self._gateway.admission.unsafe = bool(problems)
        if problems:
            raise exceptions.OptionsError("\n".join(problems))

    def tick(self, now: float) -> None:
        """Begin a reload if one is due. Args: now: of `time.monotonic`."""
        self._gateway.reloader.tick(now, self._reload)

    async def _reload(self, still: float) -> Reloaded:
        outcome = await self._gateway.reload(ctx.options.presign_unsigned, still)
        if outcome.is_in_force:
            try:
                self.check()  # the new configuration may deny unsigned requests, which more options undo
            except exceptions.OptionsError as error:
                logger.error("presign: presigned requests are refused until this is mended: %s", error)
        return outcome
