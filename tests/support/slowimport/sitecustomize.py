"""Lets a program that imports mitmproxy take its time, as on a machine that has much else to do.

While the file $SLOW_IMPORT exists; where that holds, the process id is added to it.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_FILE = Path(os.environ["SLOW_IMPORT"])


class Slowly:
    """Finds nothing, and knows when somebody looks for mitmproxy."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> None:
        if name == "mitmproxy" and _FILE.exists():
            with _FILE.open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(30)


sys.meta_path.insert(0, Slowly())
