"""Command lines of this installation that can be pasted into the shell that shows them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PACKAGE: Final = "presign_proxy"
_NAMES: Final = ("presign", "presign-proxy")
_OF_UV: Final = frozenset(("UV", "UV_RUN_RECURSION_DEPTH"))
"""Variables that `uv run` and `uvx` set. They also change PATH, but only for the programs they start."""
_ENDINGS: Final = ("", ".exe") if os.name == "nt" else ("",)


def presign(*arguments: str) -> str:
    """Return a command line of `presign`, named as it was called or as it lies beside the running Python."""
    return shlex.join([*_presign(), *arguments])


def _presign() -> list[str]:
    called = sys.argv[0]
    if _name(called) in _NAMES:
        if _is_on_path(_name(called), called):
            return [_name(called)]
        return [called if os.sep in called else f".{os.sep}{called}"]
    module = _by_module()
    if module is not None:
        return module
    # In a worker of `presign serve` or in mitmdump, name the command of the same installation.
    for directory in _directories():
        if _runs(path := str(directory / _NAMES[0])):
            return [_NAMES[0] if _is_on_path(_NAMES[0], path) else path]
    return [sys.executable, "-m", _PACKAGE]


def _by_module() -> list[str] | None:
    """Return the words up to `-m presign_proxy`; None if the command was not called that way."""
    words = sys.orig_argv
    for at, word in enumerate(words[1:], 1):
        if word == f"-m{_PACKAGE}" or (word == _PACKAGE and words[at - 1] == "-m"):
            return words[: at + 1]
    return None


def _directories() -> Iterator[Path]:
    """Yield the directories that may contain the scripts of this installation."""
    yield Path(sys.executable).parent
    import sysconfig  # here, because it is seldom needed and slow to import

    yield Path(sysconfig.get_path("scripts"))
    if (user := f"{os.name}_user") in sysconfig.get_scheme_names():
        yield Path(sysconfig.get_path("scripts", user))


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".exe")


def _is_on_path(name: str, path: str) -> bool:
    """Return whether the shell finds this very file under its name."""
    if not _OF_UV.isdisjoint(os.environ):
        return False
    places = (os.path.join(directory, name) for directory in os.get_exec_path())  # noqa: PTH118 - may be ""
    found = next(filter(_runs, places), None)
    if found is None:
        return False
    if os.sep not in path:
        return True
    try:
        return Path(found).samefile(path)
    except OSError:
        return False


def _runs(path: str) -> bool:
    """Return whether a path is a program; on Windows also if the path lacks the ending.

    Importing `shutil.which` would take longer than everything else here, at every start of the command.
    """
    return any(
        Path(f"{path}{ending}").is_file() and os.access(f"{path}{ending}", os.X_OK) for ending in _ENDINGS
    )
