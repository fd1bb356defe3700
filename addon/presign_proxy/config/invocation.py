"""How to call this installation's commands, in words that can be pasted into the shell that sees them."""

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
"""What `uv run` and `uvx` tell the programs that they start, beside a PATH that the shell has not."""
_ENDINGS: Final = ("", ".exe") if os.name == "nt" else ("",)


def presign(*arguments: str) -> str:
    """A command line of `presign`, named as it was called, or as it lies beside the running Python."""
    return shlex.join([*_presign(), *arguments])


def mitmdump() -> str:
    """The `mitmdump` that can import this package: another one on the PATH has its own packages."""
    for directory in _directories():
        if _runs(path := str(directory / "mitmdump")):
            return "mitmdump" if _is_on_path("mitmdump", path) else shlex.quote(path)
    return "mitmdump"


def _presign() -> list[str]:
    called = sys.argv[0]
    if _name(called) in _NAMES:
        if _is_on_path(_name(called), called):
            return [_name(called)]
        return [called if os.sep in called else f".{os.sep}{called}"]
    module = _by_module()
    if module is not None:
        return module
    # A worker of `presign serve`, or mitmdump: the command is that of the same installation.
    for directory in _directories():
        if _runs(path := str(directory / _NAMES[0])):
            return [_NAMES[0] if _is_on_path(_NAMES[0], path) else path]
    return [sys.executable, "-m", _PACKAGE]


def _by_module() -> list[str] | None:
    """The words up to `-m presign_proxy`, where it was called so."""
    words = sys.orig_argv
    for at, word in enumerate(words[1:], 1):
        if word == f"-m{_PACKAGE}" or (word == _PACKAGE and words[at - 1] == "-m"):
            return words[: at + 1]
    return None


def _directories() -> Iterator[Path]:
    """Where the scripts of this installation may lie."""
    yield Path(sys.executable).parent
    import sysconfig  # seldom needed, and not for nothing

    yield Path(sysconfig.get_path("scripts"))
    if (user := f"{os.name}_user") in sysconfig.get_scheme_names():
        yield Path(sysconfig.get_path("scripts", user))


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".exe")


def _is_on_path(name: str, path: str) -> bool:
    """Whether the shell finds this very file under its name."""
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
    """Whether a path is that of a program; under Windows also without its ending.

    `shutil.which` takes longer to import than all the rest here, and every start of the command would wait.
    """
    return any(
        Path(f"{path}{ending}").is_file() and os.access(f"{path}{ending}", os.X_OK) for ending in _ENDINGS
    )
