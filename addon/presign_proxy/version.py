"""The version, that of both distributions; a test holds it against their metadata.

`importlib.metadata` would find it too, and takes longer than all the rest of `presign --version`.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
