"""Hooks of mkdocs: what a page of docs/ says to a code host, said to the site.

A link out of docs/ (`../deploy/compose.yaml`) leads to the file at the code host.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HOST = "https://github.com/presign-proxy/presign-proxy/blob/main/"
_LINK = re.compile(r"(?<!!)(\]\()((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Leave out of the navigation what docs/ does not have."""
    config["nav"] = [kept for one in config["nav"] if (kept := _existing(one)) is not None]
    return config


def _existing(entry: Any) -> Any:
    ((title, target),) = entry.items()
    if isinstance(target, str):
        return entry if (ROOT / "docs" / target).is_file() else None
    return {title: [kept for one in target if (kept := _existing(one)) is not None]}


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs/ to the code host. Raises ValueError for a file that is not there."""
    place = PurePosixPath("docs") / PurePosixPath(page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        target = normpath((place / link[2]).as_posix())
        if target.startswith("docs/"):
            return link[0]
        if not (ROOT / target).exists():
            raise ValueError(f"docs/{page.file.src_uri}: {link[2]} leads to no file of the repository")
        return f"{link[1]}{HOST}{target}{link[3] or ''})"

    return _LINK.sub(led, markdown)
