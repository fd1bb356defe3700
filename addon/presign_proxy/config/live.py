"""The live configuration: the last good one, replaced as a whole, and what was revoked since."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, Protocol

from ..config_problems import ConfigError, Problem
from ..core.registry import Registry
from ..core.revocations import Revocations
from ..units import instant as stamp
from . import load as config
from .active_config import ActiveConfig
from .descriptors import Spares
from .load_beside import build_calmly, free, load_calmly, see_calmly
from .path import locate
from .read_files import NEVER, Seen, lost_mark
from .registry_file.memory import Memory
from .registry_file.notice import Notice
from .schema.config import GatewayConfig, HostPort
from .threads import Threads

logger = logging.getLogger(__name__)

SLOW: Final = 30.0
"""Seconds after which a running reload is reported: a program or a disk may hang."""


class Reloaded(NamedTuple):
    """The result of a reload. `wait`: for `waits`, the seconds without a change that the files need."""

    kind: Literal["ok", "lacks", "failed", "waits", "overtaken"]
    wait: float = 0.0

    @property
    def is_in_force(self) -> bool:
        """True if what was read is the configuration in force now."""
        return self.kind in ("ok", "lacks")


class Newer(NamedTuple):
    """A version on the disk that is not in force: since when (Unix time), and the reason."""

    since: float
    why: str


class Prepared(Protocol):
    """What was opened for a configuration that is not in force yet."""

    def discard(self) -> None:
        """Close it: the configuration is not used after all."""


class Adopter[P: Prepared](Protocol):
    """The parts of a gateway that a configuration changes."""

    def prepare(self, loaded: config.Loaded) -> P:
        """Open what a configuration wants open, in the thread that reads it. Raises ConfigError."""

    def adopt(self, loaded: config.Loaded, prepared: P) -> None:
        """Use a configuration and what was prepared for it. Raises ConfigError; then the last one stays."""


class LiveConfig:
    """The configuration in force: loads it, and reloads it on request."""

    def __init__(self) -> None:
        self._memory = Memory()
        # A thread of its own: a revocation must not wait for name look-ups or for a write of metrics.
        self._thread = Threads(1, "presign-reload")
        self.spares = Spares()
        self._asked: tuple[str, str] | None = None
        self._began = 0.0
        self._told: object = None
        self._in_force = ActiveConfig()
        self.newer: Newer | None = None
        self.strict = True
        """True if a missing secret is an error at the start, so that the operator who starts it sees it."""
        self.reloads = Counter({"ok": 0, "failed": 0})

    @property
    def registry(self) -> Registry | None:
        """The registry in force; None until a good one was loaded."""
        return self._in_force.registry

    @property
    def revoked_now(self) -> Revocations | None:
        """What was revoked so that requests under way end, too."""
        return self._in_force.now

    @property
    def loaded(self) -> config.Loaded | None:
        return self._in_force.loaded

    @property
    def loaded_at(self) -> float:
        """The Unix time at which the configuration in force was loaded."""
        return self._in_force.loaded_at

    @property
    def notice(self) -> Notice | None:
        """The last notice that could be read."""
        return self._in_force.notice

    @property
    def stale(self) -> bool:
        """True while the files have changed to something that is not in force."""
        return self.newer is not None

    @property
    def admin_address(self) -> HostPort | None:
        """Where the configuration in force wants the admin listener, whichever process has it."""
        admin = self.loaded.config.admin if self.loaded else None
        return admin.listen if admin else None

    @property
    def max_clients(self) -> int:
        """The most client connections that this process takes at a time."""
        return (self.loaded.config.gateway if self.loaded else GatewayConfig()).max_clients

    @property
    def lacking(self) -> list[Problem]:
        """Secrets that are not available. Their connections are answered 503, and no others."""
        return self.loaded.lent.lacking if self.loaded else []

    # -- the start, and another option ----------------------------------------------------------------

    def load(self, option: str, unsigned: str, adopter: Adopter[Any]) -> bool:
        """Load what the options ask for, unless they ask for what they asked for before.

        Args:
            option: `presign_config`.
            unsigned: `presign_unsigned`.

        Returns whether a configuration was loaded. Raises ConfigError; the last configuration then stays.
        """
        if (option, unsigned) == self._asked:
            return False
        path = locate(option, os.environ)
        memory = Memory()  # a reload in the other thread may be using the present one
        memory.lent.strict = self.strict
        loaded = load_calmly(path, os.environ, unsigned, memory)
        if loaded.limited and (why := loaded.store.refusal):
            raise ConfigError([Problem(str(path), 0, 0, "limits.store", why)])
        self._use(loaded, memory, adopter.prepare(loaded), adopter)
        # Only now: a refused option must not change which file is watched.
        self._asked = option, unsigned
        return True

    def _use(self, loaded: config.Loaded, memory: Memory, prepared: Any, adopter: Adopter[Any]) -> None:
        adopter.adopt(loaded, prepared)
        record = loaded.record
        memory.forms, memory.place = record.forms, record.place
        memory.lent = loaded.lent.for_next_load()
        self._memory = memory
        self.newer = None
        self._in_force.use(loaded)
        count = len(loaded.registry.connections)
        logger.info(
            "presign: %d connection%s from %s, version %s",
            count,
            "" if count == 1 else "s",
            loaded.path,
            record.version,
        )
        for problem in loaded.lent.lacking:
            # A warning, not an error: the supervisor must still be able to replace a worker.
            logger.warning("presign: a connection is answered 503 until its secret is available: %s", problem)

    # -- revocations ----------------------------------------------------------------------------------

    def use_notice(self, notice: Notice | None) -> None:
        """Apply a notice. A missing or unreadable one (None) undoes nothing of the last one."""
        self._in_force.use_notice(notice)

    def _see(
        self, current: config.Loaded, memory: Memory, still: float
    ) -> tuple[Seen, Revocations, Revocations | None]:
        """Return the files, what they revoke, and what was removed from them. Runs in the thread."""
        with self.spares.lent():
            seen = see_calmly(current.path, os.environ, memory)
        # A request to reload has an infinite `still`. It must not make a file whole that lost its end mark.
        is_whole = seen.patience(memory)[0] <= min(still, sys.float_info.max)
        return seen, seen.taken_back(), seen.removed(current.registry, memory) if is_whole else None

    # -- reloads --------------------------------------------------------------------------------------

    async def reload(self, unsigned: str, still: float, adopter: Adopter[Any]) -> Reloaded:
        """Read the files again, off the event loop; broken ones keep the last good registry.

        What they revoke comes into force first, even if the rest of them cannot be used.

        Args:
            still: seconds for which the files have not changed.
        """
        if (current := self.loaded) is None:
            return Reloaded("overtaken")
        memory, self._began = self._memory, time.monotonic()
        try:
            seen, found, removed = await self._run(self._see, current, memory, still)
            if self.loaded is not current:
                return Reloaded("overtaken")  # meanwhile an option has loaded another configuration
            self._in_force.take_back(found, removed, seen.notice)
            wait, where = seen.patience(memory)
            if NEVER > wait > still:
                why = f"{where} has no end mark, and is used after {wait:.0f} s without a change"
                self._keep_last(why)
                return Reloaded("waits", wait)
            if wait == NEVER:
                raise ConfigError([lost_mark(where)])
            loaded, prepared = await self._run(self._build, seen, unsigned, memory, adopter)
            if self.loaded is not current:
                prepared.discard()
                return Reloaded("overtaken")
            self._use(loaded, memory, prepared, adopter)
        except ConfigError as error:
            self._failed(error)
            return Reloaded("failed")
        finally:
            self._began = 0.0
        self.reloads["ok"] += 1
        self._told = None
        await self._run(free, current.registry)
        return Reloaded("lacks" if loaded.lent.lacking else "ok")

    def _build(
        self, seen: Seen, unsigned: str, memory: Memory, adopter: Adopter[Any]
    ) -> tuple[config.Loaded, Any]:
        with self.spares.lent():
            loaded = build_calmly(seen, os.environ, unsigned, memory)
            return loaded, adopter.prepare(loaded)

    def _failed(self, error: ConfigError) -> None:
        """Log the problems, once for each set of them: a failed reload is repeated again and again."""
        problems = list(map(str, error.problems))
        self._keep_last(problems[0] if problems else "it is not usable")
        if problems == self._told:
            return
        self._told = problems
        self.reloads["failed"] += 1
        logger.error("presign: the changed configuration is not usable, the last good one stays:")
        for problem in problems:
            logger.error("presign: %s", problem)

    def _keep_last(self, why: str) -> None:
        self.newer = Newer(self.newer.since if self.newer else time.time(), why)

    def trouble(self, now: float) -> str:
        """Return what the operator should know about the configuration in force; empty if all is well.

        Args:
            now: of `time.monotonic`.
        """
        found = []
        if self.newer is not None and self.loaded is not None:
            version, since = self.loaded.record.version, stamp(int(self.loaded_at))
            found.append(
                f"stale configuration: version {version} is in force since {since}; what changed at "
                f"{stamp(int(self.newer.since))} is not: {_line(self.newer.why)}"
            )
        if self.lacking:
            more = f" and {len(self.lacking) - 1} more" if len(self.lacking) > 1 else ""
            found.append(f"a secret cannot be had: {_line(str(self.lacking[0]))}{more}")
        if self._began and now - self._began > SLOW:
            found.append("reading the changed configuration takes long: it waits for a program or a disk")
        return ", ".join(found)

    def rerun_programs(self) -> None:
        """Make the next reload run all programs that print secrets, even if their secrets are still valid."""
        self._memory.lent.programs.forget()

    async def _run[Result](self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.wrap_future(self._thread.run(work, *arguments))

    def close(self) -> None:
        self._thread.close()
        self.spares.close()


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
