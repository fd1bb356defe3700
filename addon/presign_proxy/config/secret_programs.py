"""Programs that print the secrets a load needs. They run in parallel, and their output is cached."""

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
"""The most programs at a time: most of them start an interpreter and ask the same server."""

Program = tuple[tuple[str, ...], Path]
"""The arguments of a program, and the directory it runs in."""


class _Kept(NamedTuple):
    secret: Secret
    at: float


class Missing(Exception):
    """Raised if the program has to run first. The caller then builds the configuration again."""


class Programs:
    """The secret programs of one gateway, kept through all its reloads.

    The configuration is built once to find the programs that it needs. Then all programs that are due run in
    parallel, and it is built again. A reload therefore takes as long as the slowest program, not as long as
    all of them together. A program whose secret is still valid (`ttl`) does not run. A program that failed
    runs again with the next reload.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: clock: returns seconds of a monotonic clock."""
        self._clock = clock
        self._kept: dict[Program, _Kept] = {}
        self._failed: dict[Program, str] = {}
        self._missing: dict[Program, None] = {}
        self._asked: set[Program] = set()

    def begin(self) -> None:
        """Start a load of the configuration."""
        self._failed, self._missing, self._asked = {}, {}, set()

    def secret(self, source: SecretSource, base: Path) -> Secret:
        """Return the secret that a program has printed. Raises Missing, or SecretError if it failed."""
        program = (source.exec or (), base)
        fresh = program in self._asked
        self._asked.add(program)
        if why := self._failed.get(program):
            raise SecretError(why)
        kept = self._kept.get(program)
        # A secret that was valid when this load first asked for it stays valid until the load ends. Otherwise
        # a short `ttl` could make the load run programs for ever.
        if kept is not None and (fresh or self._clock() - kept.at < source.ttl):
            return kept.secret
        self._missing[program] = None
        raise Missing

    def run(self, environ: Mapping[str, str]) -> bool:
        """Run all missing programs, `AT_ONCE` at a time. Return whether there were any."""
        missing, self._missing = list(self._missing), {}
        if not missing:
            return False
        # Daemon threads of their own: a program that hangs delays neither the end of the gateway nor its DNS
        # look-ups.
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
        """End a load: forget the output of programs that the configuration does not name any more."""
        self._kept = {program: kept for program, kept in self._kept.items() if program in self._asked}

    def forget(self) -> None:
        """Forget all output, because secrets have changed: all programs run with the next reload."""
        self._kept = {}
