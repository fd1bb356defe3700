"""Spellings of the name of an upstream: whatever an attacker writes, a request reaches another upstream only
if a signed pattern with the name of that upstream matched it.
"""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.connection import Connection, Reached, Upstream
from presign_proxy.core.credentials import BasicCredential, NoCredential, bearer
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.http.message import Origin
from presign_proxy.http.patterns import compared, pattern
from presign_proxy.signing.secret import Secret
from support.deciding import KEY, NOW, SECRET, ask, connection, registry, request
from support.signing import presign_headers, presign_target, token

DEFAULT, UPLOADS, GIT = (Origin("https", f"{name}.example.com", 443) for name in ("api", "uploads", "git"))
NAMES = ("uploads", "up", "git")


def several() -> Connection:
    """A connection whose upstreams have names that begin alike, and base paths that look like names."""
    key = bearer(Secret(KEY))
    upstreams = {
        "": Reached(Upstream(DEFAULT), key),
        "uploads": Reached(Upstream(UPLOADS, b"/base", "uploads"), key),
        "up": Reached(Upstream(UPLOADS, b"/@uploads", "up"), NoCredential()),
        "git": Reached(Upstream(GIT, b"", "git"), BasicCredential(Secret("x"), Secret(KEY))),
    }
    ceiling = Ceiling(upstreams=NAMES, paths=tuple(map(pattern, ("*", "@uploads/*", "@up/*", "@git/*"))))
    found = replace(connection(), upstreams=upstreams, ceiling=ceiling, upstream=None)
    return found.at(upstreams[""])


KNOWN = registry(several())
PIECES = st.sampled_from(
    (
        "@",
        "%40",
        "%2540",
        "@uploads",
        "@up",
        "@git",
        "uploads",
        "up",
        "git",
        "/",
        "//",
        "/./",
        "/../",
        ";",
        ";x",
        "%2F",
        "%2f",
        "%5C",
        "\\",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "%75ploads",
        "@UPLOADS",
        "@Git",
        "?",
        "#",
        "%3B",
        "%3f",
        "%23",
        "%00",
        "%20",
        "%C0%C0",
        "\uff20",
        "\uff20git",
        "\u2025",
        "%EF%BC%A0git",
        "v1",
        "a",
        "a/b",
        "*",
        "@*",
    )
)
PATHS = st.lists(PIECES, min_size=1, max_size=7).map("".join)
PATTERNS = (
    "*",
    "@*",
    "@u*",
    "@up*",
    "@uploads",
    "@uploads/*",
    "@up/*",
    "@git/*",
    "@git/a/b",
    "%40git/*",
    "/@git/*",
    "//@git/*",
    "*@git/*",
    "*/@git/*",
    "@GIT/*",
    "@other/*",
    "%40/*",
    "@/*",
    "v1/*",
    "a/*",
    "@git%2F*",
    "@gi%74/*",
    "@git;x/*",
)
SIGNED = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True)


def _is_permitted(forward: Forward, signed: list[str]) -> bool:
    """Whether a pattern that begins with the very name of the upstream was signed; none, for the default."""
    name = forward.connection.upstream.name if forward.connection.upstream else ""
    bare = [one.removeprefix("/") for one in signed]
    if not name:
        return any(not one.startswith("@") for one in bare)
    return any(one.startswith(f"@{name}/") for one in bare)


def _check(decision: object, signed: list[str]) -> None:
    if not isinstance(decision, Forward):
        assert isinstance(decision, Deny)
        return
    upstream = decision.connection.upstream
    assert upstream is not None
    assert _is_permitted(decision, signed)
    assert decision.origin == upstream.origin
    assert decision.plain.path.startswith(upstream.base + b"/")
    # What was compared is the path that is sent, and nothing in it was cut or decoded on the way.
    below = decision.plain.path[len(upstream.base) :]
    seen = decision.connection.seen(below)
    assert decision.facts.path == seen.decode("ascii")
    read = compared(seen, several=True)
    assert any(pattern(one).matches(read) for one in signed)
    injector = KNOWN.connections["conn"].upstreams[upstream.name].injector
    assert decision.connection.injector is injector


def _listed(signed: list[str]) -> str:
    return ",".join(sorted(signed))


