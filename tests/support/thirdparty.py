"""Other people's test material, where somebody has put it; see `data/thirdparty/README.md`."""

import os
from pathlib import Path

import pytest

PLACE = Path(__file__).resolve().parents[1] / "data" / "thirdparty"


def folder(repository: str, *inside: str) -> Path:
    """A folder of a checkout of `repository`. Skips the test where there is none."""
    base = Path(os.environ.get("PRESIGN_THIRDPARTY") or PLACE) / repository
    found = base.joinpath(*inside)
    if not found.is_dir():
        pytest.skip(f"no {repository} in {base.parent}: see tests/data/thirdparty/README.md")
    return found
