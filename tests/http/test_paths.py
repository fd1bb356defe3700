"""Canonical paths and patterns."""

import itertools
import re
import sys
import time
import unicodedata
from urllib.parse import unquote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.decision import Deny
from presign_proxy.core.policy import check_path
from presign_proxy.errors import MESSAGE, Denied
from presign_proxy.http.paths import canonical_path, units
from presign_proxy.http.patterns import (
    HASHES,
    QUESTION_MARKS,
    SEMICOLONS,
    compared,
    meets,
    pattern,
    unmarked,
)
from support.deciding import ask, code, connection, registry, request, sent, signed
from support.upstreams import readings

CANONICAL = {
    b"/v1/models": b"/v1/models",
    b"/v1/%6Dodels": b"/v1/models",
    b"/v1/caf%c3%a9/a+b:c@d": b"/v1/caf%C3%A9/a+b:c@d",
    "/v1/über".encode(): b"/v1/%C3%BCber",
    b"/a%2ab": b"/a%2Ab",
    b"/files/": b"/files/",
    b"/": b"/",
    b"/.well-known/x": b"/.well-known/x",
    b"/a;v=1/b": b"/a;v=1/b",
    b"/%7euser": b"/~user",
    b"/a{b}|c": b"/a%7Bb%7D%7Cc",
    b"/100%25": b"/100%25",
    b"/a...b/..c/d..": b"/a...b/..c/d..",
    b"/a|b%c3%a9 c%2a": b"/a%7Cb%C3%A9%20c%2A",
    b"/caf%C3%A9/": b"/caf%C3%A9/",
    b"/a/%20/b": b"/a/%20/b",
    b"/a;x;y=1;z/b": b"/a;x;y=1;z/b",
    b"/.X/b": b"/.X/b",
    b"/%20": b"/%20",
}


@pytest.mark.parametrize("raw", CANONICAL)
def test_a_path_has_one_spelling(raw: bytes) -> None:
    assert canonical_path(raw) == CANONICAL[raw]
    assert canonical_path(CANONICAL[raw]) == CANONICAL[raw]


REFUSED = [
    b"/v1/../admin",
    b"/../admin",
    b"/v1/..",
    b"/v1/.",
    b"/./v1",
    b"/v1/%2e%2e/admin",
    b"/v1/.%2E/admin",
    b"/v1/..;/admin",
    b"/v1/..;x=1/admin",
    b"/v1/;/admin",
    b"/v1/..%3b/admin",
    b"/v1/..;a;b/admin",
    b"/v1/;x",
    b"/v1/;",
    b"/v1/%3Fx",
    b"/v1/%23x/y",
    b"/v1/..%3F/x",
    b"/v1/..%23/x",
    b"/v1//admin",
    b"//v1",
    b"/v1/a//",
    b"/v1/a%2Fb",
    b"/v1/a%2fb",
    b"/v1/a%5Cb",
    b"/v1\\..\\admin",
    b"/v1/%252e%252e/admin",
    b"/v1/%25%32%65",
    b"/v1/%25u002e",
    b"/v1/..%c0%afadmin",
    b"/v1/%c0%ae%c0%ae/",
    b"/v1/%ff",
    b"/v1/%ed%a0%80",
    b"/v1/a%1",
    b"/v1/a%",
    b"/v1/%zz",
    b"/v1/a%00b",
    b"/v1/a%0d%0a",
    b"/v1/%7f",
    b"/v1/%c2%85",
    b"/v1/%ef%bc%8e%ef%bc%8e/admin",
    b"/v1/a%ef%bc%8fb",
    b"/v1/a%ef%bc%bcb",
    b"/v1/%e2%80%a5/x",
    b"/v1/..%20/x",
    b"/v1/%20../x",
    b"/v1/a#b",
    b"/v1/a?b",
    b"v1",
    b"",
    b"X",
    b"%2Fv1",
    b"/v1/%25%EF%BC%92e",
]


@pytest.mark.parametrize("raw", REFUSED)
def test_a_path_that_two_parsers_read_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(Denied) as denied:
        canonical_path(raw)
    assert denied.value.code == "path_not_allowed"


