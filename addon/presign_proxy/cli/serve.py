"""`presign serve`: the gateway in production."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from ..config.descriptors import raise_limit
from ..prerequisites import unsupported_mitmproxy
from ..serve import listeners
from .output import Output, verb
from .workspace import Failure, Workspace

_DEFAULT: Final = "127.0.0.1:8080"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600}
# An open proxy takes two who say so: the configuration and the command line.
_UNSIGNED: Final = {None: "closed", "pass": "explicit", "deny": "deny"}
# Meant for this process: a program that prints a secret has no business with them.
_OF_SYSTEMD: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET")


def _parsed(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """The addresses of `--listen`. Raises BadParameter."""
    try:
        return tuple(map(listeners.parse_address, given))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _duration(_: click.Context, __: click.Parameter, given: str) -> float:
    number, unit = given[:-1], given[-1:]
    if not (number.isascii() and number.isdecimal() and len(number) < 6 and unit in _SECONDS):
        raise click.BadParameter("is a duration: a number and one of s, m, h, as in 30s")
    return float(int(number) * _SECONDS[unit])


def listen_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--listen`, which gives the addresses to the parameter of that name."""
    return click.option(
        "--listen", "addresses", metavar="HOST:PORT", multiple=True, callback=_parsed, help=text
    )


@click.command()
@listen_option(f"Where clients connect; may be given several times.  [default: {_DEFAULT}]")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that serve; one for each core.",
)
@click.option(
    "--drain",
    metavar="TIME",
    default="30s",
    show_default=True,
    callback=_duration,
    help="How long requests that are under way may take once the gateway stops.",
)
@click.option(
    "--notice",
    metavar="TIME",
    default="0s",
    show_default=True,
    callback=_duration,
    help="How long to serve on before that, while readiness already says no.",
)
@click.option(
    "--unsigned",
    type=click.Choice(["deny", "pass"]),
    help="Requests without a presign: deny is the default; pass holds where the configuration says it too.",
)
@click.option(
    "--confdir",
    type=click.Path(file_okay=False, path_type=Path),
    default="~/.mitmproxy",
    show_default=True,
    help="Where the certificate authority for interception is, or is made.",
)
@click.option(
    "--upstream-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Authorities that upstreams are checked against, instead of the usual ones.",
)
@verb
def serve(
    workspace: Workspace,
    output: Output,
    addresses: tuple[tuple[str, int], ...],
    workers: int,
    drain: float,
    notice: float,
    unsigned: str | None,
    confdir: Path,
    upstream_ca: Path | None,
) -> int:
    """Run the gateway: several workers on one port, without a script, without a UI.

    SIGTERM and Ctrl-C: no new requests, those under way end; once more: at once. SIGHUP: read the
    configuration again.
    """
    from ..serve.log import open_log
    from ..serve.plan import Plan

    if not workspace.exists:
        _ = workspace.config  # says what to do
    if sys.platform == "win32":
        raise Failure("serve needs the signals and sockets of Linux or macOS: on Windows, run it in WSL")
    if why := unsupported_mitmproxy():
        raise Failure(why)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is somebody to be told
    plan = Plan(
        config=str(workspace.path),
        confdir=str(directory(confdir)),
        workers=workers,
        drain=drain,
        notice=notice,
        unsigned=_UNSIGNED[unsigned],
        upstream_ca=str(upstream_ca.absolute()) if upstream_ca else "",
        as_json=output.as_json,
    )
    sockets, notify = _sockets(addresses), _taken_of_systemd()
    raise_limit()
    open_log("gateway", as_json=output.as_json)
    return asyncio.run(_supervise(plan, sockets, notify))


def directory(confdir: Path) -> Path:
    """Raises Failure."""
    try:
        return confdir.expanduser().absolute()
    except RuntimeError:
        raise Failure(f"{confdir}: there is no home directory; name one with --confdir DIR") from None


def _sockets(addresses: tuple[tuple[str, int], ...]) -> list[socket.socket]:
    """Raises Failure, UsageError."""
    try:
        handed_over = listeners.handed_over(os.environ)
        if handed_over and addresses:
            raise click.UsageError("systemd hands the sockets over: --listen has to go")
        found = list(handed_over)
        for host, port in addresses or (() if handed_over else (listeners.parse_address(_DEFAULT),)):
            found += listeners.bind(host, port)
    except listeners.ListenError as error:
        raise Failure(str(error)) from None
    return found


def _taken_of_systemd() -> str:
    """Where systemd is told of readiness; its variables are taken out of the environment."""
    notify = os.environ.get("NOTIFY_SOCKET", "")
    for name in _OF_SYSTEMD:
        os.environ.pop(name, None)
    return notify


async def _supervise(plan: Any, sockets: list[socket.socket], notify: str) -> int:
    from ..serve.supervisor import Supervisor
    from ..serve.systemd import Notifier

    supervisor = Supervisor(plan, sockets, Notifier(notify))
    code = await supervisor.run()
    if supervisor.failed:
        raise Failure("\n".join(supervisor.failed))
    return code
