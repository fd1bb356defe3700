"""A worker of `presign serve` that serves nobody, and says what it is told: `worker.py CHANNEL SUPERVISOR`.

Its orders are a JSON list in the file that its plan calls the configuration. Each is a message to be sent, or
a text: `end` and a number for the exit code, `hang` and `hang up`. It writes down what it was told.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

channel = socket.socket(fileno=int(sys.argv[1]))
lines = channel.makefile("rb")
held = sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def act(order):
    if isinstance(order, dict):
        channel.sendall(json.dumps(order).encode() + b"\n")
    elif order == "hang":
        time.sleep(60)
    elif order == "hang up":
        lines.close()
        channel.close()
    else:
        sys.exit(int(order.split()[1]))


def main():
    hello = json.loads(lines.readline())
    path = Path(hello["plan"]["config"])
    orders = json.loads(path.read_text("utf-8"))
    with path.with_name(path.name + ".log").open("a", encoding="utf-8") as log:
        here = {
            "hello": hello,
            "pid": os.getpid(),
            "supervisor": sys.argv[2],
            "held": held,
            "flags": [sys.flags.safe_path, sys.flags.optimize],
            "ports": [socket.socket(fileno=os.dup(one)).getsockname()[1] for one in hello["sockets"]],
            "stdin": os.read(0, 1) == b"",
        }
        log.write(json.dumps(here) + "\n")
        log.flush()
        for order in orders["start"]:
            act(order)
        while line := lines.readline():
            said = json.loads(line)
            log.write(json.dumps(said) + "\n")
            log.flush()
            for order in orders.get(said["do"], []):
                act(order)


if __name__ == "__main__":
    main()
