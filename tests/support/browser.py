"""A real browser without a window: Chromium, told what to do by its driver (W3C WebDriver, over HTTP)."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from support.programs import find, needs
from support.puppet import eventually

# Nothing but this machine can be reached, so that a page that loads something from elsewhere does so in vain.
_OPTIONS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
_SECONDS = 60.0
_READY = re.compile(r"started successfully on port (\d+)")


class Browser:
    """One window. A context manager; what it has stored is gone afterwards."""

    def __init__(self) -> None:
        needs("chromedriver")
        self._directory = tempfile.TemporaryDirectory(prefix="browser-", ignore_cleanup_errors=True)
        log = Path(self._directory.name) / "driver.log"
        with log.open("wb") as output:
            self._driver = subprocess.Popen(
                [find("chromedriver") or "chromedriver", "--port=0"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
                start_new_session=True,
            )
        try:
            assert eventually(lambda: _READY.search(log.read_text()), _SECONDS), log.read_text()
            self._at = f"http://127.0.0.1:{_READY.search(log.read_text())[1]}/session"  # type: ignore[index]
            options = {"args": [*_OPTIONS, f"--user-data-dir={self._directory.name}/profile"]}
            wanted = {"browserName": "chrome", "goog:chromeOptions": options}
            wanted["goog:loggingPrefs"] = {"performance": "ALL"}
            made = self._ask("", {"capabilities": {"alwaysMatch": wanted}})
            self._at += f"/{made['sessionId']}"
        except BaseException:
            self.__exit__()
            raise

    def open(self, url: str) -> None:
        self._ask("/url", {"url": url})

    def look(self, width: int = 800, *, dark: bool = False) -> None:
        """Give the window a width, and tell pages which colours its user prefers."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self._cdp("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str) -> Any:
        """What a script in the page returns."""
        return self._ask("/execute/sync", {"script": script, "args": []})

    def value(self, expression: str) -> Any:
        """What the debugger reads of the page, also where the page may run no script."""
        found = self._cdp("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        return found["result"].get("value")

    @property
    def text(self) -> str:
        """What a person reads."""
        return str(self._ask(f"/element/{self._element('body')}/text"))

    def follow(self, words: str) -> None:
        """Click the link with these words, as a person does."""
        link = self._ask("/element", {"using": "link text", "value": words})
        before = self._element("body")
        self._ask(f"/element/{next(iter(link.values()))}/click", {})
        assert eventually(lambda: self._element("body") != before, _SECONDS)

    def asked_for(self) -> list[str]:
        """The URLs that were asked for since the last call."""
        entries = [
            json.loads(one["message"])["message"] for one in self._ask("/se/log", {"type": "performance"})
        ]
        sent = [one for one in entries if one["method"] == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("/screenshot")))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        if self._driver.poll() is None:
            if self._at.count("/") > 3:
                self._ask("", None, "DELETE")
            os.killpg(self._driver.pid, signal.SIGKILL)
            self._driver.wait()
        self._directory.cleanup()

    _at = ""

    def _element(self, selector: str) -> str:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                found = self._ask("/element", {"using": "css selector", "value": selector})
                return str(next(iter(found.values())))
            except HTTPError:  # between two pages
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _cdp(self, command: str, params: dict[str, Any]) -> Any:
        return self._ask("/goog/cdp/execute", {"cmd": command, "params": params})

    def _ask(self, path: str, data: Any = None, method: str | None = None) -> Any:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self._at + path, body, {"Content-Type": "application/json"})
        request.method = method or ("GET" if data is None else "POST")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_SECONDS) as response:
            return json.load(response)["value"]


def lightness(colour: str) -> int:
    """From 0 (black) to 765 (white), of a colour as pages compute it: rgb(…)."""
    return sum(int(float(part)) for part in re.findall(r"[0-9.]+", colour)[:3])
