"""A syntax error in a file hides none of its other errors: all are told in one round."""

from __future__ import annotations

from pathlib import Path

import pytest

from presign_proxy.config.load import load
from presign_proxy.config_problems import ConfigError

HEAD = """\
gateway:
  unsigned: pass
connections:
  conn_a:
    upstream: https://a.test
    auth: {type: bearer, token: sk-KEY-0123456789}
    signing_keys: [{secret: abc-short}]
    alow: {methods: [GET]}
"""
OPEN = """\
  conn_b:
    upstream: https://b.test
    auth: {type: bearer, token: "sk-KEY-0123456789
    signing_keys: [{secret: sk_0123456789abcdef0123456789}]
"""
TAIL = """\
  conn_c:
    upstream: https://c.test
    auth: {type: bearer, token: sk-KEY-0123456789}
    signing_keys: [{secret: defshort}]
    max_lifetime: 7 fortnights
"""


def told(path: Path, text: str) -> list[str]:
    """The problems of a file, each as its line and what it says, without the place."""
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as error:
        load(path, {})
    assert "sk-KEY" not in str(error.value)
    return [f"{one.line} {one.path.rpartition('.')[2]} {one.message}" for one in error.value.problems]


def begin(found: list[str], *heads: str) -> None:
    assert len(found) == len(heads), found
    for line, head in zip(found, heads, strict=True):
        assert line.startswith(head), found


def test_a_short_secret_is_told_of_beside_a_misspelt_key_of_the_same_connection(tmp_path: Path) -> None:
    found = told(tmp_path / "config.yaml", HEAD)
    begin(found, "7 secret is shorter", "8 alow is not a key that is known here: did you mean allow?")


@pytest.mark.parametrize(("broken", "line"), [
    ("  : bad\n", 9),
    ("  conn_b: {upstream: https://b.test\n", 10),
    ("  conn_b\n    upstream: https://b.test\n    auth: {type: none}\n", 10),
], ids=["no key", "no bracket", "a block without its colon"])  # fmt: skip
def test_a_syntax_error_is_told_of_with_the_errors_before_and_after_it(
    broken: str, line: int, tmp_path: Path
) -> None:
    found = told(tmp_path / "config.yaml", HEAD + broken + TAIL)
    after = 8 + broken.count("\n")
    begin(
        found,
        "7 secret is shorter",
        "8 alow is not a key",
        f"{line}  is not valid YAML",
        f"{after + 4} secret is shorter",
        f"{after + 5} max_lifetime has to be a duration",
    )
    assert not any("not checked" in one for one in found)


def test_two_syntax_errors_are_both_told_of(tmp_path: Path) -> None:
    found = told(tmp_path / "config.yaml", HEAD + "  : bad\n" + OPEN + TAIL)
    assert [one.split()[0] for one in found if "not valid YAML" in one] == ["9", "19"]
    assert any("fortnights" not in one and "max_lifetime has to be" in one for one in found)


def test_what_cannot_be_salvaged_says_that_more_may_follow(tmp_path: Path) -> None:
    (problem,) = told(tmp_path / "config.yaml", HEAD + "  : bad\n" * 12)
    assert problem.endswith("the text after it was not checked")


def test_a_key_that_is_missing_with_the_broken_block_is_no_error_of_its_own(tmp_path: Path) -> None:
    text = "connections:\n  conn_a:\n    upstream: https://a.test\n    auth\n    max_uses: 3\n"
    (problem,) = told(tmp_path / "config.yaml", text)
    assert "is not valid YAML" in problem


@pytest.mark.parametrize(("text", "line"), [
    ("gateway:\n\thosts: [a]\naudit: {file: a}\n", 2),
    ("connections:\n  conn_a:\n    upstream: https://a.test\n    auth:\n\t  type: none\n", 5),
    ("gateway:\n  hosts: [a]\n\tunsigned: deny\n", 3),
])  # fmt: skip
def test_a_tab_is_one_error_which_names_it(text: str, line: int, tmp_path: Path) -> None:
    """The key above was said to have no mapping, because what the tab indents had been left out."""
    (problem,) = told(tmp_path / "config.yaml", text)
    assert problem == f"{line}  is not valid YAML: a tab indents this line: use blanks"


@pytest.mark.parametrize(("mistake", "messages"), [
    ("  unsigned: no\n", ["3 unsigned is ambiguous: write pass or deny"]),
    ("  unsigned: pass\n  unsigned: deny\n", ["4 unsigned this key is given twice"]),
    ("  unsigned: &a pass\n", ["3 unsigned anchors are not allowed"]),
    ("  hosts: *a\n", ["3 hosts aliases are not allowed"]),
    ("  unsigned: !!str deny\n", ["3 unsigned tags are not allowed"]),
    ("  unsigned: No\n  url: on\n", ["3 unsigned is ambiguous", "4 url is ambiguous"]),
], ids=["a word", "a key twice", "an anchor", "an alias", "a tag", "two words"])  # fmt: skip
def test_what_yaml_reads_differently_hides_no_other_error(
    mistake: str, messages: list[str], tmp_path: Path
) -> None:
    text = HEAD.replace("  unsigned: pass\n", "  hots: [a.test]\n" + mistake)
    found = told(tmp_path / "config.yaml", text)
    after = 3 + mistake.count("\n") - 1
    others = ["2 hots is not a key", f"{after + 5} secret is shorter", f"{after + 6} alow is not a key"]
    begin(
        sorted(found, key=lambda one: int(one.split()[0])),
        *sorted([*messages, *others], key=lambda one: int(one.split()[0])),
    )


def test_a_word_and_a_syntax_error_are_told_with_all_others(tmp_path: Path) -> None:
    text = HEAD.replace("unsigned: pass", "unsigned: no") + "  conn_b: {upstream: https://b.test\n" + TAIL
    found = told(tmp_path / "config.yaml", text)
    begin(
        sorted(found, key=lambda one: int(one.split()[0])),
        "2 unsigned is ambiguous",
        "7 secret is shorter",
        "8 alow is not a key",
        "10  is not valid YAML",
        "13 secret is shorter",
        "14 max_lifetime has to be",
    )
