"""Secrets from outside the configuration's files, as they are now and as they were at the last load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..config_problems import Problem
from ..signing.secret import Secret
from .file_versions import State, state_of
from .secret_programs import Programs
from .secret_sources import resolve
from .values import SecretSource

_UNSET = Secret("")


@dataclass(slots=True)
class Lent:
    """The outside secrets of one build of the configuration.

    If a *signing* secret is not available now, the one of the last load is lent. With it the gateway verifies
    a holder and answers that the connection is not available. It grants nothing with it. Credentials are
    never lent.
    """

    before: dict[SecretSource, Secret] = field(default_factory=dict)
    read: dict[SecretSource, Secret] = field(default_factory=dict)
    files: dict[Path, State] = field(default_factory=dict)
    """Files of secrets, each in the state it had before it was read."""
    lacking: list[Problem] = field(default_factory=list)
    programs: Programs = field(default_factory=Programs)
    """The same object for each build: it caches what the programs have printed."""
    strict: bool = False
    """True if a missing secret is an error, as at the start. Else only its connection is unavailable."""

    def secret(
        self, source: SecretSource, base: Path, environ: Mapping[str, str], *, lines: bool = False
    ) -> Secret:
        """Return the secret itself.

        Args:
            base: the directory that relative paths start from, and that programs run in.
            lines: permit line breaks.

        Raises SecretError, and Missing if a program has to run first.
        """
        if source.file is not None:
            path = base / source.file
            self.files[path] = state_of(path)  # before reading it, so that a later change is noticed
        if source.exec is not None:
            found = self.programs.secret(source, base)
        else:
            found = resolve(source, base, environ, lines=lines)
        if source.literal is None:
            self.read[source] = found
        return found

    def previous(self, source: SecretSource) -> Secret:
        """Return the secret of the last load; empty if it was not available then either."""
        return self.before.get(source, _UNSET)

    def for_next_build(self, *, strict: bool | None = None) -> Lent:
        """Return the secrets for another build of the same load, with what programs have printed by now."""
        return Lent(self.before, programs=self.programs, strict=self.strict if strict is None else strict)

    def for_next_load(self) -> Lent:
        """Return the secrets for the next load, now that this configuration is in force."""
        before = {**self.before, **self.read} if self.lacking else self.read
        return Lent(before, programs=self.programs)
