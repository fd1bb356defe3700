"""Check the sections `gateway` and `admin`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..config_problems import Problem
from ..http.hosts import is_loopback, parse_address, parse_authority, parse_host
from ..http.networks import Network, parse_network
from .schema.config import Config
from .strict_yaml import Document

_OPEN_PROXY: Final = (
    "is pass: for requests without a presign `presign serve` would be an open proxy, which reaches loopback "
    "and everything that this machine reaches; write deny here, or add --unsigned pass to the command"
)

_UNKNOWN: Final = "URLs that `presign sign` prints are answered not_found or invalid"
_PLAIN: Final = (
    "begins with http://, and with gateway.tls the gateway refuses plain HTTP of other machines"
    " (host_mismatch): write https://, or set gateway.tls.plain_http: true"
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


def doubtful(config: Config, hosts: frozenset[str], document: Document) -> Iterator[Problem]:
    """Yield warnings about what works, but probably not as its owner expects.

    Args:
        hosts: the names of the gateway.
    """
    yield from _exposed(config, document)
    yield from _unusable_url(config, hosts, document)


def _exposed(config: Config, document: Document) -> Iterator[Problem]:
    """Yield a warning if the admin listener can be reached from other machines."""
    if config.admin is None:
        return
    host = config.admin.listen.host
    # `is_loopback` judges destinations. As a *listening* address, 0.0.0.0 is open to everybody.
    if is_loopback(host) and host not in ("0.0.0.0", "::"):  # noqa: S104 - not bound here
        return
    why = (
        "answers everybody who reaches this address, with the names of connections and the paths of requests "
        "under way: keep it internal"
    )
    yield document.problem(("admin", "listen"), why)


def _unusable_url(config: Config, hosts: frozenset[str], document: Document) -> Iterator[Problem]:
    """Yield warnings if the gateway would refuse URLs that begin with `gateway.url`."""
    scheme, _, rest = (config.gateway.url or "").partition("://")
    origin = parse_authority(rest.partition("/")[0], scheme)
    if origin is None:
        return
    at, host = ("gateway", "url"), origin.host
    # An address may be that of its socket, which it knows when a client connects.
    if host not in hosts and host != "localhost" and not parse_address(host):
        yield document.problem(at, f"names {host}, which gateway.hosts does not list: {_UNKNOWN}")
    if config.gateway.tls_only and scheme.lower() == "http" and not is_loopback(host):
        yield document.problem(at, _PLAIN)


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
