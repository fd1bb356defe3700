"""Check the sections `gateway` and `admin`."""

from __future__ import annotations

from typing import Final

from ..config_problems import Problem
from ..http.hosts import is_loopback, parse_host
from ..http.networks import Network, parse_network
from .schema.config import Config
from .strict_yaml import Document

_OPEN_PROXY: Final = (
    "is pass: for requests without a presign `presign serve` would be an open proxy, which reaches loopback "
    "and everything that this machine reaches; write deny here, or add --unsigned pass to the command"
)


def unsigned_of(
    config: Config, unsigned: str, document: Document, problems: list[Problem], warnings: list[Problem]
) -> str:
    """Return "pass" or "deny" for requests without a presign; `unsigned` is one of `load.UNSIGNED`."""
    at = ("gateway", "unsigned")
    said = config.gateway.unsigned if "unsigned" in config.gateway.model_fields_set else None
    if unsigned == "closed":
        if said == "pass":
            problems.append(document.problem(at, _OPEN_PROXY))
        return "deny"
    if unsigned == "explicit":
        if said == "pass":
            text = "is pass: the gateway is an open proxy for everybody who reaches it"
        else:
            text = "is not pass: requests without a presign are denied in spite of --unsigned pass"
        warnings.append(document.problem(at, text))
        return said or "deny"
    return config.gateway.unsigned if unsigned == "config" else unsigned


def exposed(config: Config, document: Document) -> list[Problem]:
    """Return a warning if the admin listener can be reached from other machines."""
    if config.admin is None:
        return []
    host = config.admin.listen.host
    # `is_loopback` judges destinations. As a *listening* address, 0.0.0.0 is open to everybody.
    if is_loopback(host) and host not in ("0.0.0.0", "::"):  # noqa: S104 - not bound here
        return []
    why = (
        "answers everybody who reaches this address, with the names of connections and the paths of requests "
        "under way: keep it internal"
    )
    return [document.problem(("admin", "listen"), why)]


def hosts_of(config: Config, document: Document, problems: list[Problem]) -> frozenset[str]:
    """Return the names of the gateway itself, in lower case."""
    found = set()
    for index, name in enumerate(config.gateway.hosts):
        host = parse_host(name)
        if host is None:
            problems.append(document.problem(("gateway", "hosts", index), "is not a host name or address"))
        else:
            found.add(host)
    return frozenset(found)


def trusted_of(config: Config, document: Document, problems: list[Problem]) -> tuple[Network, ...]:
    """Return the networks of peers whose X-Forwarded-For is believed."""
    found: list[Network] = []
    for index, text in enumerate(config.gateway.trusted_proxies):
        network = parse_network(text)
        if network is None:
            at = ("gateway", "trusted_proxies", index)
            problems.append(document.problem(at, "is not a network, as in 10.0.0.0/8 or 2001:db8::/32"))
        else:
            found.append(network)
    return tuple(found)
