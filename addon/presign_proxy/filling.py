"""Presets, filled in below what a connection says itself."""

from __future__ import annotations

from typing import Any

from .document import Document, Problem
from .presets import providers


def with_presets(document: Document) -> tuple[Any, list[Problem]]:
    """The data with each connection's preset filled in below what the connection itself says."""
    data, problems = document.data, list[Problem]()
    connections = data.get("connections") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(connections, dict):
        return data, problems
    filled: dict[str, Any] = {}
    for name, entry in connections.items():
        filled[name] = entry
        if not isinstance(entry, dict) or not isinstance(preset := entry.get("preset"), str):
            continue
        known = providers().get(preset)
        if known is None:
            at = ("connections", name, "preset")
            problems.append(
                document.problem(at, f"there is no such preset: {', '.join(sorted(providers()))}")
            )
        else:
            filled[name] = _fill(entry, known)
    return {**data, "connections": filled}, problems


def _fill(entry: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """`auth: {token: …}` puts the key where the provider wants it."""
    filled = {"upstream": preset["upstream"], **entry}
    headers = entry.get("default_headers", {})
    if isinstance(headers, dict):
        mine = {str(name).lower() for name in headers}
        known = {name: value for name, value in preset.get("headers", {}).items() if name.lower() not in mine}
        filled["default_headers"] = {**known, **headers}
    auth, wanted = entry.get("auth"), preset["auth"]
    if isinstance(auth, dict) and auth.get("type", wanted["type"]) == wanted["type"]:
        rest = {key: value for key, value in auth.items() if key != "token"}
        token = {"token": auth["token"]} if "token" in auth else {}
        if token and wanted["type"] == "header":
            rest = {"headers": {wanted["header"]: auth["token"]}, **rest}
        elif token and wanted["type"] == "query":
            rest = {"params": {wanted["param"]: auth["token"]}, **rest}
        elif token and wanted["type"] == "basic":
            rest = {"username": auth["token"], **rest}
        else:
            rest |= token
        filled["auth"] = {**rest, "type": wanted["type"]}
    return filled
