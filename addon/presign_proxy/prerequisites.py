"""Checks for what the package needs to run: the Python version, its dependencies and the mitmproxy version.

Every Python version reads this file and `__init__.py`, so both use only the syntax of Python 3.6.
"""

import sys

OLDEST = (3, 12)
MITMPROXY = ((12, 2, 3), (13,))
"""The oldest supported version, and the first version that is too new. The same as in pyproject.toml."""
INSTALL_MITMPROXY = "pip install 'mitmproxy>={},<{}'".format(*(".".join(map(str, one)) for one in MITMPROXY))


def check_python() -> None:
    """Check the version of Python. Raises ImportError; in the command, ends the process with one sentence.

    A program that imports the package may want to handle the ImportError.
    """
    if sys.version_info >= OLDEST:
        return
    oldest, found = (".".join(map(str, version)) for version in (OLDEST, sys.version_info[:3]))
    text = f"presign-proxy needs Python {oldest} or later; {sys.executable} is Python {found}"
    # Python sets argv[0] to `-m` while it looks for the module to run.
    if sys.argv[0] == "-m" or sys.argv[0].endswith(("/presign", "/presign-proxy")):
        sys.exit("presign: " + text)
    raise ImportError(text)


def missing(error: ModuleNotFoundError) -> str:
    """Return a sentence that says how to install a missing package.

    Raises `error` again if the missing module belongs to this package.
    """
    name = (error.name or "").partition(".")[0]
    if name in ("", "presign_proxy"):
        raise error
    what = f"presign: {sys.executable} has no package {name}"
    return f"{what}: install presign-proxy with pip, or, in a checkout, run tools/setup and .venv/bin/presign"


def unsupported_mitmproxy(found: str = "") -> str:
    """Return why this version of mitmproxy is not supported; empty if it is supported.

    Raises ModuleNotFoundError if mitmproxy is not installed.

    Args:
        found: the version of mitmproxy; by default that of the installed package.
    """
    if not found:
        from importlib.metadata import version

        found = version("mitmproxy")
    numbers = tuple(int(part) if part.isdecimal() else 0 for part in found.split(".")[:3])
    oldest, end = MITMPROXY
    if oldest <= numbers < end:
        return ""
    return f"mitmproxy {found} is not supported: {INSTALL_MITMPROXY}"
