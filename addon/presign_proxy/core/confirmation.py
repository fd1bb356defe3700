"""The question whether to continue, before a link that can be used a few times is used.

Chat programs, mail scanners and browsers look at links before a person opens them. Each look would spend a
use. So a browser that opens such a link first gets a page with a link to continue; a program that says that
it looks ahead gets nothing else.

The browser continues with a cookie that the page sets. It grants nothing: without a good signature there is
no question, and a holder may spend the uses as he likes.
"""

from __future__ import annotations

from typing import Final

from ..errors import Denied
from ..http.message import Fields, Head, Request
from ..http.navigation import looks_ahead
from .decision import Facts

CODE: Final = "not_confirmed"
_COOKIE: Final = b"presign-continue-"
_SECONDS: Final = 300
"""For how long the browser may continue without being asked again."""
_ASKED: Final = "a browser was asked to continue; no use was counted"
_LOOKED: Final = "a program looked ahead at the link; no use was counted"
_FROM: Final = b"sec-fetch-site"
_BY_LINK: Final = ("query", "path")
"""The carriers of a URL that is a presign. Whoever sends the others has no link to look at."""


def check_confirmed(request: Request, head: Head, facts: Facts, uses: int | None, *, navigates: bool) -> None:
    """Ask before a use is counted. Raises Denied.

    Only GET and HEAD are asked about: link previews send nothing else, and the body of a form would be lost.

    Args:
        uses: how often the link can be used, as it was signed; None if only the connection has a limit.
        navigates: whether a person reads the answer, in a browser.
    """
    if facts.carrier not in _BY_LINK or request.method not in (b"GET", b"HEAD"):
        return
    ahead = looks_ahead(request.fields, head)
    if not ahead and (not navigates or _has_continued(request.fields, facts)):
        return
    cookie = b"%b=1; Max-Age=%d; Path=/; HttpOnly; SameSite=Strict" % (_name(facts), _SECONDS)
    raise Denied(
        CODE,
        _LOOKED if ahead else _ASKED,
        sentence=_sentence(uses),
        fields=() if ahead else ((b"Set-Cookie", cookie),),
    )


def without_confirmation(field: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    """Return a Cookie field for the upstream without our cookies; None if there are no others in it."""
    name, value = field
    if value.find(_COOKIE) < 0:
        return field
    others = [one for one in value.split(b";") if not one.strip().startswith(_COOKIE)]
    return (name, b";".join(others).strip()) if others else None


def _sentence(uses: int | None) -> str:
    if uses == 1:
        return "This link works once. If you continue, it is used up."
    times = "can be used a limited number of times" if uses is None else f"can be used {uses} times in all"
    return f"This link {times}. If you continue, one of them is spent."


def _has_continued(fields: Fields, facts: Facts) -> bool:
    """Return whether the browser was asked, and follows the link of our page.

    Browsers say from where (Fetch Metadata, 2.3): a link that is opened a second time comes from nowhere.
    """
    wanted = _name(facts) + b"=1"
    if any(name.lower() == _FROM and value != b"same-origin" for name, value in fields):
        return False
    cookies = [value for name, value in fields if name.lower() == b"cookie"]
    return any(wanted == one.strip() for value in cookies for one in value.split(b";"))


def _name(facts: Facts) -> bytes:
    """Return the name of the cookie for this presign. The id of its signature grants nothing."""
    return _COOKIE + (facts.signature or "").encode()
