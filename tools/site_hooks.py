"""Hooks of mkdocs: what a page of docs/ says to a code host, said to the site.

The site has a copy of each file in deploy/, so that readers can take it from where they read about it. Any
other link out of docs/ (`../CHANGELOG.md`) leads to the file at the code host.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File

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


def on_files(files: Any, config: Any) -> Any:
    """Add the files of deploy/."""
    for path in sorted((ROOT / "deploy").iterdir()):
        if path.is_file():
            files.append(File.generated(config, f"deploy/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs/ to the code host. Raises ValueError for a file that is not there."""
    place = PurePosixPath("docs") / PurePosixPath(page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        target = normpath((place / link[2]).as_posix())
        if target.startswith("docs/"):
            return link[0]
        if not (ROOT / target).exists():
            raise ValueError(f"docs/{page.file.src_uri}: {link[2]} leads to no file of the repository")
        if target.startswith("deploy/"):
            return f"{link[1]}{relpath(target, PurePosixPath(page.file.src_uri).parent)}{link[3] or ''})"
        return f"{link[1]}{HOST}{target}{link[3] or ''})"

    return _LINK.sub(led, markdown)
