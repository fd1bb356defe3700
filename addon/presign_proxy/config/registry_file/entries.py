"""Split a JSON registry into its entries. Entries that have not changed are not parsed again."""

from __future__ import annotations

import hashlib
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any

from ...config_problems import Problem
from ...core.revocations import Revocations
from .. import strict_json
from . import revoked_entries
from .memory import Known


class Entries:
    """The parts of a JSON registry. Connections that have not changed are not parsed."""

    def __init__(self, path: Path, before: dict[str, Known]) -> None:
        self._path = path
        self.before = before
        self.kept: dict[str, Known] = {}
        self.fresh: dict[str, tuple[Any, bytes]] = {}
        """New and changed entries, each with the digest of its text."""
        self.names: list[str] = []
        self.sections: dict[str, Any] = {}
        self._has_connections = False
        self._problems: list[Problem] = []
        self._text = ""

    def read(self, payload: bytes) -> list[Problem]:
        """Read the registry. Return everything that is wrong with its grammar."""
        try:
            self._text = payload.decode("utf-8")
            strict_json.end(self._text, strict_json.each(self._text, 0, self._section))
        except UnicodeDecodeError:
            self._wrong("is not UTF-8")
        except JSONDecodeError as error:
            self._wrong(f"is not JSON at line {error.lineno}, column {error.colno}: {error.msg}")
        except ValueError as error:
            self._wrong(f"is not accepted: {error}")
        self._text = ""
        return self._problems

    def keep(self, known: dict[str, Known]) -> None:
        """Move entries that were built from `fresh` to `kept`."""
        for name in self.fresh.keys() & known.keys():
            del self.fresh[name]
            self.kept[name] = known[name]

    def taken_back(self) -> Revocations:
        disabled = [name for name, known in self.kept.items() if not known.connection.enabled]
        disabled += [name for name, (entry, _) in self.fresh.items() if revoked_entries.is_disabled(entry)]
        return revoked_entries.said(self.sections) | Revocations(connections=frozenset(disabled))

    def present(self) -> dict[str, frozenset[str]] | None:
        if not self._has_connections:
            return None
        found = {name: known.connection.key_ids for name, known in self.kept.items()}
        found.update((name, revoked_entries.keys_of(entry)) for name, (entry, _) in self.fresh.items())
        return found

    def _wrong(self, message: str) -> None:
        self._problems.append(Problem(str(self._path), 0, 0, "", message))

    def _section(self, name: str, start: int) -> int:
        if name == "connections":
            self._has_connections = True
            return strict_json.each(self._text, start, self._connection)
        self.sections[name], end = strict_json.value(self._text, start)
        return end

    def _connection(self, name: str, start: int) -> int:
        text, before = self._text, self.before.get(name)
        self.names.append(name)
        if before is not None:
            # We write one connection per line. If the rest of the line has the digest, it is the whole value.
            end = text.find("\n", start)
            end -= text.startswith(",", end - 1)
            if _digest(text[start:end]) == before.digest:
                self.kept[name] = before
                return end
        found, end = strict_json.value(text, start)
        self.fresh[name] = found, _digest(text[start:end])
        return end


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
