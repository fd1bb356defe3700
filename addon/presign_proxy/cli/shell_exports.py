"""The lines of `--as env`: exports for a shell, and comments with what no variable can express."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from ..signing.signer import Signed
from .environment import KeyVariables, has_tls, java_proxy, of_authorities, of_base_url, of_key, of_proxy
from .exported_trust import ExportedTrust
from .java import trust_option


def exports(grant: Signed, base: str, trust: ExportedTrust, names: KeyVariables, *, local: bool) -> list[str]:
    """Return the exports as lines for a shell.

    Args:
        base: the gateway's URL.
        names: the variables that the program reads.
        local: whether the API itself is on this machine.
    """
    values = {
        **of_key(grant.token, names),
        **of_base_url(base, names),
        **of_proxy(base, local=local),
        **of_authorities(str(trust.file)),
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    # A line break in the name of a file would end the comment, and a shell would run what follows it.
    return [*lines, *(f"# {line}" for one in _remarks(names.public, base, trust) for line in one.split("\n"))]


def _remarks(public: Sequence[str], base: str, trust: ExportedTrust) -> Iterator[str]:
    """Yield what no variable can express. It follows all exports: a shell may read everything as one line."""
    ca = shlex.quote(str(trust.file))
    for name in public:
        yield f"{name} is not secret: keep your own value in it."
    yield from _for_java(base, trust)
    if has_tls(base):
        # curl uses CURL_CA_BUNDLE for servers, and no variable for the TLS of a proxy.
        yield f"curl: --proxy-cacert {ca}, as an option or as a line of ~/.curlrc"
    yield f"PHP: php -d curl.cainfo={ca} -d openssl.cafile={ca}"
    yield f"wget, aria2: --ca-certificate={ca}"


def _for_java(base: str, trust: ExportedTrust) -> Iterator[str]:
    if trust.store is not None:
        yield f"Java: java {java_proxy(base)} {trust_option(shlex.quote(str(trust.store)))}"
        return
    if trust.gateway is None:  # keytool would take the first certificate of a bundle, and no other
        yield "Java reads no such file: use `presign run`, or see `presign ca --instructions`."
        yield f"      java {java_proxy(base)}"
        return
    gateway = shlex.quote(str(trust.gateway))
    store = "-storetype PKCS12 -keystore presign.p12 -storepass presign"
    yield f"Java: keytool -importcert -noprompt -alias presign -file {gateway} {store}"
    yield f"      java {java_proxy(base)} {trust_option('presign.p12')}"
