"""A real HAProxy, with the configuration that operators are given."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import trustme

from support.places import ROOT
from support.process import Process, free_port
from support.programs import find, needs
from support.serving import Serve, is_open

CONFIG = ROOT / "deploy" / "haproxy.cfg"
TRUSTED, UNTRUSTED = "127.0.0.3", "127.0.0.4"
"""From where it talks to the gateways: of requests, of tunnels."""
_OF_ROOT = ("chroot ", "user ", "group ")


class Balancer(Process):
    """`port` takes requests, over TLS; `tunnels` takes CONNECT."""

    def __init__(
        self, directory: Path, gateways: Sequence[Serve], admin: Sequence[int], cert: trustme.LeafCert
    ) -> None:
        needs("haproxy")
        self.tunnels = free_port()
        self._control = directory / "admin.sock"
        pem = directory / "front.pem"
        cert.private_key_and_cert_chain_pem.write_to_path(pem)
        port = free_port()
        config = directory / "haproxy.cfg"
        config.write_text(self._adapted(port, pem, [one.port for one in gateways], admin), "utf-8")
        argv = [str(find("haproxy")), "-db", "-f", config]
        super().__init__(argv, port, directory / "haproxy.log", dict(os.environ), cwd=directory)

    def _adapted(self, port: int, pem: Path, gateways: Sequence[int], admin: Sequence[int]) -> str:
        """The file with this machine's addresses, as an operator would write them."""
        text = CONFIG.read_text("utf-8")
        for written, here in {
            "log /dev/log local0": "log stdout format raw local0",
            "/run/haproxy/admin.sock": str(self._control),
            "/etc/haproxy/presign.pem": str(pem),
            "bind :443 ": f"bind 127.0.0.1:{port} ",
            "bind :8443": f"bind 127.0.0.1:{self.tunnels}",
            "source 10.0.0.3": f"source {TRUSTED}",
            "source 10.0.0.4": f"source {UNTRUSTED}",
            "check port 9464": "check",
            "10.0.0.11:8443": f"127.0.0.1:{gateways[0]} port {admin[0]}",
            "10.0.0.12:8443": f"127.0.0.1:{gateways[1]} port {admin[1]}",
        }.items():
            assert written in text, written
            text = text.replace(written, here)
        return "\n".join(line for line in text.splitlines() if not line.strip().startswith(_OF_ROOT)) + "\n"

    def _serves(self) -> bool:
        return self._control.exists() and is_open(self.port) and is_open(self.tunnels)

    def up(self) -> set[str]:
        """The gateways that it takes for ready, as `backend/server`."""
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(5)
            control.connect(str(self._control))
            control.sendall(b"show stat -1 4 -1\n")
            said = b""
            while piece := control.recv(65536):
                said += piece
        rows = [line.split(",") for line in said.decode().splitlines()[1:] if line]
        return {f"{row[0]}/{row[1]}" for row in rows if row[17].startswith("UP")}
