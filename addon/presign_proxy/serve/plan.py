"""The parameters of `presign serve`: everything that a worker needs, and no secret."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of one gateway.

    Args:
        config: the path of the configuration.
        confdir: the directory of mitmproxy's certificate authority.
        workers: the number of workers that serve at a time.
        drain: seconds that requests under way may take once the gateway stops.
        notice: seconds between the signal to stop and the drain, in which the gateway serves as before.
        unsigned: the treatment of requests without a presign: a value of the option `presign_unsigned`.
        upstream_ca: a file of the authorities that verify upstreams, or empty.
        as_json: whether log lines are JSON.
        again: whether the gateway has served before: a missing secret then stops only its connection, and not
            the new worker.
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
