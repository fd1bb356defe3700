"""Environments that hold nothing of the checkout, and what is run in them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# How the machine reaches its package index; nothing else of its environment is handed on.
_OF_THE_INDEX = ("PIP_", "UV_", "SSL_CERT_", "REQUESTS_CA_BUNDLE", "NO_PROXY", "HTTPS_PROXY")
MINUTES = 10 * 60.0
PYTHON = Path(sys._base_executable).parent
"""Where a Python is that is new enough; what is installed must not need the one that runs the tests."""


def bare_environment(home: Path, *directories: Path) -> dict[str, str]:
    """A home, a PATH, and what package clients need; no PYTHONPATH, nothing of the checkout."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(_OF_THE_INDEX)}
    path = os.pathsep.join([*map(str, directories), "/usr/bin", "/bin"])
    return {
        "UV_SYSTEM_CERTS": "1",  # as in pyproject.toml, which only counts inside the project
        **kept,
        "PATH": path,
        "HOME": str(home),
        "LANG": "C.UTF-8",
    }


def run(argv: list[str], env: Mapping[str, str], cwd: Path, stdin: str = "") -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(
        argv, env=env, cwd=cwd, input=stdin, capture_output=True, text=True, timeout=MINUTES, check=False
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout
