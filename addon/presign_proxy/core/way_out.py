"""The way out: directly or through a proxy, decided by the destination, and what TLS is spoken there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from ..http.hosts import is_loopback, parse_address
from ..http.networks import Network, is_in
from ..signing.secret import Secret


@dataclass(frozen=True, slots=True)
class UpstreamProxy:
    """A proxy that stands between the gateway and its upstreams. Equal if all of it is, the password too."""

    scheme: Literal["http", "socks5"]
    host: str
    port: int
    user: str = ""
    password: Secret | None = field(default=None, compare=False)
    mark: str = ""
    """A digest of the user and the password."""

    def __str__(self) -> str:
        """Return the proxy as a URL, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class UpstreamTls:
    """What a connection uses in TLS with its upstream. Equal if all of it is.

    `ca`: the only authorities that are trusted, as PEM; None for those of the system. `chain` and `key`: the
    client certificate, as PEM; no certificate is shown without them.
    """

    mark: str
    """A digest of all of it."""
    ca: str | None = field(default=None, compare=False, repr=False)
    chain: str = field(default="", compare=False, repr=False)
    key: Secret | None = field(default=None, compare=False)


class Exempt(NamedTuple):
    """An entry of `no_proxy`. `port`: the only port that it is for; None for all.

    `suffix`: with a leading dot, the end of the names; a name itself is meant if `name` is set. All are
    empty for `*`.
    """

    name: str = ""
    suffix: str = ""
    network: Network | None = None
    port: int | None = None

    def covers(self, host: str, port: int, addresses: tuple[str, ...]) -> bool:
        """Return whether a destination is reached directly.

        Args:
            addresses: those that were judged; a network is compared with them, or with a host that is one.
        """
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            parsed = [parse_address(one) for one in addresses or (host,)]
            return all(one is not None and is_in(one, (self.network,)) for one in parsed)
        if not self.name and not self.suffix:
            return True
        return host == self.name or bool(self.suffix and host.endswith(self.suffix))


@dataclass(frozen=True, slots=True)
class WayOut:
    """The proxies that upstreams are reached through, by the scheme of the upstream, and the exceptions."""

    https: UpstreamProxy | None = None
    http: UpstreamProxy | None = None
    exempt: tuple[Exempt, ...] = ()

    def proxy_for(
        self, scheme: str, host: str, port: int, addresses: tuple[str, ...] = ()
    ) -> UpstreamProxy | None:
        """Return the proxy for a destination; None if it is dialled directly.

        Loopback never goes to a proxy, for which it would mean another machine. Plain http is allowed there
        only because nobody else reads it.
        """
        proxy = self.https if scheme == "https" else self.http
        if proxy is None or is_loopback(host):
            return None
        return None if any(one.covers(host, port, addresses) for one in self.exempt) else proxy

    def __str__(self) -> str:
        """Return it in words, without users and passwords."""
        each = [f"{name} through {one}" for name, one in (("https", self.https), ("http", self.http)) if one]
        if not each:
            return "directly"
        said = f"through {self.https}" if self.https == self.http else " and ".join(each)
        count = len(self.exempt)
        return said + (f", with {count} exception{'' if count == 1 else 's'}" if count else "")


DIRECT: Final = WayOut()
