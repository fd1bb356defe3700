"""The program of one worker of `presign serve`. Its supervisor runs `__main__.py CHANNEL SUPERVISOR`."""

import sys
from pathlib import Path

_HOME = str(Path(__file__).resolve().parents[2])
if _HOME not in sys.path:
    sys.path.append(_HOME)

from presign_proxy.serve.parent_death import end_with_parent  # noqa: E402 - the path is set above

if __name__ == "__main__":
    # First of all: it already holds the sockets, and importing mitmproxy takes seconds on a busy machine.
    end_with_parent(int(sys.argv[2]))

    from presign_proxy.prerequisites import missing

    try:
        from presign_proxy.serve.worker import main
    except ModuleNotFoundError as error:
        sys.exit(missing(error))
    main(int(sys.argv[1]))
