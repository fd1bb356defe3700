"""One word for one thing: the words of docs/glossary.md are in use, and their rivals are not."""

from __future__ import annotations

import re

import click
import pytest

from presign_proxy.cli.main import main
from presign_proxy.errors import MESSAGE
from support.documents import DOCS, README
from support.places import ROOT

GLOSSARY = DOCS["glossary.md"]
TERMS = [
    term
    for row in re.findall(r"^\| (\*\*.*?) \|", GLOSSARY, re.MULTILINE)
    for term in re.findall(r"\*\*(.+?)\*\*", row)
]
INSTEAD = {
    r"registry.s key|keys? of the registry|master key": "registry key",
    r"real (API )?key|secret key of the API|upstream key": "API key",
    r"real credential": "credential",
    r"signature secret|signing token|signing password|HMAC secret|shared secret": "signing secret",
    r"id of (a|the) (signing )?key\b": "key id",
    r"presigned (link|address)|signed link": "presigned URL",
    r"path pattern list|permission list": "ceiling",
    r"root certificate": "certificate authority",
    r"fast path|slow path": "lane, flow path",
}
"""What a page might say, and the word that it says."""
# Words of others: a table of providers, and the words themselves.
APART = {"presets.md", "glossary.md"}


def helps(command: click.Command, name: str = "presign") -> dict[str, str]:
    found = {name: command.get_help(click.Context(command, info_name=name))}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for verb in command.list_commands(context):
            if (one := command.get_command(context, verb)) is not None:
                found |= helps(one, f"{name} {verb}")
    return found


def texts() -> dict[str, str]:
    """All that a user reads."""
    example = (ROOT / "config.example.yaml").read_text("utf-8")
    pages = {name: text for name, text in DOCS.items() if name not in APART}
    pages |= {name: (ROOT / name).read_text("utf-8") for name in ("SECURITY.md", "CONTRIBUTING.md")}
    return pages | {"README.md": README, "config.example.yaml": example} | helps(main) | dict(MESSAGE)


@pytest.mark.parametrize("rival", INSTEAD)
def test_nothing_has_a_second_name(rival: str) -> None:
    found = {
        name: said[0]
        for name, text in texts().items()
        if (said := re.search(rf"\b(?:{rival})\b", text, re.IGNORECASE))
    }
    assert not found, f"say: {INSTEAD[rival]}"


@pytest.mark.parametrize("term", TERMS)
def test_each_word_of_the_glossary_is_in_use(term: str) -> None:
    pattern = re.compile(rf"\b{re.escape(term)}", re.IGNORECASE)
    assert [name for name, text in texts().items() if pattern.search(re.sub(r"\s+", " ", text))]


def test_no_word_has_two_rows() -> None:
    assert len(TERMS) > 40
    assert sorted(set(TERMS)) == sorted(TERMS)