def test_who_sends_an_encoded_slash_is_told_whose_it_is_to_allow_that() -> None:
    with pytest.raises(Denied) as denied:
        canonical_path(b"/repos/a%2fb")
    why = "it holds an encoded slash, and the connection does not set allow_encoded_slash"
    owner = "It holds %2F: the connection's owner would have to set allow_encoded_slash."
    assert (denied.value.detail, denied.value.sentence) == (
        f"the path is refused: {why}",
        f"{MESSAGE['path_not_allowed']} {owner}",
    )


END = ", which an upstream may end earlier, at ; %3B %3F or %23"


@pytest.mark.parametrize(("path", "why"), [(b"/v1/a;b.jpg", END), (b"/v1/a.png", "")])
def test_a_path_that_would_match_but_for_an_early_end_says_so(path: bytes, why: str) -> None:
    for signed_for, allowed, whose in (("*.jpg", "*", "no signed pattern matches"), ("*", "*.jpg", "own")):
        with pytest.raises(Denied) as denied:
            check_path(path, (signed_for,), Ceiling(paths=(pattern(allowed),)))
        assert whose in denied.value.detail
        assert denied.value.detail.endswith(f" the path{why}")


def test_an_encoded_slash_can_be_allowed_but_not_for_climbing() -> None:
    assert canonical_path(b"/repos/a%2fb", allow_encoded_slash=True) == b"/repos/a%2Fb"
    for raw in (b"/repos/..%2fb", b"/repos/a%2f..", b"/repos/%2fb", b"/repos/%5Cb"):
        with pytest.raises(Denied):
            canonical_path(raw, allow_encoded_slash=True)


def decodings(path: bytes) -> list[list[str]]:
    """The segments that sloppy upstreams find: decoded up to twice, `\\` as `/`, parameters dropped."""
    found = []
    for rounds in range(3):
        text = path
        for _ in range(rounds):
            text = unquote_to_bytes(text)
        plain = text.decode("utf-8", "replace").replace("\\", "/")
        found.append([segment.split(";")[0] for segment in plain.split("/")])
    return found


