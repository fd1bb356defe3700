"""Secret values from where they are kept: the environment or a file, read once, when the configuration is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .schema import SecretSource
from .secret import Secret

MAX_BYTES: Final = 64 * 1024


class SecretError(Exception):
    """A secret that cannot be had. The text names the source, never the value."""


def resolve(source: SecretSource, base: Path, environ: Mapping[str, str]) -> Secret:
    """The secret itself.

    Args:
        base: the directory from which relative paths count.

    Raises SecretError.
    """
    if source.env is not None:
        text = environ.get(source.env, "")
        where = f"the environment variable {source.env}"
    elif source.file is not None:
        text = _read(base / source.file)
        where = f"the file {source.file}"
    else:
        text, where = source.literal or "", "it"
    if not text:
        raise SecretError(f"{where} is not set or empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise SecretError(f"{where} is not UTF-8") from None
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        # It would end a header, or be sent as something else than what was meant.
        raise SecretError(f"{where} holds a line break or another control character")
    return Secret(text)


def _read(path: Path) -> str:
    """The text of a file without its last line break, which every editor adds."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise SecretError(f"the file {path} is larger than {MAX_BYTES} bytes")
        return raw.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise SecretError(f"the file {path}: {(error.strerror or 'cannot be read').lower()}") from None
    except UnicodeDecodeError:
        raise SecretError(f"the file {path} is not UTF-8") from None
    except ValueError:
        raise SecretError("the path of the file holds a NUL") from None
