"""The threat model names tests that exist, and every actor has a row."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from support.documents import DOCS
from support.places import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
ACTORS = (
    "holder of a URL",
    "holder of a signing secret",
    "client on the network",
    "upstream, hostile or compromised",
    "another addon or script",
    "person at mitmweb",
    "other users of the machine",
    "operator's mistakes",
    "supply chain",
    "network attacker behind the gateway",
    "DNS attacker",
)


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def rows() -> list[list[str]]:
    lines = [line for line in DOCS["threat-model.md"].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "---" not in line][1:]


@pytest.mark.parametrize("name", ["threat-model.md", "security-testing.md", "running.md"])
def test_every_test_that_is_named_exists(name: str) -> None:
    named = NAMED.findall(DOCS[name])
    assert [f"{file}::{test}" for file, test in named if test not in names_in(file)] == []
    # Whatever looks like a test is one, spelled so that it is found.
    assert DOCS[name].count("::test_") == len(named)


def test_every_command_that_is_named_exists() -> None:
    for script in re.findall(r"\b((?:bench|tests|tools)/[\w/]+\.py)", DOCS["security-testing.md"]):
        assert (ROOT / script).is_file(), script


def test_every_row_says_what_is_done_and_shows_it() -> None:
    for row in rows():
        assert len(row) == 5, row
        assert row[1], row
        assert row[2], row
        assert NAMED.search(row[3]), row


@pytest.mark.parametrize("actor", ACTORS)
def test_every_actor_has_a_row(actor: str) -> None:
    assert f"**{actor}**" in [row[0] for row in rows()]
