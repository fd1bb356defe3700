"""The manual page: it says what the help says, and renders without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from presign_proxy.cli.main import VERBS
from support.places import ROOT

PAGE = ROOT / "docs/presign.1"


def test_the_manual_page_is_what_tools_manual_writes() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/manual", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.needs("man")
@pytest.mark.parametrize("width", ["60", "80"])
def test_the_manual_page_renders_without_a_warning(width: str) -> None:
    """Also under the name that a user types: `man ./presign.1`."""
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "./presign.1"],
        capture_output=True,
        text=True,
        cwd=PAGE.parent,
        env={**os.environ, "MANWIDTH": width, "MANPAGER": "cat", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(r"‐\s+|\s+", " ", re.sub(r".\x08", "", done.stdout))
    for name, verb in VERBS.items():
        assert f"presign {name}" in text
        if name != "connections":  # the verbs below it are there instead
            assert verb.help.split()[0] in text
    for name in ("connections add", "connections edit"):
        assert f"presign {name}" in text
