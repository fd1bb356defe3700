"""The environment with which unchanged programs use a grant: key, proxy and authorities, as shell lines."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ..config.path import expanded
from ..signing.signer import Signed

CA: Final = "~/.mitmproxy/mitmproxy-ca-cert.pem"
_LOOPBACK: Final = "localhost,127.0.0.1,::1"
_AUTHORITIES: Final = (
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
)
"""Variables that name a file of the authorities that a program trusts."""


def exports(grant: Signed, base: str, ca: str, preset: Mapping[str, Any], *, local: bool) -> list[str]:
    """Return the exports as lines for a shell.

    Args:
        base: the gateway's URL.
        ca: the file of the gateway's authority.
        local: whether the API itself is on this machine, so that loopback must go through the proxy.
    """
    secret, public = _variables(preset)
    file = str(expanded(ca).absolute())
    proxies = {"HTTPS_PROXY": base, "HTTP_PROXY": base, "NO_PROXY": "" if local else _LOOPBACK}
    values = {
        **dict.fromkeys(secret, grant.token),
        # wget, aria2 and gRPC read only the lower-case names; for http, so does curl.
        **{spelled: value for name, value in proxies.items() for spelled in (name, name.lower())},
        # Node reads the proxy variables only with this one (22.21, 24).
        "NODE_USE_ENV_PROXY": "1",
        **dict.fromkeys(_AUTHORITIES, file),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return [*lines, *(f"# {line}" for line in _remarks(public, base, file))]


def _variables(preset: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the variables that take the token, and those that hold no secret."""
    names, auth = list(preset.get("env") or ["API_KEY"]), preset.get("auth", {})
    asks = list(auth.get("asks", ()))
    if len(asks) != len(names):
        return names[:1], []
    public = [name for name, asked in zip(names, asks, strict=True) if asked in auth.get("public", ())]
    return [name for name in names if name not in public], public


def _remarks(public: list[str], base: str, ca: str) -> Iterator[str]:
    """Yield what no variable can express. It follows all exports: a shell may read everything as one line."""
    for name in public:
        yield f"{name} is not secret: keep your own value in it."
    yield "Requests that bypass the proxy also need the system's authorities: put those and"
    yield f"{shlex.quote(ca)} into one file, and name that file with --ca."
    from urllib.parse import urlsplit  # only this form needs it

    host, _, port = urlsplit(base).netloc.rpartition(":")
    store = "-storetype PKCS12 -keystore presign.p12 -storepass presign"
    yield f"Java: keytool -importcert -noprompt -alias presign -file {shlex.quote(ca)} {store}"
    proxy = f"-Dhttps.proxyHost={host} -Dhttps.proxyPort={port}"
    trust = "-Djavax.net.ssl.trustStore=presign.p12 -Djavax.net.ssl.trustStorePassword=presign"
    yield f"      java {proxy} {trust}"
    yield f"PHP: php -d curl.cainfo={shlex.quote(ca)} -d openssl.cafile={shlex.quote(ca)}"
    yield f"wget, aria2: --ca-certificate={shlex.quote(ca)}"
