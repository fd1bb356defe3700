"""What an operator does about each code. docs/answers.md has the same in a table."""

from __future__ import annotations

from typing import Final

ADVICE: Final[dict[str, str]] = {
    "malformed": (
        "Sign again with a recipe of docs/signing.md, and use one carrier. A client that joins a base"
        " URL with a path may have glued something onto the presign: ask for the URL as it was sent, "
        "and `presign explain` names the mistake."
    ),
    "invalid": (
        "`presign explain` of the URL compares what was signed, and with which secret. Look whether "
        "the connection exists under this name (`presign connections list`)."
    ),
    "unsigned": (
        "Nothing is wrong with the gateway: only presigned requests pass (`gateway.unsigned: deny`). "
        "The client lost its presign, or calls a host that needs none: then list it under `also`."
    ),
    "not_yet_valid": "Wait until it becomes valid, or compare the clocks of signer and gateway.",
    "expired": (
        "Sign again, for longer if the holder needs it (`--expires`). If it was signed a moment ago, "
        "compare the clocks of signer and gateway."
    ),
    "revoked": (
        "`presign revoke --list` and `presign connections list` say what is revoked or disabled, and "
        "how that is undone. Otherwise sign again with a key that is not revoked."
    ),
    "ended": (
        "What it rests on was revoked, disabled or removed with `--now` while it was under way: that is what "
        "`--now` is for. `presign revoke --list` and `presign connections list` say how it is undone."
    ),
    "method_not_allowed": (
        "Sign for this method (`--methods`). If it is signed, the connection's own `allow.methods` lacks it."
    ),
    "path_not_allowed": (
        "Sign for this path (`--paths`). If it is signed, the connection's own `allow.paths` lacks "
        "it, or the path can be read in two ways (dots, %2F, //)."
    ),
    "host_mismatch": (
        "Use the URL as it was signed: Host, TLS name and the connection's upstream must agree."
    ),
    "redirect_not_allowed": (
        "Use the proxy form (`--as env`) instead of a base URL, so that the gateway stands before the"
        " other origin too; or set `redirects: pass` on the connection."
    ),
    "client_not_allowed": (
        "Use it from a network that was signed (`--client`). If the address is that of a proxy, list "
        "the proxy under `gateway.trusted_proxies`."
    ),
    "lifetime_too_long": (
        "Sign for a shorter time (`--expires`), or raise `max_lifetime` of the connection."
    ),
    "no_expiry_not_allowed": "Sign with an expiry (`--expires`).",
    "not_found": (
        "Gateway URLs have the form /api/proxy/{connectionId}/{path}. If the form is right, its host "
        "is not among `gateway.hosts`."
    ),
    "timeout": (
        "The client stopped sending its body: look at the client and the network. `timeouts.body` is "
        "how long the gateway waits."
    ),
    "not_confirmed": (
        "Nothing is wrong: a browser, or a program that shows previews of links, has looked at a link with "
        "max_uses. The person continues on the page; no use was counted before."
    ),
    "upgrade_required": (
        "Use the API over plain HTTP, or allow WebSocket: `websocket: true` in the connection, and HTTP/1.1."
    ),
    "too_large": (
        "Send less: a head has at most 64 KiB and 100 fields, a body what was signed (`--max-body`)."
    ),
    "limited": "Wait for Retry-After. `presign usage` shows what is left of each limit.",
    "internal": (
        "The gateway failed, and nothing was forwarded: report it with this request id and the log."
    ),
    "upstream": (
        "Look at the upstream: whether it runs, and whether this machine reaches it. Where its "
        "certificate is not trusted, name its authority: `presign connections set NAME tls.ca=ca.pem`."
    ),
    "unavailable": "Look at `presign status`, /readyz and the gateway's log.",
}
"""For each code."""

_SPENT: Final = (
    "No use is left of this URL, and waiting does not help: sign a new one, with a larger `--max-uses` if "
    "its holder needs more."
)


def advice_on(code: str, detail: str) -> str | None:
    """Return what to do about a code; None if the code is unknown. `detail` is that of the audit log."""
    return _SPENT if (code, detail) == ("limited", "uses") else ADVICE.get(code)
