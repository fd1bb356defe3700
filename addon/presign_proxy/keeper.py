"""Which configuration is in force: the last good one, swapped whole."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import config
from .calm import let_go, load_calmly
from .config_path import locate
from .connections import Registry
from .problems import ConfigError
from .registry_file import Memory
from .schema import GatewayConfig
from .threads import Threads
from .watching import Version

logger = logging.getLogger(__name__)


class Keeper:
    """Loads a configuration, and loads it again when its files have changed."""

    def __init__(
        self,
        adopt: Callable[[config.Loaded], None],
        watch: Callable[[tuple[Path, ...], Version | None], None],
    ) -> None:
        """
        Args:
            adopt: makes use of a new configuration; raises ConfigError where that cannot be, and then the
                last one stays.
            watch: told which files to look at from now on.
        """
        self._adopt = adopt
        self._watch = watch
        self._memory = Memory()
        # Of its own: a revocation must not wait until names are looked up, or a metric is written.
        self._thread = Threads(1, "presign-reload")
        self._asked: tuple[str, str] | None = None
        self.loaded: config.Loaded | None = None
        self.loaded_at = 0.0
        """Unix time of the configuration that is in force."""
        self.stale = False
        """Whether the files have been changed to something that is not usable."""
        self.reloads = Counter({"ok": 0, "failed": 0})

    @property
    def registry(self) -> Registry | None:
        """None until there was a good one."""
        return self.loaded.registry if self.loaded else None

    @property
    def max_clients(self) -> int:
        """How many client connections this process takes at a time."""
        return (self.loaded.config.gateway if self.loaded else GatewayConfig()).max_clients

    def load(self, option: str, unsigned: str) -> None:
        """Load what the options ask for, unless they ask for what they asked for before.

        Args:
            option: `presign_config`.
            unsigned: `presign_unsigned`.

        Raises ConfigError; what was loaded before stays.
        """
        if (option, unsigned) == self._asked:
            return
        path = locate(option, os.environ)
        self._memory = Memory()  # a reload may be at work with the other
        self._use(load_calmly(path, os.environ, unsigned, self._memory))
        # Only now: a refused option must not change which file is watched.
        self._asked = option, unsigned

    def _use(self, loaded: config.Loaded) -> None:
        self._adopt(loaded)
        self.loaded, self.loaded_at, self.stale = loaded, time.time(), False
        self._watch(loaded.files, loaded.version)
        logger.info("presign: %d connections from %s", len(loaded.registry.connections), loaded.path)

    async def reload(self, unsigned: str) -> bool:
        """Read the files again, off the event loop; a broken one keeps the last good registry.

        Returns whether another configuration is in force now.
        """
        if (current := self.loaded) is None:
            return False
        result = "failed"
        try:
            loaded = await self._run(load_calmly, current.path, os.environ, unsigned, self._memory)
            if self.loaded is not current:
                result = ""
                return False  # an option has asked for something else meanwhile, and got it
            self._use(loaded)
            result = "ok"
        except ConfigError as error:
            self._watch(error.files, error.version)
            logger.error("presign: the changed configuration is not usable, the last good one stays:")
            for problem in error.problems:
                logger.error("presign: %s", problem)
            return False
        finally:
            if result:
                self.reloads[result] += 1
                self.stale = result == "failed"
        await self._run(let_go, current.registry)
        return True

    async def _run[Result](self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.wrap_future(self._thread.run(work, *arguments))

    def close(self) -> None:
        self._thread.close()
