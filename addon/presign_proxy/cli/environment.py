"""The environment in which programs use a grant unchanged: key, proxy and authorities, as lines of shell."""

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
"""Each names a file of the authorities that a program trusts."""


def exports(grant: Signed, base: str, ca: str, preset: Mapping[str, Any], *, local: bool) -> list[str]:
    """Lines for a shell.

    Args:
        base: where the gateway is.
        ca: the file of the gateway's authority.
        local: whether the API itself is on this machine, so that loopback has to go through the proxy.
    """
    secret, public = _variables(preset)
    file = str(expanded(ca).absolute())
    proxies = {"HTTPS_PROXY": base, "HTTP_PROXY": base, "NO_PROXY": "" if local else _LOOPBACK}
    values = {
        **dict.fromkeys(secret, grant.token),
        # wget, aria2 and gRPC read the lower-case names only; curl reads no other for http.
        **{spelled: value for name, value in proxies.items() for spelled in (name, name.lower())},
        # Node reads the proxy's variables only when it is told to (22.21, 24).
        "NODE_USE_ENV_PROXY": "1",
        **dict.fromkeys(_AUTHORITIES, file),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return [*lines, *(f"# {line}" for line in _remarks(public, base, file))]


def _variables(preset: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The variables that take the token, and those beside them that hold no secret."""
    names, auth = list(preset.get("env") or ["API_KEY"]), preset.get("auth", {})
    asks = list(auth.get("asks", ()))
    if len(asks) != len(names):
        return names[:1], []
    public = [name for name, asked in zip(names, asks, strict=True) if asked in auth.get("public", ())]
    return [name for name in names if name not in public], public


def _remarks(public: list[str], base: str, ca: str) -> Iterator[str]:
    """What no variable says. Behind all exports: a shell may read all of it as one line."""
    for name in public:
        yield f"{name} is no secret: leave your own in it."
    yield "What is to be asked beside the proxy needs the system's authorities too: put them and"
    yield f"{shlex.quote(ca)} into one file, and name that with --ca."
    from urllib.parse import urlsplit  # of all forms, this one alone needs it

    host, _, port = urlsplit(base).netloc.rpartition(":")
    store = "-storetype PKCS12 -keystore presign.p12 -storepass presign"
    yield f"Java: keytool -importcert -noprompt -alias presign -file {shlex.quote(ca)} {store}"
    proxy = f"-Dhttps.proxyHost={host} -Dhttps.proxyPort={port}"
    trust = "-Djavax.net.ssl.trustStore=presign.p12 -Djavax.net.ssl.trustStorePassword=presign"
    yield f"      java {proxy} {trust}"
    yield f"PHP: php -d curl.cainfo={shlex.quote(ca)} -d openssl.cafile={shlex.quote(ca)}"
    yield f"wget, aria2: --ca-certificate={shlex.quote(ca)}"
