"""Programs that print what a configuration needs at once: run side by side, and kept while it is good."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ..signing.secret import Secret
from .secret_sources import SecretError, resolve
from .threads import Threads
from .values import SecretSource

AT_ONCE: Final = 8
"""Programs that run at a time: as a rule each is an interpreter of its own, and asks the same server."""

Program = tuple[tuple[str, ...], Path]
"""What is run, and the directory in which it is."""


class _Kept(NamedTuple):
    secret: Secret
    at: float


class Missing(Exception):
    """The program has to run first. Whoever reads the configuration reads it again afterwards."""


class Programs:
    """Of one gateway, through all its reloads.

    A configuration is read, and what it asks for is noted; then all programs that are due run, and it is
    read again: a reload takes as long as the slowest of them, not as long as all together. One whose secret
    is still good (`ttl`) does not run; one that failed runs again with the next reload.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: seconds, of a clock that is never set."""
        self._clock = clock
        self._kept: dict[Program, _Kept] = {}
        self._failed: dict[Program, str] = {}
        self._missing: dict[Program, None] = {}
        self._asked: set[Program] = set()

    def begin(self) -> None:
        """The configuration is about to be read."""
        self._failed, self._missing, self._asked = {}, {}, set()

    def secret(self, source: SecretSource, base: Path) -> Secret:
        """What a program has printed. Raises Missing, or SecretError where it failed."""
        program = (source.exec or (), base)
        fresh = program in self._asked
        self._asked.add(program)
        if why := self._failed.get(program):
            raise SecretError(why)
        kept = self._kept.get(program)
        # What was good when it was first asked for stays so until all is read: or that would never end.
        if kept is not None and (fresh or self._clock() - kept.at < source.ttl):
            return kept.secret
        self._missing[program] = None
        raise Missing

    def run(self, environ: Mapping[str, str]) -> bool:
        """Run all that are missing, some at a time. Returns whether there were any."""
        missing, self._missing = list(self._missing), {}
        if not missing:
            return False
        # Daemons: a program that hangs holds up neither the end of the gateway nor a name that is looked up.
        threads = Threads(min(AT_ONCE, len(missing)), "presign-programs")
        begun = [threads.run(resolve, SecretSource(exec=argv), base, environ) for argv, base in missing]
        threads.close()
        for program, future in zip(missing, begun, strict=True):
            self._asked.add(program)
            try:
                self._kept[program] = _Kept(future.result(), self._clock())
            except Exception as error:
                self._kept.pop(program, None)
                why = str(error) if isinstance(error, SecretError) else type(error).__name__
                self._failed[program] = why or "the program failed"
        return True

    def end(self) -> None:
        """All was read: forget what no configuration asks for any more."""
        self._kept = {program: kept for program, kept in self._kept.items() if program in self._asked}

    def forget(self) -> None:
        """Somebody says that secrets have changed: all programs run with the next reload."""
        self._kept = {}
