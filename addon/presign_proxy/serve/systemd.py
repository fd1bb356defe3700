"""Notifications to systemd (sd_notify(3)): a datagram with a few words, or nothing without systemd."""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Notifier:
    """A sender of the gateway's state to the service manager."""

    def __init__(self, address: str) -> None:
        """
        Args:
            address: `$NOTIFY_SOCKET`, a path or an abstract name; empty without a service manager.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self, status: str) -> None:
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1", "STATUS=draining")

    def status(self, text: str) -> None:
        self._tell(f"STATUS={text}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto("\n".join(lines).encode(), self._address)
