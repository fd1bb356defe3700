"""The registry's file: connections that the command manages, and what is revoked; encrypted, or plain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from ...config_problems import ConfigError, Problem
from ...core.revocations import Revocations
from ..presets.apply import Presets
from ..strict_yaml import Document, parse
from ..whole_file import Form
from . import taken_back
from .build import Builder, Registered, from_yaml
from .encryption import VaultError
from .entries import Entries
from .memory import Memory
from .open import Payload, RegistryPlace, openers_of, read_payload
from .storage import PrivateFileError

_YAML: Final = (".yaml", ".yml")


class SeenRegistry:
    """The file of a registry, read and taken apart; nothing is built of it yet, and no secret is read.

    `digest` is of its file. `form` is what tells whether it is whole, None where it could not be read else.
    """

    def __init__(self, path: Path, payload: Payload, *, sealed: bool, memory: Memory) -> None:
        self.path = path
        self.digest = payload.digest
        self.form: Form | None = None
        self._payload = payload.plain
        self._sealed = sealed
        self._memory = memory
        self._context = memory.context
        """With what those entries were built that are kept."""
        self._document: Document | None = None
        self._problems: list[Problem] = []
        self._entries = Entries(path, memory.known if self._is_known() else {})
        if not sealed and path.suffix in _YAML:
            self._parse()
        else:
            self._problems = self._entries.read(payload.plain)

    def _is_known(self) -> bool:
        context = self._memory.context
        return context is not None and context[0] == self.path

    def _parse(self) -> None:
        try:
            self._document = parse(self._payload, str(self.path))
        except ConfigError as error:
            self._problems = error.problems
        else:
            self.form = self._document.form

    @property
    def is_complete(self) -> bool:
        """Whether what is not in it is not in the registry."""
        return not self._problems

    def taken_back(self) -> Revocations:
        """What it says to be revoked or disabled, as far as it could be read."""
        if self._document is not None:
            return taken_back.said(self._document.data)
        return self._entries.taken_back()

    def present(self) -> dict[str, frozenset[str]] | None:
        """Its connections, and the ids of their keys; None where it has no section of them."""
        if self._document is not None:
            return taken_back.present(self._document.data)
        return self._entries.present()

    def build(self, environ: Mapping[str, str], base: Path, presets: Presets) -> Registered:
        """Build its connections; the memory is brought up to date where everything is well.

        Args:
            base: the directory from which relative paths in it count.

        Raises ConfigError with everything that is wrong.
        """
        memory = self._memory
        if self._document is not None:
            return from_yaml(self._document, self.path, environ, base, presets, memory)
        if self._problems:
            self._refuse(self._problems, environ, base, presets)
        context = (self.path, base, presets)
        if self._context != context and self._entries.kept:
            self._entries = Entries(self.path, {})  # what was built with other presets is another one
            self._entries.read(self._payload)
        builder = Builder(self.path, environ, base, presets, memory)
        problems = builder.build(self._entries)
        if problems:
            self._refuse(problems, environ, base, presets)
        before, memory.context, memory.known = memory.known, context, builder.known
        # Where it is built once more, because a program had to run first.
        self._context = context
        self._entries.keep(builder.known)
        while before:  # all at once, it would be noticed
            before.popitem()
        return builder.found

    def _refuse(
        self, problems: list[Problem], environ: Mapping[str, str], base: Path, presets: Presets
    ) -> NoReturn:
        """Raises ConfigError."""
        if not self._sealed and self.path.suffix not in _YAML:
            # Every JSON is YAML, and YAML has line numbers.
            again = parse(self._payload, str(self.path))
            from_yaml(again, self.path, environ, base, presets, self._memory)
        raise ConfigError(problems)


def see_registry(
    path: Path, config: RegistryPlace, environ: Mapping[str, str], base: Path, memory: Memory
) -> SeenRegistry:
    """Read a registry's file.

    Args:
        base: the directory from which relative paths count.
        memory: of the last time.

    Raises ConfigError where it cannot be opened; what is wrong inside is told by `SeenRegistry.build`.
    """
    try:
        openers = openers_of(config, base, environ)
        payload = read_payload(path, openers)
    except (PrivateFileError, VaultError) as error:
        raise ConfigError([Problem(str(path), 0, 0, "", str(error))]) from None
    return SeenRegistry(path, payload, sealed=openers is not None, memory=memory)
