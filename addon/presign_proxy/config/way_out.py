"""The gateway's proxy, from the section `gateway.upstream_proxy` or from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..config_problems import Location, Problem
from ..core.way_out import DIRECT, Exempt, UpstreamProxy, WayOut
from .build_credentials import FileSecrets
from .proxy_url import LONG, NO_USER, fits, parse_exempt, parse_proxy, proxy_of
from .schema.config import Config, ProxyConfig

AT: Final[Location] = ("gateway", "upstream_proxy")
_NAMES: Final = {"https": ("https_proxy", "all_proxy"), "http": ("http_proxy", "all_proxy")}
_OF_CGI: Final = "REQUEST_METHOD"
"""Where it is set, a client may choose $HTTP_PROXY: a header `Proxy` becomes it (CVE-2016-5385, httpoxy)."""


def way_out(
    config: Config, secrets: FileSecrets, environ: Mapping[str, str], problems: list[Problem]
) -> WayOut:
    """Return the way to upstreams; the direct one if it adds to the problems."""
    wanted = config.gateway.upstream_proxy
    if wanted is None:
        return DIRECT
    if wanted == "env":
        return _of_environment(secrets, environ, problems)
    return _of_section(wanted, secrets, problems)


def _of_section(wanted: ProxyConfig, secrets: FileSecrets, problems: list[Problem]) -> WayOut:
    address = parse_proxy(wanted.url)  # the schema has parsed it
    password = None
    if wanted.password is not None and not address.user:
        problems.append(secrets.document.problem((*AT, "password"), NO_USER))
    elif wanted.password is not None and not secrets.offline:
        password = secrets.secret((*AT, "password"), wanted.password)
        if password.reveal() and not fits(password.reveal()):
            problems.append(secrets.document.problem((*AT, "password"), LONG))
    proxy = proxy_of(address, password)
    found = [parse_exempt(one) for one in wanted.no_proxy]
    return WayOut(proxy, proxy, tuple([one for one in found if one is not None]))


def _of_environment(secrets: FileSecrets, environ: Mapping[str, str], problems: list[Problem]) -> WayOut:
    found: dict[str, UpstreamProxy | None] = {}
    for scheme, names in _NAMES.items():
        found[scheme] = None
        name = next((one for each in names if (one := _set(each, environ))), "")
        if not name:
            continue
        text = environ[name]
        try:
            address = parse_proxy(text if "://" in text else f"http://{text}")
        except ValueError as error:
            problems.append(secrets.document.problem(AT, f"${name} {error}"))
        else:
            found[scheme] = proxy_of(address, address.password)
    if not any(found.values()):
        secrets.warnings.append(secrets.document.problem(AT, "is env, and no variable names a proxy"))
    return WayOut(found["https"], found["http"], tuple(_exempt(secrets, environ)))


def _set(name: str, environ: Mapping[str, str]) -> str:
    """Return the spelling in which a variable is set, the lower-case one first; empty if it is not set."""
    upper = name.upper()
    if environ.get(name):
        return name
    return upper if environ.get(upper) and not (name == "http_proxy" and _OF_CGI in environ) else ""


def _exempt(secrets: FileSecrets, environ: Mapping[str, str]) -> list[Exempt]:
    """Return the exceptions of $NO_PROXY. What is none of ours goes through the proxy, as without it."""
    name = _set("no_proxy", environ)
    words = [word for word in environ.get(name, "").replace(",", " ").split() if word]
    found = {word: parse_exempt(word) for word in words}
    for number, word in enumerate(words, 1):
        if found[word] is None:
            why = f"${name}: its entry {number} is no name, network or * and is ignored"
            secrets.warnings.append(secrets.document.problem(AT, why))
    return [one for one in found.values() if one is not None]
