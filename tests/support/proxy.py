"""A real mitmproxy, from the interpreter that runs the tests. Only its DNS can be told stories."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.places import ROOT
from support.preloaded.mitmdump import zygote
from support.process import Process, free_port

SCRIPT = ROOT / "addon" / "presign.py"
PROMPTLY = ROOT / "tests/support/scripts/promptly.py"
FAKE_DNS = Path(__file__).resolve().parent / "fakedns"

# What a developer's own shell may hold, or pytest-xdist sets in its workers (COLUMNS), and no test means.
_UNWANTED = (
    *("PRESIGN_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSLKEYLOGFILE", "MITMPROXY_"),
    "COLUMNS",
)

DnsAnswers = Mapping[str, Sequence[str] | Sequence[Sequence[str]]]


class Mitm(Process):
    """`mitmdump`, `mitmweb` or `mitmproxy` on a port of its own, with a private confdir.

    With a `config` it runs the addon; without, it is bare. `args` go to the command line, `env` to the
    environment, `dns` to the fake resolver (`fakedns/sitecustomize.py`). Starts at `start()` or `with`.
    """

    def __init__(
        self,
        directory: Path,
        config: Path | None = None,
        *args: str,
        env: Mapping[str, str] | None = None,
        dns: DnsAnswers | None = None,
        binary: str = "mitmdump",
        script: Path = SCRIPT,
        port: int | None = None,
    ) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        port = port or free_port()
        self.config, self.directory = config, directory
        self.confdir = directory / "confdir"
        self.web_port = free_port() if binary == "mitmweb" else None
        self.ca = self.confdir / "mitmproxy-ca-cert.pem"
        self.url = f"http://127.0.0.1:{port}"
        self._dns_log = directory / "dns.log"
        argv: list[str | Path] = [Path(sys.executable).parent / binary]
        argv += ["--listen-host", "127.0.0.1", "--listen-port", str(port), "--set", f"confdir={self.confdir}"]
        argv += self._web_options()
        if config:
            argv += ["-s", script, "--set", f"presign_config={config}"]
        if config and binary == "mitmdump" and "AS_SERVED" in os.environ:  # all else as under `presign serve`
            argv += ["-s", PROMPTLY]
        self._is_plain = binary == "mitmdump" and "NO_FORK" not in os.environ
        super().__init__(
            [*argv, *args],
            port,
            directory / "output.log",
            self._environment(env or {}, dns or {}),
            cwd=directory,
            tty=binary == "mitmproxy",
        )

    def _popen(self, stdin: int, stdout: int) -> Any:
        if self._may_be_forked and zygote().can_start(self._env):
            return zygote().start(self.argv, self._env, self._cwd, stdin, stdout)
        return super()._popen(stdin, stdout)

    @property
    def _may_be_forked(self) -> bool:
        """Whether no script runs before the addon, which might change what is imported."""
        scripts = [self.argv[at + 1] for at, part in enumerate(self.argv) if part in ("-s", "--scripts")]
        return self._is_plain and scripts[:1] == [str(SCRIPT)] and set(scripts[1:]) <= {str(PROMPTLY)}

    def lookups(self) -> list[str]:
        """Every name that the process has asked the resolver for."""
        return self._dns_log.read_text().split() if self._dns_log.exists() else []

    def _web_options(self) -> list[str]:
        if self.web_port is None:
            return []
        options = {"web_port": self.web_port, "web_open_browser": "false", "web_password": "test"}
        return [part for name, value in options.items() for part in ("--set", f"{name}={value}")]

    def _environment(self, extra: Mapping[str, str], dns: DnsAnswers) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_UNWANTED)}
        path = [str(FAKE_DNS), *filter(None, [kept.get("PYTHONPATH")])]
        ours = {
            "PYTHONPATH": os.pathsep.join(path),
            "PYTHONUNBUFFERED": "1",
            "TERM": "xterm",
            "FAKE_DNS": json.dumps(dict(dns)),
            "FAKE_DNS_LOG": str(self._dns_log),
        }
        return kept | ours | dict(extra)
