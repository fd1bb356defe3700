"""The laboratory of `hostile.json`: its connections, secrets and names, with the recorder behind them."""

from typing import Any

REAL_SECRET = "REALSECRET-sk-lab-0123456789"
LAB_SECRET = "sk_lab_signing_secret"
TTL_SECRET = "sk_second_secret"
SOURCE_SECRET = "sk_motion_secret"
SPECIAL = ("conn_ws", "conn_page", "conn_many", "conn_aws", "conn_shape")
"""Connections that allow what `conn_lab` does not: WebSocket, pages, a second upstream, AWS, a shape."""
SECRETS = {"conn_lab": LAB_SECRET, "conn_ttl": TTL_SECRET, "pk_lab": SOURCE_SECRET}
SECRETS |= dict.fromkeys(SPECIAL, LAB_SECRET)
GATEWAY_HOSTS = ["presign.click", "presign.local", "motioness.com"]


def bearer_connection(upstream: str, secret: str, **extra: Any) -> dict[str, Any]:
    """A presign connection that puts the real secret on, as a bearer token."""
    auth = {"type": "bearer", "token": REAL_SECRET}
    return {"upstream": upstream, "auth": auth, "signing_keys": [{"secret": secret}]} | extra


def lab_config(port: int) -> dict[str, Any]:
    """The gateway under attack; its only upstream is the recorder at `port`."""
    upstream = f"http://127.0.0.1:{port}"
    source = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [f"http://img.lab.test:{port}"],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["webp", "png", "jpg"],
        "ports": [80, 443, port],
        "signing_keys": [{"secret": SOURCE_SECRET}],
    }
    return {
        "gateway": {"hosts": GATEWAY_HOSTS, "unsigned": "pass"},
        "connections": {
            "conn_lab": bearer_connection(upstream, LAB_SECRET),
            "conn_ttl": bearer_connection(upstream, TTL_SECRET, allow_no_expiry=False, max_lifetime="2h"),
            "pk_lab": source,
            **_special(upstream),
        },
    }


def _special(upstream: str) -> dict[str, Any]:
    cors = {"origins": ["https://app.lab.test"]}
    by_aws = {"type": "aws_sigv4", "access_key_id": "AKIALABLABLABLABLABL", "secret_access_key": REAL_SECRET}
    changes: tuple[dict[str, Any], ...] = (
        {"websocket": True, "key_slots": {"headers": ["Sec-WebSocket-Protocol"]}},
        {"cors": cors, "allow": {"methods": ["GET", "OPTIONS", "POST"]}},
        {"upstreams": {"up": f"{upstream}/second"}},
        {"auth": by_aws | {"service": "s3", "region": "eu-west-1"}},
        {"key_shapes": ["sk-ant-api03-"]},
    )
    return {
        name: bearer_connection(upstream, LAB_SECRET) | change
        for name, change in zip(SPECIAL, changes, strict=True)
    }


def lab_dns(port: int) -> dict[str, list[str] | list[list[str]]]:
    """The names of the fixtures, and those that must never be dialled: these lead to the recorder too.

    Without them a request let through to `evil.test` would fail in DNS and look like a refusal.
    """
    trap = [f"127.0.0.1#{port}"]
    return {
        "img.lab.test": ["127.0.0.1"],
        "rebind.lab.test": [["93.184.216.34"], ["127.0.0.1"]],
        "mixed.lab.test": ["93.184.216.34", "10.0.0.1"],
        "evil.test": trap,
        "other.test": trap,
        "presign.click": trap,
        "motioness.com": trap,
    }
