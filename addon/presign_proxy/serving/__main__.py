"""One worker of `presign serve`, started by its supervisor: `__main__.py CHANNEL`."""

import sys
from pathlib import Path

_HOME = str(Path(__file__).resolve().parents[2])
if _HOME not in sys.path:
    sys.path.append(_HOME)

from presign_proxy.serving.worker import main  # noqa: E402 - the path is set above

if __name__ == "__main__":
    main(int(sys.argv[1]))
