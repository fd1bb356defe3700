"""Files in PEM form: certificates and private keys, read and parsed without showing what is in them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ..file_access import read_at_most

MAX_BYTES: Final = 2 * 1024 * 1024
"""The most bytes of a file: all authorities of a system have some 250,000."""
_OTHERS: Final = 0o007


def read_certificates(path: Path, wrong: Callable[[str], None]) -> tuple[str, list[x509.Certificate]] | None:
    """Return the text of a file and its certificates, at least one. Return None if `wrong` was told why."""
    found = _read(path, x509.load_pem_x509_certificates, "certificate", wrong)
    return (found[0].decode("latin-1"), found[1]) if found is not None else None


def read_private_key(path: Path, wrong: Callable[[str], None]) -> tuple[str, Any] | None:
    """Return the text of a file and its private key, which has no password. Return None as above.

    A file that everybody can read is told as well, although its key is returned.
    """
    found = _read(path, lambda raw: load_pem_private_key(raw, None), "private key", wrong)
    return (found[0].decode("latin-1"), found[1]) if found is not None else None


def _read(
    path: Path, parse: Callable[[bytes], Any], what: str, wrong: Callable[[str], None]
) -> tuple[bytes, Any] | None:
    """Read and parse a file. The parser's message is not repeated: it may quote the file."""
    try:
        raw, found = read_at_most(path, MAX_BYTES)
        if what == "private key" and os.name == "posix" and found.st_mode & _OTHERS:
            wrong(f"is readable by everybody: chmod o-rwx {path}")
        with warnings.catch_warnings(action="ignore"):  # of old authorities, whose owners nobody here is
            return raw, parse(raw)
    except OSError as error:
        why = f"{path}: {(error.strerror or 'cannot be read').lower()}"
    except TypeError:
        why = "is encrypted: the gateway cannot ask for a password, so use a key without one"
    except Exception:  # any error of the parser
        why = f"holds no {what} in PEM form"
    wrong(why)
    return None
