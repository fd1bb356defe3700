"""What has to be there before anything of the package can run, told in one sentence where it is not.

Read by every Python: nothing newer than Python 3.6 may stand here, and in `__init__.py`.
"""

import sys

OLDEST = (3, 12)
MITMPROXY = ((12, 2, 3), (13,))
"""The oldest version that is supported, and the first that is not any more; as pyproject.toml has them."""
INSTALL_MITMPROXY = "pip install 'mitmproxy>={},<{}'".format(*(".".join(map(str, one)) for one in MITMPROXY))


def check_python() -> None:
    """Raises ImportError; ends the process where the command was called.

    A program that imports the package may want to handle it. Who called the command reads one sentence.
    """
    if sys.version_info >= OLDEST:
        return
    oldest, found = (".".join(map(str, version)) for version in (OLDEST, sys.version_info[:3]))
    text = f"presign-proxy needs Python {oldest} or later; {sys.executable} is Python {found}"
    # `-m` is what Python writes there while it looks for the module that it is to run.
    if sys.argv[0] == "-m" or sys.argv[0].endswith(("/presign", "/presign-proxy")):
        sys.exit("presign: " + text)
    raise ImportError(text)


def missing(error: ModuleNotFoundError) -> str:
    """What to do about a package that is not installed. Raises `error` where it is a module of this one."""
    name = (error.name or "").partition(".")[0]
    if name in ("", "presign_proxy"):
        raise error
    what = f"presign: {sys.executable} has no package {name}"
    return f"{what}: install presign-proxy with pip, or, in a checkout, run tools/setup and .venv/bin/presign"


def unsupported_mitmproxy(found: str = "") -> str:
    """Why this mitmproxy cannot be used, or nothing. Raises ModuleNotFoundError where there is none.

    Args:
        found: its version; else that of the package which is installed.
    """
    if not found:
        from importlib.metadata import version

        found = version("mitmproxy")
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in found.split(".")[:3])
    oldest, end = MITMPROXY
    if oldest <= numbers < end:
        return ""
    return f"mitmproxy {found} is not supported: {INSTALL_MITMPROXY}"
