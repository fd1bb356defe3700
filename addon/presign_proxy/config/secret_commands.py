"""Run the program that prints a secret. No shell is involved: the list holds the exact arguments."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

TIMEOUT: Final = 10.0
"""Seconds within which the program must print its secret and end."""


_RUNNING: Final[set[subprocess.Popen[bytes]]] = set()


class CommandError(Exception):
    """A program that printed no secret. The text names neither its arguments nor what it printed."""


def output_of(argv: Sequence[str], cwd: Path, environ: Mapping[str, str], limit: int) -> bytes:
    """Run a program and return what it prints.

    Its standard input is empty. Its standard error is dropped: it may contain what must not be logged.

    Args:
        limit: the most bytes that it may print.

    Raises CommandError.
    """
    try:
        child = subprocess.Popen(  # noqa: S603 - the owner's own program, from a file only the owner can write
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=cwd,
            env=dict(environ),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise CommandError((getattr(error, "strerror", None) or "cannot be started").lower()) from None
    deadline = time.monotonic() + TIMEOUT
    _RUNNING.add(child)
    try:
        printed = _read(child, limit, deadline)
        status = child.wait(max(0.0, deadline - time.monotonic()))
    except (subprocess.TimeoutExpired, TimeoutError):
        raise CommandError(f"did not end within {TIMEOUT:.0f} s") from None
    finally:
        _end(child)
    if status:
        raise CommandError(f"ended with exit code {status}; run it by hand to see why")
    return printed


def _read(child: subprocess.Popen[bytes], limit: int, deadline: float) -> bytes:
    """Return everything that is printed until the pipe closes. Raises TimeoutError, CommandError."""
    if child.stdout is None:
        raise CommandError("has no output")
    pipe, printed = child.stdout.fileno(), b""
    ready = select.poll()  # `select` fails for descriptors from 1024 on, and clients use many descriptors
    ready.register(pipe, select.POLLIN)
    while len(printed) <= limit:
        if not ready.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        chunk = os.read(pipe, limit + 1 - len(printed))
        if not chunk:
            return printed
        printed += chunk
    raise CommandError(f"printed more than {limit} bytes")


def end_all() -> None:
    """Kill every running program, because the process that waits for its secret is about to end."""
    for child in list(_RUNNING):
        with contextlib.suppress(OSError):
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the program, whatever it still does, and everything it has started in its session."""
    _RUNNING.discard(child)
    with contextlib.suppress(OSError):
        if child.returncode is None:  # not reaped yet, so its process group id cannot be another's
            os.killpg(child.pid, signal.SIGKILL)
    if child.stdout is not None:
        child.stdout.close()
    child.wait()
