"""A configuration's files as they were read: what they take back is known, and nothing is built yet."""

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
from .registry_file import taken_back
from .registry_file.memory import Memory
from .registry_file.notice import Notice, place_of, read_notice
from .registry_file.open import digest_of
from .registry_file.read import SeenRegistry, see_registry
from .registry_file.storage import PrivateFileError
from .schema.config import RegistryConfig
from .strict_yaml import Document, read
from .whole_file import NEVER, Form, patience


class FileRecord(NamedTuple):
    """What a configuration was read from, without what stands in it.

    Args:
        files: each in the state in which it was before it was read.
        version: a name for the content of configuration and registry, the same for the same files.
        digest: of the registry's file; empty without one.
        notice: what it said, and None where it is not there or cannot be read.
        notice_place: where it is, or would be.
        forms: of the YAML files.
        place: of the registry.
    """

    files: dict[Path, State]
    version: str
    digest: str
    notice: Notice | None
    notice_place: Path | None
    forms: dict[Path, Form]
    place: RegistryConfig | None


class Seen:
    """The configuration, the registry and the notice beside it, each as far as it could be read.

    `files` are those that were looked at, in the state in which they were before they were read. `unread` is
    what is wrong with the configuration, `wrong` with the registry, where they could not be read at all.
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
        """Further files are about to be read."""
        for path in files:
            self.files[path] = state_of(path)

    @property
    def notice_place(self) -> Path | None:
        return place_of(self.path.parent / self.place.file) if self.place is not None else None

    @property
    def digest(self) -> str:
        """Of the registry's file; empty without one."""
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
        """Of the YAML files."""
        found: dict[Path, Form] = {}
        if self.document is not None:
            found[self.path] = self.document.form
        if self.registry is not None and self.registry.form is not None:
            found[self.registry.path] = self.registry.form
        return found

    def patience(self, memory: Memory) -> tuple[float, Path]:
        """For how many seconds the files have to have been left alone, and because of which one."""
        waits = [(patience(form, memory.forms.get(path)), path) for path, form in self.forms.items()]
        return max(waits, key=lambda one: one[0], default=(0.0, self.path))

    def taken_back(self) -> Revocations:
        """What the files say to be revoked or disabled, as far as they could be read.

        Half of a file cannot say so by mistake: it is believed before the file is known to be whole.
        """
        found = taken_back.said(self.document.data if self.document and self._is_ours(self.path) else None)
        if self.registry is not None and self._is_ours(self.registry.path):
            found = found | self.registry.taken_back()
        return found

    @staticmethod
    def _is_ours(path: Path) -> bool:
        """Whether nobody else could have written it: what others write takes nobody out of service."""
        return not writable_by_others(path)

    def removed(self, registry: Registry, memory: Memory) -> Revocations | None:
        """What a registry that is in force has and the files have not; None where that cannot be known.

        Where a file cannot be read. And where its whole section of connections is gone, because that is a
        slip (`conections:`): it takes nobody out of service.
        """
        if self.document is None or self.wrong or not self._is_ours(self.path):
            return None
        if self.registry is not None and not self._is_ours(self.registry.path):
            return None
        now, before = taken_back.present(self.document.data), memory.forms.get(self.path)
        if now is None and before is not None and isinstance(before.outline, dict):
            if "connections" in before.outline:
                return None
        now = now or {}
        if self.registry is not None:
            registered = self.registry.present() if self.registry.is_complete else None
            if registered is None:
                return None
            now.update(registered)
        return taken_back.removed(((one.id, one.key_ids) for one in registry.connections.values()), now)


def lost_mark(path: Path) -> Problem:
    """Why a file is never used as it is."""
    why = (
        "does not end with the line `...` any more, as the file that is in force does: it was cut off, or is "
        "still being written; where it is whole, write that line at its end"
    )
    return Problem(str(path), 0, 0, "", why)


def see(path: Path, environ: Mapping[str, str], memory: Memory) -> Seen:
    """Read what there is to be read; raises nothing.

    Args:
        memory: of the last time; where the configuration cannot be read, it knows where the registry is.
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
    _see_notice(seen, place_of(other))  # first: then the registry is at least as new
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
        return memory.place  # reading the whole says what is wrong with it


def _key_files(place: RegistryConfig, base: Path) -> list[Path]:
    return [base / key.source.file for key in place.key or () if key.source.file is not None]


def _see_notice(seen: Seen, path: Path) -> None:
    try:
        seen.notice = read_notice(path)
    except PrivateFileError as error:
        if state_of(path) is not None:
            why = f"{error}; what is revoked is read from the registry itself, which takes longer"
            seen.warnings.append(Problem(str(path), 0, 0, "", why))


__all__ = ["NEVER", "Seen", "lost_mark", "see"]
