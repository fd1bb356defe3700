"""Edit the registry's file: read it as data, change it, and write it back whole, under a lock."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, Final

import yaml

from ...config_problems import ConfigError, Problem
from ...regexes import late
from ...signing import grammar
from .. import strict_json
from ..strict_yaml import parse
from .encryption import Opener, VaultError, seal
from .open import read_payload
from .revoked_entries import Present, present
from .storage import PrivateFileError, lock, write_private

_YAML: Final = (".yaml", ".yml")
_HEAD: Final = "# Written by `presign connections`, which keeps no comments.\n"
_END: Final = "...\n"
"""YAML's own end mark: a file that was cut off does not have it (`whole_file`)."""
_ID: Final = late(grammar.CONNECTION_ID)


class Draft:
    """The content of a registry as data: `connections` and `revoked`, unparsed."""

    def __init__(self, path: Path, openers: Sequence[Opener] | None, data: dict[str, Any]) -> None:
        self.path = path
        self.openers = openers
        self._data = data
        self._before: Present = {}

    @classmethod
    def read(cls, path: Path, openers: Sequence[Opener] | None) -> Draft:
        """Read the file. Raises ConfigError."""
        with naming(path):
            payload = read_payload(path, openers).plain
        is_yaml = openers is None and path.suffix in _YAML
        data = parse(payload, str(path)).data if is_yaml else from_json(payload, path)
        found = cls(path, openers, shaped(data, path))
        found._before = present(data) or {}
        return found

    @property
    def connections(self) -> dict[str, Any]:
        found: dict[str, Any] = self._section(self._data, "connections")
        return found

    def revoked(self, what: str) -> dict[str, Any]:
        """Return one section of `revoked`: `urls`, `keys`, `ids`, `connections` or `added_before`."""
        return self._section(self._section(self._data, "revoked"), what)

    def content(self, name: str) -> Any:
        """Return a section without parsing it, {} if there is none."""
        return self._data.get(name) or {}

    @staticmethod
    def _section(data: dict[str, Any], name: str) -> dict[str, Any]:
        if data.get(name) is None:
            data[name] = {}
        found: dict[str, Any] = data[name]
        return found

    @property
    def payload(self) -> bytes:
        """The content as JSON, one connection per line: gateways parse only the lines that have changed."""
        connections = ",\n".join(f"{_json(name)}:{_json(entry)}" for name, entry in self.connections.items())
        rest = {name: entry for name, entry in self._data.items() if name not in ("connections", "revoked")}
        if revoked := {what: found for what, found in self.content("revoked").items() if found}:
            rest["revoked"] = revoked
        others = "".join(f",\n{_json(name)}:{_json(entry)}" for name, entry in rest.items())
        return f'{{"connections":{{\n{connections}\n}}{others}\n}}\n'.encode()

    def instead_of(self, other: Draft) -> None:
        """Treat everything that the other draft had, and this one does not have, as removed."""
        self._before = other._before

    def write(self) -> None:
        """Write the file, and the notice of what it revokes.

        Raises ConfigError; the old file is then unchanged.
        """
        from .notice import write_notice  # here, because most readers of a registry do not write it

        if self.openers is None and self.path.suffix in _YAML:
            plain = json.loads(self.payload)  # a copy without shared objects, which YAML writes as aliases
            content = (_HEAD + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True) + _END).encode()
        elif self.openers is None:
            content = self.payload
        else:
            content = seal(self.payload, self.openers[0])
        with naming(self.path):
            write_private(self.path, content)
            write_notice(self.path, content, self._data, self._before)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn a PrivateFileError or VaultError into a ConfigError that names the file."""
    try:
        yield
    except (PrivateFileError, VaultError) as error:
        raise ConfigError([Problem(str(path), 0, 0, "", str(error))]) from None


@contextlib.contextmanager
def changing(path: Path, openers: Sequence[Opener] | None) -> Iterator[Draft]:
    """Lock a registry and yield its draft. The block calls `write` to keep changes. Raises ConfigError."""
    with naming(path), lock(path):
        yield Draft.read(path, openers)


def shaped(data: Any, path: Path) -> dict[str, Any]:
    """Return the data if it has the outline of a registry; the inside of connections is not checked.

    Raises ConfigError.
    """
    if not isinstance(data, dict) or not data.keys() & {"connections", "revoked"}:
        raise ConfigError([Problem(str(path), 0, 0, "", "is not a registry: it has no connections")])
    entries, revoked = data.get("connections"), data.get("revoked")
    wrong = [(name, "is not a key of a registry") for name in data.keys() - {"connections", "revoked"}]
    sections = {"connections": entries, "revoked": revoked}
    wrong += [(name, "has to be a mapping") for name, found in sections.items() if not _is_mapping(found)]
    for name, entry in entries.items() if isinstance(entries, dict) else ():
        if not _ID.fullmatch(name):
            wrong.append(("connections", "a connection id is 1 to 64 of A-Z a-z 0-9 _ -"))
        elif not isinstance(entry, dict):
            wrong.append((f"connections.{name}", "has to be a mapping"))
    for name, section in revoked.items() if isinstance(revoked, dict) else ():
        if not _is_mapping(section):
            wrong.append((f"revoked.{name}", "has to be a mapping"))
    if wrong:
        raise ConfigError([Problem(str(path), 0, 0, where, why) for where, why in sorted(wrong)])
    return data


def _is_mapping(found: Any) -> bool:
    return found is None or isinstance(found, dict)


def from_json(payload: bytes, path: Path) -> Any:
    """Parse the JSON of a registry. Raises ConfigError."""
    try:
        text = payload.decode("utf-8")
        found, end = strict_json.value(text, len(text) - len(text.lstrip(" \t\r\n")))
        strict_json.end(text, end)
        if "\\ud" in text.lower():
            _json(found).encode("utf-8")  # fails for an escape of half a character (a lone surrogate)
        return found
    except UnicodeError:
        why = "is not UTF-8"
    except JSONDecodeError as error:
        why = f"is not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
    except ValueError as error:
        why = f"is not accepted: {error}"
    raise ConfigError([Problem(str(path), 0, 0, "", why)])


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
