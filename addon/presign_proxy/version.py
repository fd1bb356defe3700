"""The version of both distributions. A test compares it with their metadata.

`importlib.metadata` would find it too, but takes longer than the rest of `presign --version`.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
