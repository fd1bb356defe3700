"""Imports every verb, then forks for each caller. Ends when its standard input does.

Run: server.py ADDRESS
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
from importlib import import_module
from typing import Any

from presign_proxy.cli import main as cli


def attend(caller: socket.socket) -> None:
    """Run one command, pass the caller's signals on to it, and tell the caller how it ended."""
    data, files, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        for file, place in zip(files, (0, 1, 2), strict=True):
            os.dup2(file, place)
        os.closerange(3, 64)
        run(json.loads(data))
    for file in files:
        os.close(file)
    ended = os.pidfd_open(child)
    while True:
        ready, _, _ = select.select([ended, caller], [], [])
        if ended in ready:
            break
        os.kill(child, (caller.recv(1) or bytes([signal.SIGKILL]))[0])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        caller.sendall(str(code).encode())


def run(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(order["directory"])
    os.umask(order["umask"])
    os.environ.clear()
    os.environ.update(order["env"])
    for name, limit in order["limits"].items():
        resource.setrlimit(getattr(resource, name), limit)
    sys.argv, sys.orig_argv = order["argv"], [sys.executable, *order["called"]]
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    code: Any = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:  # as the interpreter does
        sys.excepthook(*sys.exc_info())
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if not stream.closed:
                stream.flush()
        except OSError:
            code = code or 120
    os._exit(code or 0)


def main() -> None:
    for verb in cli.VERBS.values():
        import_module(f"presign_proxy.cli.{verb.module}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, 0], [], [])
        if 0 in ready:
            return
        caller, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            attend(caller)
            os._exit(0)
        caller.close()


main()
