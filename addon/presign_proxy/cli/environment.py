"""The environment with which unchanged programs use a grant: key, base URL, proxy and authorities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

CA: Final = "~/.mitmproxy/mitmproxy-ca-cert.pem"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
PROXIES: Final = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
AUTHORITIES: Final = (
    "SSL_CERT_FILE",  # OpenSSL, and with it Ruby, PHP's streams and Python; Go; Rust; .NET
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "npm_config_cafile",
    "YARN_HTTPS_CA_FILE_PATH",
    "CARGO_HTTP_CAINFO",
    "BUNDLE_SSL_CA_CERT",
    "HEX_CACERTS_PATH",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",  # googleapiclient
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",  # gcloud
    "PERL_LWP_SSL_CA_FILE",
    "HTTPS_CA_FILE",
    "NIX_SSL_CERT_FILE",
    "CODEX_CA_CERTIFICATE",
)
"""Variables that name a file of the authorities that a program trusts."""


class KeyVariables(NamedTuple):
    """The variables in which the programs of a provider look for its key and its base URL.

    Args:
        public: variables that hold no secret, which their owner keeps.
        path: the path that the provider's SDK expects in its base URL.
    """

    secret: Sequence[str]
    base: Sequence[str] = ()
    public: Sequence[str] = ()
    path: str = ""


def key_variables(preset: Mapping[str, Any]) -> KeyVariables:
    """Return the variables that a preset names; `API_KEY` if it names none."""
    names, auth = list(preset.get("env") or ["API_KEY"]), preset.get("auth", {})
    asks = list(auth.get("asks", ()))
    public: list[str] = []
    if len(asks) == len(names):  # each variable holds another value
        public = [name for name, asked in zip(names, asks, strict=True) if asked in auth.get("public", ())]
    secret = [name for name in names if name not in public]
    return KeyVariables(secret, list(preset.get("base_env", ())), public, preset.get("sdk_base") or "")


def of_key(token: str, names: KeyVariables) -> dict[str, str]:
    """Return the variables that hold the token."""
    return dict.fromkeys(names.secret, token)


def of_base_url(base: str, names: KeyVariables) -> dict[str, str]:
    """Return the variables that hold a base URL at the gateway. A key token says for which connection."""
    return dict.fromkeys(names.base, f"{base}/{names.path}".rstrip("/"))


def of_proxy(base: str, *, local: bool) -> dict[str, str]:
    """Return the variables that lead all requests through the gateway.

    Args:
        local: whether the API itself is on this machine, so that loopback must go through the proxy.
    """
    here = () if local else direct(base)
    proxies = dict(zip(PROXIES, (base, base, ",".join(here)), strict=True))
    return {
        # wget, aria2 and gRPC read only the lower-case names; for http, so does curl.
        **{spelled: value for name, value in proxies.items() for spelled in (name, name.lower())},
        # Node reads the proxy variables only with this one (22.21, 24).
        "NODE_USE_ENV_PROXY": "1",
    }


def direct(base: str) -> tuple[str, ...]:
    """Return the hosts that need no proxy: this machine, and the gateway itself."""
    host = _host_and_port(base)[0].strip("[]")
    return _LOOPBACK if host in _LOOPBACK else (*_LOOPBACK, host)


def of_authorities(file: str) -> dict[str, str]:
    """Return the variables that name a file of authorities."""
    return dict.fromkeys(AUTHORITIES, file)


def has_tls(base: str) -> bool:
    """Return whether the gateway at this URL shows a certificate of its own."""
    return base.lower().startswith("https:")


def java_proxy(base: str) -> str:
    """Return the options with which Java uses the gateway as its proxy: it reads no variable for that."""
    host, port = _host_and_port(base)
    return f"-Dhttps.proxyHost={host} -Dhttps.proxyPort={port}"


def _host_and_port(base: str) -> tuple[str, str]:
    authority = base.partition("://")[2].partition("/")[0].rpartition("@")[2]
    host, colon, port = authority.rpartition(":")
    if not colon or "]" in port:
        return authority, "443" if has_tls(base) else "80"
    return host, port
