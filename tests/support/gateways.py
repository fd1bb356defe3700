"""What tests ask of the gateways and upstreams that conftest.py starts for them."""

from pathlib import Path
from typing import Any, Protocol

from support.proxy import DnsAnswers, Mitm

TLS_NAMES = ("api.tls.test", "*.tls.test", "cdn.acme.com", "localhost", "127.0.0.1")


class MakeGateway(Protocol):
    """Starts a gateway over a config given as a dict or a file; further arguments go to its command line."""

    def __call__(
        self,
        config: dict[str, Any] | Path | None,
        *args: str,
        env: dict[str, str] | None = None,
        dns: DnsAnswers | None = None,
        binary: str = "mitmdump",
        start: bool = True,
    ) -> Mitm: ...
