"""Stands in for a command: has the server run it, or starts it as ever where the start matters.

Run: client.py FACTS [ARGUMENT…]
"""

import json
import os
import resource
import signal
import socket
import sys

LIMITS = ("RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS", "RLIMIT_CORE")
GATEWAYS = {"serve", "demo"}

facts, words = json.loads(sys.argv[1]), sys.argv[2:]
start = facts["start"]


def matters() -> bool:
    """Whether a process that was there before would not do the same."""
    odd = {name for name in os.environ if name.startswith(("LC_", "PYTHON", "TZ"))} - {"PYTHONPATH"}
    usual = (os.environ.get("LANG"), os.environ.get("PYTHONPATH")) == ("C.UTF-8", facts["addon"])
    if odd or not usual or os.geteuid() != facts["uid"] or GATEWAYS & set(words):
        return True
    try:
        return any(os.isatty(file) for file in (0, 1, 2) if os.fstat(file))
    except OSError:  # one of them is closed
        return True


if matters():
    os.execv(sys.executable, [sys.executable, *start, *words])  # noqa: S606 - as the shell would
os.umask(umask := os.umask(0))
script = [os.path.join(facts["addon"], "presign_proxy", "__main__.py")] if start else []  # noqa: PTH118 - light
order = {
    "directory": os.getcwd(),  # noqa: PTH109 - light
    "umask": umask,
    "env": dict(os.environ),
    "limits": {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
    "argv": [*script, *words],
    "called": [*start, *words],
}
server = socket.socket(socket.AF_UNIX)
server.connect(facts["server"])
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, lambda number, _: server.send(bytes([number])))
socket.send_fds(server, [json.dumps(order).encode()], [0, 1, 2])
code = int(server.recv(16) or 99)
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
