"""The documents, and the code that stands in them."""

import re

from support.places import ROOT

DOCS = {
    path.relative_to(ROOT / "docs").as_posix(): path.read_text("utf-8")
    for path in sorted((ROOT / "docs").rglob("*.md"))
}
README = (ROOT / "README.md").read_text("utf-8")


def block(text: str, language: str, number: int = 0) -> str:
    """A fenced block, without the indentation it has in a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    indent, body = found[number]
    return re.sub(f"^{indent}", "", body, flags=re.MULTILINE)


def commands(text: str) -> list[str]:
    """What stands behind a prompt, with continued lines joined."""
    return re.findall(r"^\$ (.+)$", text.replace("\\\n", " "), re.MULTILINE)
