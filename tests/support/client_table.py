"""The page of clients: what tests/data/clients.yaml says, with the versions of the locks."""

from __future__ import annotations

import json
import tomllib
from typing import Final, NamedTuple

import yaml

from support.places import ROOT

DATA: Final = ROOT / "tests/data/clients.yaml"
SYSTEM: Final = "as installed"
"""The version of a program that comes with the machine."""


class Row(NamedTuple):
    """One client with one carrier."""

    kind: str
    client: str
    carrier: str
    setting: str
    test: str
    """The file under tests/, two colons, the function."""
    needs: str = ""
    package: str = ""
    """`pypi:NAME` or `npm:NAME`, whose version is in a lock; empty for a program of the machine."""


def rows() -> list[Row]:
    """All that is declared, in its order."""
    found = yaml.safe_load(DATA.read_text("utf-8"))
    return [Row(kind, **row) for kind, declared in found.items() for row in declared]


def versions() -> dict[str, str]:
    """The version of each package in the locks, by `pypi:NAME` and `npm:NAME`."""
    python = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    found = {f"pypi:{one['name']}": str(one["version"]) for one in python if "version" in one}
    node = json.loads((ROOT / "tests/support/node/package-lock.json").read_text("utf-8"))["packages"]
    for path, one in node.items():
        if path.startswith("node_modules/") and path.count("node_modules/") == 1:
            found[f"npm:{path.removeprefix('node_modules/')}"] = str(one["version"])
    return found


def tables() -> str:
    """The tables of the page, one for each kind of client."""
    locked, found, kind = versions(), list[str](), ""
    for row in rows():
        if row.kind != kind:
            kind = row.kind
            found += ["", f"## {kind}", "", "| client | version | carrier | setting | needs | test |"]
            found.append("|---|---|---|---|---|---|")
        version = locked[row.package] if row.package else SYSTEM
        file, _, test = row.test.partition("::")
        shown = f"[`{test}`](../tests/{file})"
        found.append(f"| {row.client} | {version} | {row.carrier} | {row.setting} | {row.needs} | {shown} |")
    return "\n".join(found) + "\n"
