"""The page for a person whose browser was refused or is asked to continue.

It has no script, nothing from elsewhere and no secret. The link to continue is empty: it leads to the address
of the page itself, so the page does not repeat the signature.
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from html import escape
from typing import Final

from ..http.message import Fields
from ..regexes import late

_TITLES: Final = {
    "malformed": "This link is damaged",
    "invalid": "This link is not valid",
    "unsigned": "This address needs a signed link",
    "expired": "This link has expired",
    "not_yet_valid": "This link is not valid yet",
    "revoked": "This link has been withdrawn",
    "method_not_allowed": "This link does not allow that",
    "path_not_allowed": "This link does not lead here",
    "host_mismatch": "This link does not lead here",
    "client_not_allowed": "This link cannot be used from here",
    "lifetime_too_long": "This link cannot be used",
    "no_expiry_not_allowed": "This link cannot be used",
    "not_found": "There is nothing here",
    "limited": "A limit of this link has been reached",
    "not_confirmed": "Open this link?",
}
_TITLE: Final = "This request was refused"
_FAILED: Final = "Something went wrong"
"""The titles of other codes: of the client's mistakes, and of failures on our side."""
_ASK: Final = "If you were sent here, tell whoever gave you the link what this page says."
_LATER: Final = (
    "Try again in a moment. If that does not help, tell whoever gave you the link what this page says."
)
_ASKING: Final = "not_confirmed"
_LOOKED: Final = (
    "To see this page has used nothing up. Programs that only show a preview of a link stop here."
)
_CONTINUE: Final = '<p><a class="go" href="" rel="nofollow">Continue</a></p>\n'

_INSTANT: Final = late(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c1c1e; --soft: #5a5a60; --paper: #fbfbfa; --line: #d8d8d4; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececee; --soft: #a9a9b2; --paper: #17171a; --line: #3a3a40; }
}
* { box-sizing: border-box; }
body {
  margin: 0; min-height: 100vh; padding: 1.5rem 1.25rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: anywhere;
}
main { max-width: 36rem; margin: 8vh auto 0; }
h1 { margin: 0 0 1rem; font-size: 1.6rem; line-height: 1.25; }
p { margin: 0 0 1rem; }
time { white-space: nowrap; }
.soft, dt { color: var(--soft); }
.go {
  display: inline-block; padding: .55rem 1.4rem; border-radius: .4rem; font-weight: 600;
  background: var(--ink); color: var(--paper); text-decoration: none;
}
.go:focus-visible { outline: 3px solid var(--soft); outline-offset: 3px; }
dl {
  display: grid; grid-template-columns: auto 1fr; gap: .35rem 1rem; margin: 1.75rem 0 0;
  padding-top: 1.25rem; border-top: 1px solid var(--line); font-size: .9rem;
}
dd { margin: 0; font-family: ui-monospace, monospace; }
"""
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{message}</p>
{go}<p class="soft">{advice}</p>
<dl>
{rows}
</dl>
</main>
</body>
</html>
"""


def page(status: int, code: str, message: str, request_id: str, limit: str | None = None) -> bytes:
    """Return the page. All texts are escaped: the message may hold what was signed."""
    title = _TITLES.get(code, _FAILED if status >= 500 else _TITLE)
    rows = {"Code": f"{status} {code}", "Limit": limit, "Request": request_id}
    return _PAGE.format(
        title=escape(title),
        style=_STYLE,
        message=_INSTANT.sub(_unbroken, escape(message)),
        go=_CONTINUE if code == _ASKING else "",
        advice=_LOOKED if code == _ASKING else _LATER if status >= 500 else _ASK,
        rows="\n".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in rows.items() if text),
    ).encode("utf-8", "replace")


def _unbroken(instant: re.Match[str]) -> str:
    return f"<time>{instant[0]}</time>"


_HASH: Final = b64encode(hashlib.sha256(_STYLE.encode()).digest())
_POLICY: Final = (
    b"default-src 'none'; style-src 'sha256-%b'; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'; sandbox" % _HASH
)


def fields_of(code: str) -> Fields:
    """Return the header fields of a page: it may load, run, submit and be framed by nothing.

    The page that asks keeps its origin: else the browser would take its link for one of another site, and
    would not send the cookie along. There is no script that could use the origin.
    """
    origin = b" allow-same-origin" if code == _ASKING else b""
    return (b"Content-Security-Policy", _POLICY + origin), (b"X-Frame-Options", b"DENY")
