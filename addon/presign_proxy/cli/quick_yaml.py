"""PyYAML, imported without compiling the regular expressions of its reader and resolver in Python.

Nothing here uses them: libyaml parses, and each scalar is read by our own rules. One of them is over all of
Unicode, and takes longer than the rest of the import.
"""

from __future__ import annotations

import re
import sys

from ..regexes import late


def import_yaml() -> None:
    """PyYAML as ever. To be called before anything imports it, and where there is one thread."""
    if "yaml" in sys.modules:
        return
    compiled = re.compile
    vars(re)["compile"] = late
    try:
        import yaml  # noqa: F401 - for the others
    finally:
        vars(re)["compile"] = compiled
