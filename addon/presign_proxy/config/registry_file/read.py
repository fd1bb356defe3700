"""Read the registry's file, encrypted or plain: connections that the command manages, and revocations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

from ...config_problems import ConfigError, Problem
from ...core.revocations import Revocations
from ..presets.apply import Presets
from ..strict_yaml import Document, parse
from ..whole_file import Form
from . import revoked_entries
from .build import Builder, Registered, from_yaml
from .encryption import VaultError
from .entries import Entries
from .memory import Memory
from .open import Payload, RegistryPlace, openers_of, read_payload
from .storage import PrivateFileError

_YAML: Final = (".yaml", ".yml")


class SeenRegistry:
    """The file of a registry, read and split into entries. Nothing is built yet, and no secret is read.

    `digest` is of the file. `form` tells whether a YAML file is whole. It is None for other files, which can
    be read only if they are whole.
    """

    def __init__(self, path: Path, payload: Payload, *, sealed: bool, memory: Memory) -> None:
        self.path = path
        self.digest = payload.digest
        self.form: Form | None = None
        self._payload = payload.plain
        self._sealed = sealed
        self._memory = memory
        self._context = memory.context
        """The context in which the kept entries were built."""
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
        """True if the file was read completely: a connection that is not in it is not in the registry."""
        return not self._problems

    def taken_back(self) -> Revocations:
        """Return everything the file revokes or disables, as far as it could be read."""
        if self._document is not None:
            return revoked_entries.said(self._document.data)
        return self._entries.taken_back()

    def present(self) -> dict[str, frozenset[str]] | None:
        """Return its connections with the ids of their keys; None if it has no section `connections`."""
        if self._document is not None:
            return revoked_entries.present(self._document.data)
        return self._entries.present()

    def build(self, environ: Mapping[str, str], base: Path, presets: Presets) -> Registered:
        """Build its connections, and update the memory if there are no problems.

        Args:
            base: the directory that relative paths in the file start from.

        Raises ConfigError with all problems.
        """
        memory = self._memory
        if self._document is not None:
            return from_yaml(self._document, self.path, environ, base, presets, memory)
        if self._problems:
            self._refuse(self._problems, environ, base, presets)
        context = (self.path, base, presets)
        if self._context != context and self._entries.kept:
            self._entries = Entries(self.path, {})  # with other presets, all connections may be different
            self._entries.read(self._payload)
        builder = Builder(self.path, environ, base, presets, memory)
        problems = builder.build(self._entries)
        if problems:
            self._refuse(problems, environ, base, presets)
        before, memory.context, memory.known = memory.known, context, builder.known
        # For a second build, if a program had to run first.
        self._context = context
        self._entries.keep(builder.known)
        while before:  # freeing all at once would block other threads noticeably
            before.popitem()
        return builder.found

    def _refuse(
        self, problems: list[Problem], environ: Mapping[str, str], base: Path, presets: Presets
    ) -> NoReturn:
        """Raise ConfigError, if possible with line numbers."""
        if not self._sealed and self.path.suffix not in _YAML:
            # All JSON is YAML, and our YAML parser gives line numbers.
            again = parse(self._payload, str(self.path))
            from_yaml(again, self.path, environ, base, presets, self._memory)
        raise ConfigError(problems)


def see_registry(
    path: Path, config: RegistryPlace, environ: Mapping[str, str], base: Path, memory: Memory
) -> SeenRegistry:
    """Read a registry's file.

    Args:
        base: the directory that relative paths start from.
        memory: of the last load.

    Raises ConfigError if the file cannot be opened. `SeenRegistry.build` reports what is wrong inside.
    """
    try:
        openers = openers_of(config, base, environ)
        payload = read_payload(path, openers)
    except (PrivateFileError, VaultError) as error:
        raise ConfigError([Problem(str(path), 0, 0, "", str(error))]) from None
    return SeenRegistry(path, payload, sealed=openers is not None, memory=memory)
