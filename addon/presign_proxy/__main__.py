"""The command `presign` as a program of its own: what pip installs, and `python -m presign_proxy`."""

import atexit
import gc
import sys

from .prerequisites import missing

_FEW = 100_000
"""Objects between two searches for garbage: more than the imports of a short verb make.

Python searches every few hundred, and finds nothing in modules that are just being imported.
"""


def main() -> None:
    gc.set_threshold(_FEW)
    # At its end Python would search all that was imported: a fifth of the time that `presign sign` takes.
    atexit.register(gc.freeze)
    try:
        from .cli.main import main as command
    except ModuleNotFoundError as error:
        sys.exit(missing(error))
    command()


if __name__ == "__main__":
    main()
