"""The page of clients says what tests run: each row has its test, and each file of tests its row."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from support.client_table import Row, rows, versions
from support.documents import DOCS
from support.places import ROOT, TESTS

OF_NO_CLIENT = {
    "test_client_habits.py": "habits that many clients have",
    "test_urls.py": "what a client makes of URLs, whichever it is",
}
"""Files of tests/clients whose tests name no client."""


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.client}, {row.test.partition('::')[2]}")
def test_a_row_has_its_test_and_its_version(row: Row) -> None:
    file, _, name = row.test.partition("::")
    tree = ast.parse((TESTS / file).read_text("utf-8"))
    assert name in {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
    assert not row.package or row.package in versions()


def test_each_file_of_clients_has_a_row() -> None:
    shown = {row.test.partition("::")[0].removeprefix("clients/") for row in rows()}
    files = {path.name for path in (TESTS / "clients").glob("test_*.py")}
    assert files - shown == OF_NO_CLIENT.keys()


def test_the_page_is_current() -> None:
    argv = [sys.executable, str(ROOT / "tools/clients"), "--check"]
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_of_presets_leads_to_it() -> None:
    assert "](clients.md)" in DOCS["presets.md"]
