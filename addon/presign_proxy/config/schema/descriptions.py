"""The meaning of the keys of a configuration, a line each: for the JSON Schema and the command's help."""

from __future__ import annotations

from typing import Any, Final

_COMMON: Final = {
    "enabled": "Whether it may be used: requests to a disabled one are answered revoked.",
    "signing_keys": "The secrets that sign, at most four; the first one signs.",
    "cookies": "What happens to cookies in both directions.",
    "redirects": "What happens to redirects that would take a presign to another origin.",
    "cache": "Whether answers may be kept by shared caches: private forbids it.",
    "on_client_credentials": "What happens to credentials that a client brings.",
    "insecure_upstream": "Allow plain http to an upstream beyond this machine.",
    "pool": "Let clients share connections to the upstream.",
    "timeouts": "How long each part of a request may take.",
    "limits": "Rates, quotas and concurrency.",
    "max_uses": "How often a URL may be used.",
    "cors": "Pages of other origins that may call it.",
    "upstream_proxy": "none: reach the upstream without the proxy of the gateway.",
    "tls": "The authorities and the client certificate for the upstream.",
}
_PRESIGN: Final = {
    "scheme": "presign: an API, whose key the gateway keeps.",
    "preset": "A built-in or configured provider, which fills in what is not given.",
    "vars": "A value for a variable in the host of the preset.",
    "upstream": "The URL of the API: https://host[:port][/base].",
    "upstreams": "Another host of the provider, by name.",
    "auth": "How the credential is sent, and the credential.",
    "default_headers": "A header that requests get if they lack it; no secret.",
    "allow": "Ceiling: what may be signed.",
    "max_lifetime": "Ceiling: how long a URL may be valid.",
    "allow_no_expiry": "Allow URLs that never expire.",
    "head_as_get": "Whoever may GET a path may HEAD it, too.",
    "allow_encoded_slash": "Allow %2F in paths.",
    "also": "Hosts that requests without a presign may reach, without the credential.",
    "allow_networks": "Networks that may hold the hosts of also; other addresses must be public.",
    "challenge": "basic: ask clients such as git for their key with a 401.",
    "url_headers": "Headers of answers that hold the URL of a next request.",
    "websocket": "Allow WebSockets.",
    "max_duration": "How long a WebSocket may last.",
    "key_shapes": "Texts that may stand before a key token, such as sk-ant-api03-.",
    "key_slots": "Further places in which a key token may stand.",
}
_SOURCE: Final = {
    "scheme": "source: files of other sites, which the gateway fetches.",
    "mode": "Whether source URLs are signed, or only their origins listed.",
    "allowed_origins": "Sites whose files may be fetched, with their subdomains.",
    "any_public_origin": "Also fetch from every public site.",
    "formats": "File extensions that may be asked for.",
    "ports": "Ports besides 80, 443 and those of allowed origins.",
    "allow_networks": "Networks that may hold an allowed origin; other addresses must be public.",
    "intercept": "Also take signed URLs on the allowed origins themselves.",
    "auth": "The credential for listed origins.",
}
_OF_MODEL: Final[dict[str, dict[str, str]]] = {
    "Config": {
        "gateway": "The gateway itself.",
        "presets": "A file with providers of your own.",
        "registry": "The encrypted file that presign connections manages.",
        "connections": "A connection, by its id. Those of the registry stand beside these.",
        "audit": "The log of decisions, one JSON line each.",
        "limits": "Where limits are counted.",
        "admin": "The listener for health checks and metrics.",
    },
    "GatewayConfig": {
        "hosts": "Names that address the gateway itself; they need not resolve.",
        "url": "The address that presign sign puts into URLs.",
        "tls": "The certificate of the names in hosts.",
        "unsigned": "What happens to requests without a presign.",
        "trusted_proxies": "Networks of balancers whose X-Forwarded-For is believed.",
        "upstream_proxy": "The proxy that upstreams are reached through; env: as HTTPS_PROXY says.",
        "max_clients": "Most client connections of one process.",
    },
    "FrontConfig": {
        "cert": "A file with the certificate and its chain.",
        "key": "A file with the private key.",
        "plain_http": "Also answer URLs over plain HTTP from other machines.",
    },
    "ProxyConfig": {
        "url": "The proxy: http://, https:// or socks5://, with a user if it asks for one.",
        "password": "The password of the user.",
        "no_proxy": "Upstreams that are reached without it: names, .suffixes, addresses, networks.",
    },
    "RegistryConfig": {
        "file": "The registry, beside this file.",
        "key": "The key that opens it, or a passphrase.",
    },
    "AuditConfig": {
        "file": "The file to write to; - is standard error.",
        "required": "Grant nothing while the log cannot be written.",
    },
    "LimitsConfig": {
        "store": "memory://, sqlite:///FILE, redis://HOST or rediss://HOST.",
        "password": "The password of Redis.",
        "ca": "A file of the authorities that are trusted for Redis.",
    },
    "AdminConfig": {"listen": "HOST:PORT; keep it on loopback."},
    "CommonConnection": _COMMON,
    "PresignConnection": _PRESIGN,
    "SourceConnection": _SOURCE,
    "Allow": {
        "methods": "Ceiling: methods that may be signed.",
        "paths": "Ceiling: path patterns that may be signed.",
    },
    "Timeouts": {
        "connect": "How long it may take to reach the upstream.",
        "response": "How long the upstream may take until its answer begins.",
        "body": "How long a body may pause.",
    },
    "TlsConfig": {
        "ca": "A file of the authorities that are trusted instead of the usual ones.",
        "client_cert": "A file with the certificate that is shown to the upstream.",
        "client_key": "A file with the private key of client_cert.",
    },
    "CorsEntry": {
        "origins": "Origins of pages that may call it, such as https://app.example.com; * is any.",
        "headers": "Headers that such a page may send; * is any.",
        "expose": "Headers of answers that such a page may read, besides the usual ones.",
        "max_age": "How long a browser keeps the answer to a preflight.",
    },
    "KeySlots": {
        "headers": "Headers in which a key token may stand.",
        "params": "Parameters of the query in which a key token may stand.",
        "passwords": "Passwords of Basic that may stand beside a key token.",
    },
    "HeaderAuth": {"prefix": "The text before the key in a header."},
    "PathAuth": {"template": "The path that holds the key, as in /bot{token}."},
    "OAuth2Auth": {
        "grant": "How tokens are asked for.",
        "token_url": "Where tokens are issued.",
        "audience": "The claim aud of assertions.",
        "subject": "The claim sub of assertions.",
        "scope": "The scopes of tokens, with blanks between them.",
        "extra": "A further parameter of token requests; no secret.",
        "client_auth": "How the client proves who it is at the token endpoint.",
    },
    "RegistryTokenAuth": {
        "token_url": "The token service of the registry, if the gateway does not know it by the host.",
        "service": "The name that the token service knows the registry by.",
    },
    "SigV4Auth": {
        "service": "The service of AWS, if the host does not say it.",
        "region": "The region of AWS, if the host does not say it.",
        "client_scope": "Take service and region from the signature of the client.",
        "max_body": "Most bytes of a body that has to be read before it is sent.",
    },
}
"""For each model, its keys. A model also has those of the models that it is made from."""


def add_descriptions(schema: dict[str, Any], model: type[Any]) -> None:
    """Put the descriptions of its keys into the JSON Schema of a model."""
    for one in reversed(model.__mro__):
        for name, text in _OF_MODEL.get(one.__name__, {}).items():
            if name in schema.get("properties", {}):
                schema["properties"][name]["description"] = text
