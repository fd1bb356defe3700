"""Custom presets, in a file that the configuration names."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from ...config_problems import ConfigError, Problem
from ..permissions import writable_by_others
from ..schema.config import PRESETS_FILE
from ..strict_yaml import Document, read
from ..validation import explain
from .apply import Presets
from .builtin import providers
from .model import PresetsFile


def own_presets(document: Document, base: Path) -> list[Path]:
    """Return the file of custom presets as a list of one path; empty if the configuration names none."""
    named = document.data.get("presets") if isinstance(document.data, dict) else None
    return [base / named] if isinstance(named, str) and re.fullmatch(PRESETS_FILE, named) else []


def read_presets(own: list[Path], problems: list[Problem]) -> Presets:
    """Return the presets that connections may name: built-in and custom ones."""
    known = dict(providers())
    for path in own:
        problems += writable_by_others(path)
        try:
            document = read(path)
        except ConfigError as error:
            problems += error.problems
            return Presets(known, complete=False)
        if document.data is None:
            problems.append(Problem(str(path), 0, 0, "", "is empty"))
            return Presets(known, complete=False)
        try:
            found = PresetsFile.model_validate(document.data).presets
        except ValidationError as error:
            problems += explain(document, error)
            return Presets(known, complete=False)
        for name in found.keys() & known.keys():
            problems.append(document.problem(("presets", name), "is the name of a built-in preset"))
        known = {name: preset.model_dump(exclude_defaults=True) for name, preset in found.items()} | known
    return Presets(known)
