"""Secret values read from their sources: the environment, a file, the output of a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..config_problems import Foreseen
from ..file_access import read_at_most
from ..regexes import late
from ..signing.secret import Secret
from .values import SecretSource

MAX_BYTES: Final = 64 * 1024
# A name is made of words with _ between them. A secret written in place of a name is one long mixed run.
_KEY = late(r"(?=[A-Za-z]*[0-9])(?=[A-Z0-9]*[a-z])[A-Za-z0-9]{16}")
_CONTROL = late(r"[\x00-\x1f\x7f]")
_NO_TEXT = late(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class SecretError(Foreseen):
    """A secret that is not available. The text names the source, never the value."""


def resolve(source: SecretSource, base: Path, environ: Mapping[str, str], *, lines: bool = False) -> Secret:
    """Return the secret itself.

    Args:
        base: the directory that relative paths start from, and that programs run in.
        lines: permit line breaks, as in a private key. Such a secret is never sent itself.

    Raises SecretError.
    """
    if source.literal is not None:
        return checked(source.literal, "it", lines=lines)
    return checked(text_of(source, base, environ), name_of(source), lines=lines)


def name_of(source: SecretSource) -> str:
    """Return what an error calls the source: of a program only the name, as its arguments may be secret."""
    if source.env is not None and _KEY.search(source.env):
        return "the environment variable (its name is needed here, but the given text looks like a secret)"
    if source.env is not None:
        return f"the environment variable {source.env}"
    if source.file is not None:
        return f"the file {source.file}"
    if source.exec is not None:
        return f"the program {Path(source.exec[0]).name}"
    return "it"


def text_of(source: SecretSource, base: Path, environ: Mapping[str, str]) -> str:
    """Return the text at the source, without a last line break of a file or output. Raises SecretError."""
    if source.env is not None:
        return environ.get(source.env, "")
    if source.file is not None:
        return _read(base / source.file)
    if source.exec is not None:
        from .secret_commands import CommandError, output_of  # here, because most secrets need no subprocess

        try:
            return _text(output_of(source.exec, base, environ, MAX_BYTES), name_of(source))
        except CommandError as error:
            raise SecretError(f"{name_of(source)} {error}") from None
    return source.literal or ""


def checked(text: str, where: str, *, lines: bool = False) -> Secret:
    """Return the text as a secret if a header could carry it. Raises SecretError."""
    if not text:
        raise SecretError(f"{where} is not set or empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise SecretError(f"{where} is not UTF-8") from None
    if (_NO_TEXT if lines else _CONTROL).search(text):
        # It would end a header, or the upstream would read something else than the secret.
        raise SecretError(f"{where} holds a line break or another control character")
    return Secret(text)


def _read(path: Path) -> str:
    """Return the text of a file."""
    try:
        raw, _ = read_at_most(path, MAX_BYTES + 1)
    except OSError as error:
        raise SecretError(f"the file {path}: {(error.strerror or 'cannot be read').lower()}") from None
    except ValueError:
        raise SecretError("the path of the file contains a NUL") from None
    if len(raw) > MAX_BYTES:
        raise SecretError(f"the file {path} is larger than {MAX_BYTES} bytes")
    return _text(raw, f"the file {path}")


def _text(raw: bytes, where: str) -> str:
    """Decode, without the last line break, which every editor and most programs add."""
    try:
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise SecretError(f"{where} is not UTF-8") from None