PIECES = [
    "a",
    ".",
    "..",
    "/",
    "%2e",
    "%2E",
    "%2f",
    "%5c",
    "\\",
    ";",
    "%3b",
    "%",
    "25",
    "2e",
    "%c0%ae",
    "é",
    "．",
    "/v1",
    " ",
    "%00",
    "~",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_no_decoder_finds_a_way_out_of_what_was_accepted(pieces: list[str]) -> None:
    raw = ("/" + "".join(pieces)).encode()
    try:
        path = canonical_path(raw)
    except Denied:
        return
    for segments in decodings(path):
        assert not {".", ".."} & set(segments)
        assert "" not in segments[1:-1]


@given(st.binary(max_size=40))
def test_canonical_means_canonical(raw: bytes) -> None:
    try:
        path = canonical_path(b"/" + raw)
    except Denied:
        return
    assert canonical_path(path) == path
    assert path.isascii()
    assert unquote(path.decode()).encode() == unquote_to_bytes(b"/" + raw)


def test_an_escape_is_one_unit_and_equals_no_other_escape_and_no_character_but_a_delimiter() -> None:
    """Else a signed `*A9` would match half of an `é`, or a plain letter some escaped octet."""
    escapes = [units(b"%%%02X" % octet) for octet in range(256)]
    assert {len(unit) for unit in escapes} == {1}
    assert len(set(escapes)) == 256
    assert {unit for unit in escapes if unit.isascii()} == set("!$&'()*,=:@")
    assert units(b"/a%C3%A9b") == f"/a{escapes[0xC3]}{escapes[0xA9]}b"


MATCHES = [
    ("*", "anything/at/all"),
    ("v1/*", "v1/"),
    ("v1/*", "v1/a/b"),
    ("/v1/*", "v1/a"),
    ("v1/chat/*", "v1/chat/x"),
    ("v1/models", "v1/models"),
    ("v1/über", "v1/%C3%BCber"),
    ("repos/*/issues", "repos/o/r/issues"),
    ("*.png", "a/b.png"),
    ("a*b*c", "aXXbYYc"),
    ("a**b", "ab"),
    ("v1/%6dodels", "v1/models"),
    ("", ""),
    ("/", ""),
    ("*a*", "a"),
    ("*a*b*", "ab"),
    ("*a*a*", "aa"),
    ("v1/%2A", "v1/*"),
    ("v1/a+b;c", "v1/a%2Bb;c"),
    ("v1/a+b;c", "v1/a%2Bb%3Bc"),
    ("+*", "%2B1"),
    ("*+1/*", "a%2B1/b"),
    ("a;x/*", "a%3Bx/y"),
    ("é+/%C3", "%C3%A9%2B/%C3"),
]
MISMATCHES = [
    ("v1/chat/*", "v1/chat"),
    ("v1/*", "v1"),
    ("v1/models", "v1/models/"),
    ("v1/models", "V1/models"),
    ("v1/model?", "v1/models"),
    ("v1/[a-z]", "v1/a"),
    ("*A9", "caf%C3%A9"),
    ("v1/mod", "v1/models"),
    ("aba*aba", "aba"),
    ("a*b*c", "acb"),
    ("*%2F*", "a/b"),
    ("", "a"),
    ("v1/%zz", "v1/zz"),
    ("v1/*", "v1%2Fa"),
    ("v1%2F*", "v1/a"),
    ("a%2Bb", "a+b"),
    ("a%3Bb", "a;b"),
    ("a%3Bb", "a"),
    ("a%2Bb*", "a+b"),
    ("*%3Bb", "x;b"),
    ("*;b", "x%3Bb"),
    ("*;b*c", "x%3Bb;c"),
    ("a%3Fb", "a?b"),
    ("a%23b", "a#b"),
    ("a%25b", "a%b"),
    ("a%20b", "a+b"),
    ("a+b", "a%20b"),
    ("a%3B+", "a;+"),
    ("a%3B;", "a;%3B"),
    ("%2A", "x"),
    ("v1%2C*", "v1"),
]


@pytest.mark.parametrize(("text", "path"), MATCHES)
def test_a_pattern_matches(text: str, path: str) -> None:
    assert pattern(text).matches(units(path.encode()))


@pytest.mark.parametrize(("text", "path"), MISMATCHES)
def test_a_pattern_does_not_match(text: str, path: str) -> None:
    assert not pattern(text).matches(units(path.encode()))


# -- delimiters that libraries escape, or not -------------------------------------------------------------


@pytest.mark.parametrize("plain", "!$&'()*,=:@")
def test_a_delimiter_that_a_library_escapes_is_granted_and_forwarded_as_it_came(plain: str) -> None:
    escape = f"%{ord(plain):02X}"
    spelled = plain if plain not in "*," else escape  # which would be a wildcard, or end the item
    for written in (spelled, escape):
        for came in (plain, escape, escape.lower()):
            asked = request(signed(f"v1/a{came}b/c", paths=f"v1/a{written}b/*"))
            assert code(asked) == "forward", (written, came)
            assert sent(asked).plain.path == f"/v1/a{came.upper() if came != plain else came}b/c".encode()
            assert code(request(signed(f"v1/a{came}b", paths=f"v1/a{written}b"))) == "forward"
            assert code(request(signed(f"v1/a{came}c", paths=f"v1/a{written}b"))) == "path_not_allowed"


@pytest.mark.parametrize("plain", "+;")
def test_an_escape_that_was_signed_does_not_grant_what_upstreams_read_as_something_else(plain: str) -> None:
    """A plain `+` is a blank to some, a plain `;` the end of a segment."""
    escape = f"%{ord(plain):02X}"
    assert code(request(signed(f"v1/a{escape}b", paths=f"v1/a{plain}b"))) == "forward"
    assert code(request(signed(f"v1/a{escape}b", paths=f"v1/a{escape}b"))) == "forward"
    assert code(request(signed(f"v1/a{plain}b", paths=f"v1/a{escape}b"))) == "path_not_allowed"
    assert code(request(signed("v1/a b".replace(" ", "%20"), paths="v1/a+b"))) == "path_not_allowed"


def test_a_ceiling_is_held_against_either_spelling() -> None:
    known = registry(connection(ceiling=Ceiling(paths=(pattern("model/a:0/*"), pattern("x@y")))))
    for path, granted in (
        ("model/a%3A0/b", True),
        ("x%40y", True),
        ("model/a%3A1/b", False),
        ("x%40", False),
    ):
        asked = request(signed(path, paths="*"))
        assert code(asked, known) == ("forward" if granted else "path_not_allowed")


# -- marks at which an upstream may end a path, or a segment ---------------------------------------------

MARKS = [";", "%3B", "%3b", "%3F", "%3f", "%23", *map("".join, zip(SEMICOLONS, strict=True)), "？", "＃"]


@pytest.mark.parametrize("mark", MARKS)
def test_a_suffix_that_was_signed_does_not_grant_what_stands_before_a_mark(mark: str) -> None:
    assert code(request(signed("admin.jpg", paths="*.jpg"))) == "forward"
    assert code(request(signed(f"admin{mark}x.jpg", paths="*.jpg"))) == "path_not_allowed"
    assert code(request(signed(f"a/admin{mark}x/b.jpg", paths="a/*/b.jpg"))) == "path_not_allowed"


@pytest.mark.parametrize("mark", ["%253B", "%253F", "%2523", "%25%33%42", "%2525233B"])
def test_a_mark_that_is_encoded_twice_is_refused(mark: str) -> None:
    assert code(request(signed(f"admin{mark}x.jpg", paths="*"))) == "path_not_allowed"


@pytest.mark.parametrize("path", [
    b"a.jpg;/b.jpg%3Bq;z.jpg",  # before they are decoded: what is left ends in q
    b"a.jpg%3Bx/b%3By%2Fc.jpg",  # after they are decoded, the slash left as it is: in b
    b"a.jpg%3Bx%2Fb%3By.jpg",  # the slash decoded too: in b
    b"a.jpg%3Bx%2Fb%3BX.jpg",  # … whatever is in it
    b"a.jpg%3Bx;/b.jpg",  # it ends at the first plain semicolon: in x
    b"a.jpg%EF%BC%9B%3B.jpg",  # decoded and not folded: in a full-width semicolon
    b"a.jpg%EF%BC%9F%3F.jpg", b"a.jpg%EF%BC%83%23.jpg",
    b"a.jpg;x/b;y.jpg", b"a.jpg;x?.jpg".replace(b"?", b"%3Fx"), b"x%23.jpg", b"x%3F.jpg", b"x;.jpg",
])  # fmt: skip
def test_a_suffix_is_not_met_where_any_reader_that_drops_parameters_finds_another_end(path: bytes) -> None:
    assert not pattern("*.jpg").matches(units(path))


def test_an_escape_that_was_signed_beside_its_character_takes_nothing_from_another_character() -> None:
    assert pattern("a+b;c%3Bd").matches(units(b"a%2Bb;c%3Bd"))
    assert not pattern("a+b;c%3Bd").matches(units(b"a%2Bb%3Bc%3Bd"))


@pytest.mark.parametrize(
    "path", [b"a.jpg;b.jpg", b"a.jpg;x/b.jpg", b"a.jpg%3Bb.jpg", b"a.jpg%3Fb.jpg", b"a.jpg"]
)
def test_a_suffix_is_met_where_every_reader_finds_it(path: bytes) -> None:
    assert pattern("*.jpg").matches(units(path))


def test_a_long_path_without_marks_is_read_in_one_way() -> None:
    assert pattern("v1/*").matches(units(b"v1/" + b";x" * 20_000))
    assert pattern("v1/*.jpg").matches(units(b"v1/" + b"%C3%A9" * 5000 + b".jpg"))


@pytest.mark.parametrize(("path", "met"), [
    ("x%3B.jpg", True), ("x.png", False), ("exact", True), ("w2/x%3B.jpg", True), ("jpg", False),
    ("x%3B.png", False), ("w2/x.jpg%3Bb", False),
])  # fmt: skip
def test_a_path_is_said_to_end_earlier_only_where_that_is_why(path: str, met: bool) -> None:
    """A pattern that an upstream that reads it as it is sent would meet."""
    patterns = [pattern(one) for one in ("*.jpg", "exact", "w2/*.jpg")]
    assert any(one.matches_as_sent(units(path.encode())) for one in patterns) is met
    assert pattern("*.jpg").matches_as_sent(units(b".jpg"))
    assert not pattern("a*.jpg").matches_as_sent(units(b"x.jpg"))
    assert not pattern("exact").matches_as_sent(units(b"exactly"))


def test_what_was_signed_with_a_mark_is_granted_as_it_was_signed() -> None:
    for path in ("v1/models/x;y", "v1/models/x%3By", "v1/rooms/a%23b", "v1/why%3F"):
        assert code(request(signed(path, paths=path))) == "forward"
        assert code(request(signed(f"{path}/z", paths=f"{path}/*"))) == "forward"
        assert code(request(signed(f"{path}/z;w/q", paths="v1/*"))) == "forward"
        assert code(request(signed(f"{path}/a.jpg", paths=f"{path}/*.jpg"))) == "forward"
        assert code(request(signed(f"{path}/a;.jpg", paths=f"{path}/*.jpg"))) == "path_not_allowed"
        assert code(request(signed(path.partition("/")[0], paths=path))) == "path_not_allowed"


def test_a_refusal_says_that_an_upstream_may_end_the_path_earlier() -> None:
    decision = ask(request(signed("admin;x.jpg", paths="*.jpg")))
    assert isinstance(decision, Deny)
    assert "earlier" in decision.detail


@given(
    st.sampled_from(
        [
            "*.jpg",
            "a*",
            "*/b",
            "a/*/b",
            "a;x/*b",
            "*a*b*",
            "a%3Fb*.jpg",
            "*",
            "*;b",
            "a+*;*b",
            "*%3Bb",
            "*,b",
            "*%2Bb",
        ]
    ),
    st.lists(
        st.sampled_from(
            ["a", "b", "x", ";", "%3B", "%3F", "%23", "/", ".jpg", "；", "%EF%BC%9F", ",", "%2C", "+", "%2B"]
        ),
        max_size=9,
    ),
)
def test_no_upstream_reads_a_path_that_was_not_signed(text: str, pieces: list[str]) -> None:
    """Held against upstreams that decode, fold, cut and drop in every order, and against a naive matcher."""
    try:
        path = canonical_path(("/" + "".join(pieces)).encode())
    except Denied:
        return
    if not pattern(text).matches(units(path)[1:]):
        return
    first, *others = text.split("*")
    assert unquote(path.decode()).startswith(f"/{unquote(first)}")
    # What stands before the first star is taken as written: so is it here, for every upstream.
    free = path.decode()[1 + len(first) :]
    signed_behind = re.compile(".*".join(["", *(re.escape(unquote(one)) for one in others)]), re.DOTALL)
    for reading in readings(free.encode()):
        assert signed_behind.fullmatch(unquote(reading.decode())), (text, path, reading)


def test_every_character_that_folds_to_a_mark_is_known() -> None:
    folds: dict[str, set[str]] = {mark: set() for mark in ";?#"}
    for point in range(0x80, sys.maxunicode + 1):
        for mark in folds:
            if mark in unicodedata.normalize("NFKC", chr(point)):
                folds[mark].add(chr(point))
    assert folds == {";": set(SEMICOLONS), "?": set(QUESTION_MARKS), "#": set(HASHES)}


def test_a_path_made_of_marks_costs_no_time() -> None:
    many = [pattern(f"*a{number}*/b") for number in range(64)]
    started = time.process_time()
    for mark in (";", "%3B", "%3F", "%EF%BC%9B"):
        for size in (8000, 60000):
            path = units((f"a{mark}a0/" * (size // len(f"a{mark}a0/")) + "b").encode())
            assert not any(one.matches(path) for one in many[1:])
            assert not any(pattern(f"*{mark}{one.text}").matches(path) for one in many)
    assert time.process_time() - started < 5


@given(st.text("ab*/", max_size=10), st.text("ab/", max_size=12))
def test_patterns_agree_with_a_naive_matcher(text: str, path: str) -> None:
    literals = text.removeprefix("/").split("*")
    naive = re.fullmatch(".*".join(map(re.escape, literals)), path) is not None
    assert pattern(text).matches(path) == naive


@pytest.mark.parametrize(
    "text", ["*a" * 12 + "*b", "*" * 500 + "b", "a*" * 300 + "b", "*" + "a" * 4000 + "*b"]
)
def test_a_pattern_made_to_backtrack_costs_no_time(text: str) -> None:
    started = time.process_time()
    assert not pattern(text).matches("a" * 8000 + "/c")
    assert time.process_time() - started < 1


def test_a_path_made_of_combining_marks_costs_no_time() -> None:
    """Normalising such a text as a whole takes quadratic time."""
    raw = b"/a" + ("\u0301" * 14000 + "\u0323" * 14000).encode()
    started = time.process_time()
    canonical_path(raw)
    assert time.process_time() - started < 1


def test_every_octet_is_either_itself_or_an_escape() -> None:
    for octet, other in itertools.product(range(0x21, 0x7F), (0x41, 0x2E)):
        raw = b"/x" + bytes((octet, other))
        try:
            path = canonical_path(raw)
        except Denied:
            continue
        assert unquote_to_bytes(path) == unquote_to_bytes(raw)


@pytest.mark.parametrize(("length", "matches"), [(8 * 1024, True), (8 * 1024 + 1, False)])
def test_a_path_that_is_read_in_several_ways_is_so_long_and_no_longer(length: int, matches: bool) -> None:
    """Each way costs its length."""
    rest = "a/x;c/".ljust(length, "x")
    assert pattern("v1/*/*x").matches(f"v1/{rest}") is matches
    assert pattern("v1/*/*x").matches("v1/a/" + "x" * length)


# -- several upstreams ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "path", "one", "several"), [
    ("*", b"/@up/x", True, False),
    ("@up/*", b"/@up/x", True, True),
    ("/@up/*", b"/@up/x", True, True),
    ("//@up/*", b"/@up/x", False, False),
    ("@up/x", b"/@up/x", True, True),
    ("@u*", b"/@up/x", True, False),
    ("@*/x", b"/@up/x", True, False),
    ("*@up/x", b"/@up/x", True, False),
    ("%40up/*", b"/@up/x", True, False),
    ("@other/*", b"/@up/x", False, False),
    ("*", b"/%40up/x", True, True),
    ("%40up/*", b"/%40up/x", True, True),
    ("@up/*", b"/%40up/x", True, False),
    ("*", b"/v1/@up/x", True, True),
    ("v1/@up/*", b"/v1/%40up/x", True, True),
    ("@up/*", b"/@uploads/x", False, False),
])  # fmt: skip
def test_a_name_at_the_beginning_counts_only_where_there_are_several_upstreams(
    text: str, path: bytes, one: bool, several: bool
) -> None:
    for found, matches in ((compared(path, several=False), one), (compared(path, several=True), several)):
        assert pattern(text).matches(found) is matches
        assert pattern(text).matches_as_sent(found) is matches
    assert unmarked(compared(path, several=True)) == compared(path, several=False) == units(path)[1:]


@pytest.mark.parametrize(("one", "other", "plain", "several"), [
    ("*", "@up/*", True, False),
    ("@up/a*", "@up/*", True, True),
    ("@up/*", "@other/*", False, False),
    ("@*", "@*", True, False),
    ("v1/*", "*", True, True),
    ("%40up/*", "*", True, True),
])  # fmt: skip
def test_patterns_of_two_upstreams_have_no_path_in_common(
    one: str, other: str, plain: bool, several: bool
) -> None:
    assert meets(pattern(one), pattern(other)) is plain
    assert meets(pattern(one), pattern(other), several=True) is several
