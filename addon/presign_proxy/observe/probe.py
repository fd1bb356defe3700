"""Ask a gateway's admin listener whether it is ready: `python -m presign_proxy.observe.probe [HOST:PORT]`.

This is the health check of an image without curl. The exit code is 0 if `/readyz` answers 200, else 1.
It prints the gateway's answer, or why there was none.
"""

from __future__ import annotations

import http.client
import sys
from typing import Final

DEFAULT: Final = "127.0.0.1:9464"
TIMEOUT: Final = 3.0
"""Seconds for each step: fewer than the image allows for a check, so that the reason is still printed."""
_MAX_ANSWER: Final = 1000


def ask(address: str) -> tuple[bool, str]:
    """Return whether the gateway at `address` is ready, and a line about it. Never raises."""
    try:
        # Unlike urllib it takes no proxy from the environment: a proxy could not reach this listener.
        connection = http.client.HTTPConnection(address, timeout=TIMEOUT)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            said = answer.read(_MAX_ANSWER).decode("utf-8", "replace").strip()
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"no answer from {address}: {error}"
    return answer.status == 200, said


def main(arguments: list[str]) -> int:
    ready, said = ask(arguments[0] if arguments else DEFAULT)
    sys.stdout.write(f"{said}\n")
    return 0 if ready else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
