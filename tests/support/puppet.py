"""The test's hand on `scripts/puppet.py`, the second script inside a running mitmproxy."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.raw import parse_response, send_raw

SCRIPTS = Path(__file__).resolve().parent / "scripts"


class Puppeteer:
    """Tells the script what to do, in requests that the gateway passes through to it."""

    def __init__(self, port: int) -> None:
        self._port = port

    def tell(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Returns what the script answers: `error` in it is the text of what mitmproxy refused."""
        body = json.dumps(arguments).encode()
        head = (
            f"POST http://puppet.test/{verb} HTTP/1.1\r\nHost: puppet.test\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        response = parse_response(send_raw(self._port, head.encode() + body))
        assert response.status == 200, response
        answer: dict[str, Any] = json.loads(response.body)
        return answer

    def finish_replays(self) -> None:
        """Wait until mitmproxy has nothing left to replay."""
        assert eventually(lambda: not self.tell("pending")["pending"])


def eventually(condition: Callable[[], object], timeout: float = 5.0) -> bool:
    """Wait until `condition` holds; false where it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
