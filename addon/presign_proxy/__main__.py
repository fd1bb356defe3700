"""`python -m presign_proxy`: the command line."""

import sys

from .prerequisites import missing

if __name__ == "__main__":
    try:
        from .cli import main
    except ModuleNotFoundError as error:
        sys.exit(missing(error))
    main()
