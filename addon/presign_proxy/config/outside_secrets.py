"""Secrets from outside of a configuration's files, as they are now and as they were the last time."""

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
    """What a configuration gets from outside while it is built, one of these for each time.

    A *signing* secret that cannot be had now is lent by the last time: with it, a holder is known well enough
    to be told that the connection is not available. Nothing is granted by it, and no credential is lent.
    """

    before: dict[SecretSource, Secret] = field(default_factory=dict)
    read: dict[SecretSource, Secret] = field(default_factory=dict)
    files: dict[Path, State] = field(default_factory=dict)
    """Files of secrets, as they were before each was read."""
    lacking: list[Problem] = field(default_factory=list)
    programs: Programs = field(default_factory=Programs)
    """The same ones each time: they keep what they have printed."""
    strict: bool = False
    """Whether a secret that cannot be had is an error, as at the start; else only its connection suffers."""

    def secret(self, source: SecretSource, base: Path, environ: Mapping[str, str]) -> Secret:
        """The secret itself.

        Args:
            base: the directory from which relative paths count, and in which programs run.

        Raises SecretError, and Missing where a program has to run first.
        """
        if source.file is not None:
            path = base / source.file
            self.files[path] = state_of(path)  # before it is read
        if source.exec is not None:
            found = self.programs.secret(source, base)
        else:
            found = resolve(source, base, environ)
        if source.literal is None:
            self.read[source] = found
        return found

    def of_the_last_time(self, source: SecretSource) -> Secret:
        """An empty one where it was not had then either."""
        return self.before.get(source, _UNSET)

    def anew(self, *, strict: bool | None = None) -> Lent:
        """For building the same configuration once more, with what programs have printed by now."""
        return Lent(self.before, programs=self.programs, strict=self.strict if strict is None else strict)

    def again(self) -> Lent:
        """For the next configuration, now that this one is in force."""
        before = {**self.before, **self.read} if self.lacking else self.read
        return Lent(before, programs=self.programs)