@settings(max_examples=1500, deadline=None)
@given(path=PATHS, signed=SIGNED)
@example(path="@uploads/x", signed=["*"])
@example(path="%40uploads/x", signed=["@uploads/*"])
@example(path="@git/../@uploads/x", signed=["@git/*"])
@example(path="/@git/x", signed=["@git/*"])
@example(path="@up/loads", signed=["@up*"])
@example(path="@git/x", signed=["*@git/*"])
def test_no_spelling_in_a_gateway_url_reaches_what_was_not_signed(path: str, signed: list[str]) -> None:
    lists = _listed(signed)
    word = token(SECRET, "conn", NOW + 60, "GET", lists)
    _check(ask(request(presign_target(SECRET, "conn", path, NOW + 60, "GET", lists)), KNOWN), signed)
    _check(ask(request(f"/p/{word}/{path}"), KNOWN), signed)
    held = ((b"Authorization", f"Bearer {word}".encode()),)
    _check(ask(request(f"/{path}", *held), KNOWN), signed)


@settings(max_examples=1500, deadline=None)
@given(path=PATHS, signed=SIGNED, host=st.sampled_from((DEFAULT, UPLOADS, GIT)))
@example(path="@uploads/x", signed=["@uploads/*"], host=DEFAULT)
@example(path="@uploads/x", signed=["@uploads/*"], host=UPLOADS)
@example(path="base/x", signed=["*"], host=UPLOADS)
def test_no_spelling_at_a_dialled_host_reaches_what_was_not_signed(
    path: str, signed: list[str], host: Origin
) -> None:
    fields = presign_headers(SECRET, "conn", NOW + 60, "GET", _listed(signed))
    held = [(name.encode(), value.encode()) for name, value in fields.items()]
    decision = ask(request(f"/{path}", *held, host=host.host, scheme="https"), KNOWN)
    _check(decision, signed)
    if isinstance(decision, Forward):
        assert decision.origin == host


@settings(max_examples=500, deadline=None)
@given(path=PATHS, signed=SIGNED)
def test_a_new_upstream_widens_no_url_that_does_not_name_it(path: str, signed: list[str]) -> None:
    """What is granted with more upstreams goes where it went without them, with the same path."""
    unnamed = [one for one in signed if not one.removeprefix("/").startswith("@")]
    if not unnamed:
        return
    target = presign_target(SECRET, "conn", path, NOW + 60, "GET", _listed(unnamed))
    after, before = ask(request(target), KNOWN), ask(request(target), registry(connection()))
    if isinstance(after, Forward):
        assert isinstance(before, Forward)
        assert (after.origin, after.plain) == (before.origin, before.plain)


@pytest.mark.parametrize("raw", ["@git", "@git?x=1", "@git/"])
def test_a_name_without_a_path_is_the_root_of_no_upstream(raw: str) -> None:
    target = f"/p/{token(SECRET, 'conn', NOW + 60, 'GET', '@git/*')}/{raw}"
    decision = ask(request(target), KNOWN)
    if raw == "@git/":
        assert isinstance(decision, Forward)
        assert (decision.origin, decision.plain.path) == (GIT, b"/")
    else:
        assert isinstance(decision, Deny)
        assert decision.code == "not_found"


def test_an_escaped_at_reaches_the_default_upstream_as_it_was_sent() -> None:
    target = presign_target(SECRET, "conn", "%40git/a", NOW + 60, "GET", "%40git/*")
    decision = ask(request(target), KNOWN)
    assert isinstance(decision, Forward)
    assert (decision.origin, decision.plain.path) == (DEFAULT, b"/%40git/a")
    assert unquote_to_bytes(decision.plain.path) == b"/@git/a"


@pytest.mark.parametrize(
    ("path", "reached"), [("/@uploads/x", "up"), ("/base/x", "uploads"), ("/basex/x", None)]
)
def test_of_several_upstreams_at_one_origin_the_base_path_decides(path: str, reached: str | None) -> None:
    signed = "@up/*,@uploads/*"
    fields = presign_headers(SECRET, "conn", NOW + 60, "GET", signed)
    held = [(name.encode(), value.encode()) for name, value in fields.items()]
    decision = ask(request(path, *held, host=UPLOADS.host, scheme="https"), KNOWN)
    if reached is None:
        assert isinstance(decision, Deny)
        assert decision.code == "path_not_allowed"
    else:
        assert isinstance(decision, Forward)
        assert decision.facts.path == f"/@{reached}/x"
