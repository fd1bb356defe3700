"""`presign serve`: the gateway in production."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..config.descriptors import raise_limit
from ..config.values import duration
from ..prerequisites import unsupported_mitmproxy
from ..serve import listeners
from .output import Output, verb
from .workspace import Failure, Workspace

if TYPE_CHECKING:
    from ..serve.supervisor import Supervisor

# The log of serve shows what its own package says.
_logger = logging.getLogger("presign_proxy.serve")
_QUIET: Final = 2.0
"""Seconds of a start after which a person at a terminal is told that it goes on."""
_DEFAULT: Final = "127.0.0.1:8080"
_NO_TIME: Final = re.compile("0 ?(?:[smhdw]|secs?|seconds?|mins?|minutes?|hrs?|hours?)?")
# An open proxy needs both: the configuration and the command line.
_UNSIGNED: Final = {None: "closed", "pass": "explicit", "deny": "deny"}
# They are for this process only: programs that print secrets must not inherit them.
_OF_SYSTEMD: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET")


def _parsed(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    """Parse the addresses of `--listen`. Raises BadParameter."""
    try:
        return tuple(map(listeners.parse_address, given))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _duration(_: click.Context, __: click.Parameter, given: str) -> float:
    """Parse a duration as everywhere else, but let it be zero. Raises BadParameter."""
    if _NO_TIME.fullmatch(given):
        return 0.0
    try:
        return float(duration(given))
    except ValueError:
        raise click.BadParameter("must be a duration, such as 30s, 2m or '1 minute'") from None


def listen_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option `--listen`, which fills the parameter `addresses`."""
    return click.option(
        "--listen", "addresses", metavar="HOST:PORT", multiple=True, callback=_parsed, help=text
    )


@click.command()
@listen_option(f"The address for clients; may be repeated.  [default: {_DEFAULT}]")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that serve: as many as the machine has cores, for the most.",
)
@click.option(
    "--drain",
    metavar="TIME",
    default="30s",
    show_default=True,
    callback=_duration,
    help="How long requests under way may take once the gateway stops.",
)
@click.option(
    "--notice",
    metavar="TIME",
    default="0s",
    show_default=True,
    callback=_duration,
    help="How long to keep serving before that, while /readyz already fails.",
)
@click.option(
    "--unsigned",
    type=click.Choice(["deny", "pass"]),
    help="Requests without a presign: deny is the default; pass applies if the configuration says it too.",
)
@click.option(
    "--confdir",
    type=click.Path(file_okay=False, path_type=Path),
    default="~/.mitmproxy",
    show_default=True,
    help="Directory of the certificate authority for interception; created if missing.",
)
@click.option(
    "--upstream-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Authorities that verify upstreams, instead of the usual ones.",
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

    SIGTERM and Ctrl-C: refuse new requests and finish those under way; a second signal: stop at once.
    SIGHUP: read the configuration again.
    """
    from ..serve.log import open_log
    from ..serve.plan import Plan

    if not workspace.exists:
        _ = workspace.config  # raises an error that says what to do
    if sys.platform == "win32":
        raise Failure("serve needs the signals and sockets of Linux or macOS: on Windows, run it in WSL")
    if why := unsupported_mitmproxy():
        raise Failure(why)
    _ignore_signals()
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
    """Return the absolute path of --confdir. Raises Failure without a home directory."""
    try:
        return confdir.expanduser().absolute()
    except RuntimeError:
        raise Failure(f"{confdir}: there is no home directory; name one with --confdir DIR") from None


def _ignore_signals() -> None:
    """Ignore signals that would end the gateway. Workers inherit this."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the supervisor handles it
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # scripts that rotate logs send it to servers
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # nginx, HAProxy and gunicorn reload or upgrade by it


def _sockets(addresses: tuple[tuple[str, int], ...]) -> list[socket.socket]:
    """Return the sockets of systemd, or those of --listen. Raises Failure, UsageError."""
    try:
        handed_over = listeners.handed_over(os.environ)
        if handed_over and addresses:
            raise click.UsageError("systemd passes the sockets: leave out --listen")
        found = list(handed_over)
        for host, port in addresses or (() if handed_over else (listeners.parse_address(_DEFAULT),)):
            found += listeners.bind(host, port)
    except listeners.ListenError as error:
        raise Failure(str(error)) from None
    return found


def _taken_of_systemd() -> str:
    """Return the address of systemd's notify socket, and remove systemd's variables from the environment."""
    notify = os.environ.get("NOTIFY_SOCKET", "")
    for name in _OF_SYSTEMD:
        os.environ.pop(name, None)
    return notify


async def _supervise(plan: Any, sockets: list[socket.socket], notify: str) -> int:
    from ..serve.supervisor import Supervisor
    from ..serve.systemd import Notifier

    supervisor = Supervisor(plan, sockets, Notifier(notify))
    if sys.stderr.isatty():
        asyncio.get_running_loop().call_later(_QUIET, _tell_of_the_start, supervisor)
    code = await supervisor.run()
    if supervisor.failed:
        raise Failure("\n".join(supervisor.failed))
    return code


def _tell_of_the_start(supervisor: Supervisor) -> None:
    """Tell a person at a terminal why nothing has happened yet. A service manager reads the log later."""
    ready, why = supervisor.ready()
    if not ready and why == "starting":
        _logger.info("starting: the first start after an installation takes longer, as Python compiles it")
