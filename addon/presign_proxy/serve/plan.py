"""What `presign serve` was asked for: everything that a worker has to know, and no secret."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Args:
        config: path of the configuration.
        confdir: where mitmproxy's certificate authority is.
        workers: how many serve at a time.
        drain: seconds that requests under way may take once the gateway stops.
        notice: seconds between the word that it stops and the drain, in which it serves as ever.
        unsigned: what becomes of requests without a presign: a value of the option `presign_unsigned`.
        upstream_ca: a file of authorities that upstreams are checked against, or empty.
        as_json: whether log lines are JSON.
        again: whether the gateway has served before: a secret that cannot be had then stops its connection,
            and not the new worker.
    """

    config: str
    confdir: str
    workers: int
    drain: float
    upstream_ca: str = ""
    as_json: bool = False
    notice: float = 0.0
    unsigned: str = "closed"
    again: bool = False

    def as_message(self) -> dict[str, Any]:
        return asdict(self)
