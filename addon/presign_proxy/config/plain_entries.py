"""The keys of a configuration and of its connections, with the types of values that the fast view reads."""

from __future__ import annotations

from typing import Final

SECTIONS: Final = frozenset(("gateway", "presets", "registry", "connections", "audit", "limits", "admin"))
"""The sections of a configuration."""
REVOCABLE: Final = frozenset(("urls", "keys", "ids", "connections", "added_before"))
"""What a registry lists as revoked."""
_COMMON: Final[dict[str, tuple[type, ...]]] = {
    "enabled": (bool,),
    "signing_keys": (list,),
    "cookies": (str,),
    "redirects": (str,),
    "cache": (str,),
    "on_client_credentials": (str,),
    "insecure_upstream": (bool,),
    "pool": (bool, str),
    "timeouts": (dict,),
    "limits": (list,),
    "max_uses": (int,),
    "cors": (dict,),
    "upstream_proxy": (str,),
    "tls": (dict,),
}
MEMBERS: Final[dict[str, dict[str, tuple[type, ...]]]] = {
    "presign": _COMMON
    | {
        "scheme": (str,),
        "preset": (str,),
        "vars": (dict,),
        "upstream": (str,),
        "upstreams": (dict,),
        "auth": (dict,),
        "default_headers": (dict,),
        "allow": (dict,),
        "max_lifetime": (str,),
        "allow_no_expiry": (bool,),
        "head_as_get": (bool,),
        "allow_encoded_slash": (bool,),
        "also": (list,),
        "allow_networks": (list,),
        "challenge": (str,),
        "url_headers": (list,),
        "websocket": (bool,),
        "max_duration": (str,),
        "key_shapes": (list,),
        "key_slots": (dict,),
    },
    "source": _COMMON
    | {
        "scheme": (str,),
        "mode": (str,),
        "allowed_origins": (list,),
        "any_public_origin": (bool,),
        "formats": (list,),
        "ports": (list,),
        "allow_networks": (list,),
        "intercept": (bool,),
        "auth": (dict,),
    },
}
"""The members of an entry for each scheme, with the types that count as plain."""
