"""What the sections `gateway` and `admin` say, held against what they may say."""

from __future__ import annotations

from typing import Final

from ..config_problems import Problem
from ..http.hosts import is_loopback, parse_host
from ..http.networks import Network, parse_network
from .schema.config import Config
from .strict_yaml import Document

_OPEN_PROXY: Final = (
    "is pass: requests without a presign would make `presign serve` an open proxy, which reaches loopback "
    "and everything that this machine reaches; write deny here, or start it with --unsigned pass as well"
)


def unsigned_of(
    config: Config, unsigned: str, document: Document, problems: list[Problem], warnings: list[Problem]
) -> str:
    """What becomes of requests without a presign: `unsigned` is one of `load.UNSIGNED`."""
    at = ("gateway", "unsigned")
    said = config.gateway.unsigned if "unsigned" in config.gateway.model_fields_set else None
    if unsigned == "closed":
        if said == "pass":
            problems.append(document.problem(at, _OPEN_PROXY))
        return "deny"
    if unsigned == "explicit":
        if said == "pass":
            text = "is pass: whoever reaches the gateway has an open proxy"
        else:
            text = "does not say pass: requests without a presign are denied, --unsigned pass or not"
        warnings.append(document.problem(at, text))
        return said or "deny"
    return config.gateway.unsigned if unsigned == "config" else unsigned


def exposed(config: Config, document: Document) -> list[Problem]:
    """What is told to more people than this machine's."""
    if config.admin is None:
        return []
    host = config.admin.listen.host
    # `is_loopback` is for destinations: who *listens* on 0.0.0.0 listens to everybody.
    if is_loopback(host) and host not in ("0.0.0.0", "::"):  # noqa: S104 - not bound here
        return []
    why = "answers whoever reaches this address, with the names of connections: keep it inside"
    return [document.problem(("admin", "listen"), why)]


def hosts_of(config: Config, document: Document, problems: list[Problem]) -> frozenset[str]:
    """The names of the gateway itself, in lower case."""
    found = set()
    for index, name in enumerate(config.gateway.hosts):
        host = parse_host(name)
        if host is None:
            problems.append(document.problem(("gateway", "hosts", index), "is not a host name or address"))
        else:
            found.add(host)
    return frozenset(found)


def trusted_of(config: Config, document: Document, problems: list[Problem]) -> tuple[Network, ...]:
    """The networks of peers whose X-Forwarded-For is believed."""
    found: list[Network] = []
    for index, text in enumerate(config.gateway.trusted_proxies):
        network = parse_network(text)
        if network is None:
            at = ("gateway", "trusted_proxies", index)
            problems.append(document.problem(at, "is not a network, as in 10.0.0.0/8 or 2001:db8::/32"))
        else:
            found.append(network)
    return tuple(found)
