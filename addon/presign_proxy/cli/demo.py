"""`presign demo`: a gateway and an upstream in one process, and two requests that show what they do."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import select
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import yaml
from mitmproxy.tools.main import mitmdump

from ..signing.signer import Signer
from . import demo_upstream
from .hints import command

CONNECTION: Final = "conn_demo"
LIFETIME: Final = 3600


def run(port: int, script: Path, *, once: bool, as_json: bool = False) -> int:
    """Serve until interrupted, or only show the requests. Return the exit code."""
    port = port or _free_port()
    if _is_taken(port):
        click.echo(
            f"presign: port {port} is in use: `{command('demo', '--port', '0')}` picks a free one", err=True
        )
        return 1
    key, secret = f"sk-demo-{secrets.token_hex(16)}", f"sk_{secrets.token_hex(24)}"
    with tempfile.TemporaryDirectory(prefix="presign-demo-") as directory:
        config = _configure(Path(directory), demo_upstream.start(key), key, secret)
        result: list[int | BaseException] = []
        threading.Thread(target=_show, args=(port, secret, once, as_json, result), daemon=True).start()
        options = [f"presign_config={config}", f"confdir={directory}/mitmproxy"]
        arguments = ["--quiet", "--listen-host", "127.0.0.1", "--listen-port", str(port), "-s", str(script)]
        mitmdump([*arguments, *(part for option in options for part in ("--set", option))])
    ended = result[-1] if result else 1
    if isinstance(ended, BaseException):
        raise ended
    return ended


def _configure(directory: Path, upstream_port: int, key: str, secret: str) -> Path:
    connection = {
        "upstream": f"http://127.0.0.1:{upstream_port}",
        "auth": {"type": "bearer", "token": key},
        "signing_keys": [{"secret": secret}],
        "max_lifetime": "1d",
    }
    path = directory / "config.yaml"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump({"connections": {CONNECTION: connection}}, explicit_end=True))
    return path


def _show(port: int, secret: str, once: bool, as_json: bool, result: list[int | BaseException]) -> None:
    """Show the requests, then stop the gateway.

    It stops at once with `once` or after a failure, otherwise when the reader of the output has gone.

    Args:
        result: receives the exit code, or the exception to fail with.
    """
    try:
        result.append(_shown(port, secret, once=once, as_json=as_json))
        if result == [0] and not once:
            _wait_for_the_reader_to_go()
            raise BrokenPipeError
    except BaseException as error:  # the thread that waits for the gateway raises it
        result.append(error)
    os.kill(os.getpid(), signal.SIGTERM)


def _wait_for_the_reader_to_go() -> None:
    """Return once standard output is a pipe without a reader. If it is no pipe, never return."""
    descriptor = sys.stdout.fileno()
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        threading.Event().wait()
    watched = select.poll()
    watched.register(descriptor, 0)  # poll always reports a broken pipe
    watched.poll()


def _shown(port: int, secret: str, *, once: bool, as_json: bool) -> int:
    """Wait for the gateway, print a URL and the outcome of two requests. Return the exit code."""
    while not _is_taken(port):
        time.sleep(0.05)
    grant = Signer(CONNECTION, secret).sign(["GET"], ["v1/hello*"], expires_at=int(time.time()) + LIFETIME)
    url = grant.url("v1/hello", f"http://127.0.0.1:{port}")
    good, denied = _get(url), _get(url.replace("/v1/hello", "/v1/admin"))
    if as_json:
        asked = {"accepted": good, "refused": denied}
        shown = {name: {"status": status, "body": json.loads(body)} for name, (status, body) in asked.items()}
        click.echo(json.dumps({"url": url, **shown}))
    else:
        _tell(url, good, denied, once=once)
    ok = (good[0], denied[0]) == (200, 403)
    if ok and not once and not as_json:
        click.echo(
            f"Serving on http://127.0.0.1:{port}; the upstream's key never left this process. Ctrl-C stops."
        )
    sys.stdout.flush()
    return 0 if ok else 1


def _tell(url: str, good: tuple[int, str], denied: tuple[int, str], *, once: bool) -> None:
    click.echo("A presigned URL, valid for an hour, for GET on v1/hello* only:\n")
    click.echo(f"  {url}\n" if once else f"  curl '{url}'\n")
    click.echo(f"GET v1/hello   {good[0]}  {good[1]}")
    click.echo(f"GET v1/admin   {denied[0]}  {denied[1]}\n")
    if once:
        click.echo(f"The gateway has stopped, and its URL with it. To try the URL: `{command('demo')}`")


def _get(url: str) -> tuple[int, str]:
    parts = urlsplit(url)
    # The port accepts connections before the addon is loaded, which took over ten seconds on a busy machine.
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def _is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
