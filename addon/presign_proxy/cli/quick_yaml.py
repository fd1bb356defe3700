"""A fast import of PyYAML, without compiling the regular expressions of its reader and resolver in Python.

Nothing here uses them: libyaml parses, and our own rules read each scalar. One of the expressions covers all
of Unicode, and compiling it takes longer than the rest of the import.
"""

from __future__ import annotations

import re
import sys

from ..regexes import late


def import_yaml() -> None:
    """Import PyYAML. Call it before any module imports yaml, while there is only one thread."""
    if "yaml" in sys.modules:
        return
    compiled = re.compile
    vars(re)["compile"] = late
    try:
        import yaml  # noqa: F401 - other modules import it
    finally:
        vars(re)["compile"] = compiled
