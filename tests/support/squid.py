"""A real Squid that wants a user and a password, and knows names that only it resolves."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from support.process import free_port
from support.programs import find, needs

USER, PASSWORD = "gateway", "pr0xy-s3cret/R3AL=0123456789"
_HELPER = Path("/usr/lib/squid/basic_ncsa_auth")
_CONFIG = """
http_port 127.0.0.1:{port}
hosts_file {home}/hosts
pid_filename none
coredump_dir {home}
cache deny all
cache_log {home}/cache.log
access_log stdio:{home}/access.log squid
shutdown_lifetime 0 seconds
auth_param basic program {helper} {home}/users
auth_param basic children 1 startup=1 idle=1
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
"""


class Squid:
    """Starts at `start()`. `names`: those that it resolves."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="squid-")  # its user enters none of pytest's
        self.home, self.port = Path(self._directory.name), free_port()
        self._names = names
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        needs("squid", "openssl")
        hosts = "".join(f"{address} {name}\n" for name, address in self._names.items())
        hashed = subprocess.run(
            [str(find("openssl")), "passwd", "-apr1", "-stdin"],
            input=PASSWORD.encode(),
            capture_output=True,
            check=True,
        ).stdout.decode()
        (self.home / "hosts").write_text(hosts)
        (self.home / "users").write_text(f"{USER}:{hashed}")
        config = _CONFIG.format(port=self.port, home=self.home, helper=_HELPER)
        (self.home / "squid.conf").write_text(config)
        if os.geteuid() == 0:  # then Squid takes a user of its own
            found = pwd.getpwnam("proxy")
            for path in (self.home, *self.home.iterdir()):
                os.chown(path, found.pw_uid, found.pw_gid)
        argv = [str(find("squid")), "-N", "-f", str(self.home / "squid.conf")]
        with (self.home / "output").open("ab") as log:
            self._child = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.home / "output").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.05)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait(10)
        self._directory.cleanup()

    def tunnels(self) -> list[str]:
        """What it was asked for with CONNECT, and how it has answered: `TCP_TUNNEL/200 api.test:443`."""
        path = self.home / "access.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [f"{line.split()[3]} {line.split()[6]}" for line in lines if " CONNECT " in line]
