"""Entry point of the command `presign`: the script that pip installs, and `python -m presign_proxy`."""

import atexit
import gc
import sys

from .prerequisites import missing

_FEW = 100_000
"""Objects between two garbage collections: more than the imports of a short verb create.

By default Python collects every few hundred objects, and finds no garbage while modules are being imported.
"""


def main() -> None:
    gc.set_threshold(_FEW)
    # Without this, Python would collect once more at exit and walk through every imported module. That takes
    # a fifth of the time of `presign sign`.
    atexit.register(gc.freeze)
    try:
        from .cli.main import main as command
    except ModuleNotFoundError as error:
        sys.exit(missing(error))
    command()


if __name__ == "__main__":
    main()
