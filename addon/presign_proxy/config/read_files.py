"""The files of a configuration after reading and before building: what they revoke is known already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from ..config_problems import ConfigError, Problem
from ..core.registry import Registry
from ..core.revocations import Revocations
from .file_versions import State, state_of
from .permissions import writable_by_others
from .registry_file import revoked_entries
from .registry_file.memory import Memory
from .registry_file.notice import Notice, place_of, read_notice
from .registry_file.open import digest_of
from .registry_file.read import SeenRegistry, see_registry
from .registry_file.storage import PrivateFileError
from .schema.config import RegistryConfig
from .strict_yaml import Document, read
from .whole_file import NEVER, Form, patience


class FileRecord(NamedTuple):
    """The files that a configuration was read from, without their content.

    Args:
        files: each in the state it had before it was read.
        version: a name for the content of configuration and registry, the same for the same content.
        digest: of the registry's file; empty without one.
        notice: its content; None if it does not exist or cannot be read.
        notice_place: its path, whether it exists or not.
        forms: of the YAML files.
        place: the section `registry`.
    """

    files: dict[Path, State]
    version: str
    digest: str
    notice: Notice | None
    notice_place: Path | None
    forms: dict[Path, Form]
    place: RegistryConfig | None


class Seen:
    """The configuration, the registry and its notice, each as far as it could be read.

    `files` has each file in the state it had before it was read. `unread` says why the configuration could
    not be read at all, `wrong` says the same of the registry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[Path, State] = {}
        self.document: Document | None = None
        self.unread: list[Problem] = []
        self.place: RegistryConfig | None = None
        self.registry: SeenRegistry | None = None
        self.wrong: list[Problem] = []
        self.notice: Notice | None = None
        self.warnings: list[Problem] = []

    def look_at(self, files: Iterable[Path]) -> None:
        """Remember the state of further files before they are read."""
        for path in files:
            self.files[path] = state_of(path)

    @property
    def notice_place(self) -> Path | None:
        return place_of(self.path.parent / self.place.file) if self.place is not None else None

    @property
    def digest(self) -> str:
        """The digest of the registry's file; empty without one."""
        return self.registry.digest if self.registry is not None else ""

    def record(self) -> FileRecord:
        raw = self.document.raw if self.document is not None else b""
        return FileRecord(
            self.files,
            digest_of(raw + self.digest.encode())[:12],
            self.digest,
            self.notice,
            self.notice_place,
            self.forms,
            self.place,
        )

    @property
    def forms(self) -> dict[Path, Form]:
        """The forms of the YAML files."""
        found: dict[Path, Form] = {}
        if self.document is not None:
            found[self.path] = self.document.form
        if self.registry is not None and self.registry.form is not None:
            found[self.registry.path] = self.registry.form
        return found

    def patience(self, memory: Memory) -> tuple[float, Path]:
        """Return for how many seconds the files must not have changed, and which file needs that."""
        waits = [(patience(form, memory.forms.get(path)), path) for path, form in self.forms.items()]
        return max(waits, key=lambda one: one[0], default=(0.0, self.path))

    def taken_back(self) -> Revocations:
        """Return everything the files revoke or disable, as far as they could be read.

        A file that is cut off cannot revoke anything by mistake. So this is believed before the file is known
        to be whole.
        """
        found = revoked_entries.said(
            self.document.data if self.document and self._is_ours(self.path) else None
        )
        if self.registry is not None and self._is_ours(self.registry.path):
            found = found | self.registry.taken_back()
        return found

    @staticmethod
    def _is_ours(path: Path) -> bool:
        """Return whether only we could have written it. Other users must not take holders out of service."""
        return not writable_by_others(path)

    def removed(self, registry: Registry, memory: Memory) -> Revocations | None:
        """Return what the registry in force has and the files do not have; None if that is unknown.

        It is unknown if a file cannot be read. It is also unknown if the whole section `connections` is gone:
        that is a typing mistake (`conections:`), and must not take holders out of service.
        """
        if self.document is None or self.wrong or not self._is_ours(self.path):
            return None
        if self.registry is not None and not self._is_ours(self.registry.path):
            return None
        now, before = revoked_entries.present(self.document.data), memory.forms.get(self.path)
        if now is None and before is not None and isinstance(before.outline, dict):
            if "connections" in before.outline:
                return None
        now = now or {}
        if self.registry is not None:
            registered = self.registry.present() if self.registry.is_complete else None
            if registered is None:
                return None
            now.update(registered)
        return revoked_entries.removed(((one.id, one.key_ids) for one in registry.connections.values()), now)


def lost_mark(path: Path) -> Problem:
    """Return the problem of a file that has lost its end mark."""
    why = (
        "does not end with the line `...`, but the version in force does: it was cut off, or is still being "
        "written; if it is whole, add that line at its end"
    )
    return Problem(str(path), 0, 0, "", why)


def see(path: Path, environ: Mapping[str, str], memory: Memory) -> Seen:
    """Read everything that can be read; raises nothing.

    Args:
        memory: of the last load. If the configuration cannot be read, it says where the registry is.
    """
    seen = Seen(path)
    seen.look_at([path])
    try:
        seen.document = read(path)
    except ConfigError as error:
        seen.unread = error.problems
    seen.place = _place(seen.document, memory)
    if seen.place is None:
        return seen
    other = path.parent / seen.place.file
    _see_notice(seen, place_of(other))  # before the registry, which is then at least as new
    seen.look_at([other, *_key_files(seen.place, path.parent)])
    try:
        seen.registry = see_registry(other, seen.place, environ, path.parent, memory)
    except ConfigError as error:
        seen.wrong = error.problems
    return seen


def _place(document: Document | None, memory: Memory) -> RegistryConfig | None:
    data = document.data if document is not None else None
    if not isinstance(data, dict):
        return memory.place
    if data.get("registry") is None:
        return None
    try:
        return RegistryConfig.model_validate(data["registry"])
    except ValidationError:
        return memory.place  # building the whole configuration reports the mistake


def _key_files(place: RegistryConfig, base: Path) -> list[Path]:
    return [base / key.source.file for key in place.key or () if key.source.file is not None]


def _see_notice(seen: Seen, path: Path) -> None:
    try:
        seen.notice = read_notice(path)
    except PrivateFileError as error:
        if state_of(path) is not None:
            why = f"{error}; revocations are read from the registry itself, which takes longer"
            seen.warnings.append(Problem(str(path), 0, 0, "", why))


__all__ = ["NEVER", "Seen", "lost_mark", "see"]
