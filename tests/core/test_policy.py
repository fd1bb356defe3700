"""What a signature may allow, and what its connection lets it: lists, lifetimes, methods."""

import pytest

from presign_proxy.core.ceiling import Ceiling
from presign_proxy.core.decision import Deny
from presign_proxy.core.policy import check_method
from presign_proxy.errors import Denied, Malformed
from presign_proxy.signing.grammar import parse_list
from support.deciding import NOW, SECRET, ask, code, connection, registry, request
from support.signing import presign_target


def test_a_list_holds_sixty_four_items_at_most() -> None:
    items = [f"v{number:03}" for number in range(65)]
    assert parse_list(",".join(items[:64]), "paths") == tuple(items[:64])
    with pytest.raises(Malformed, match="more than 64"):
        parse_list(",".join(items), "paths")


@pytest.mark.parametrize(
    ("methods", "paths", "told"),
    [
        ("GET", "a,", "paths holds an empty item"),
        ("GET,", "a", "methods holds an empty item"),
        ("GET", "a,*", "paths is not sorted by code point"),
        ("*,GET", "a", "methods holds a wildcard beside"),
        ("Get", "a", "methods holds something that is not an upper-case method"),
    ],
)
def test_the_audit_log_says_which_list_is_wrong(methods: str, paths: str, told: str) -> None:
    decision = ask(request(presign_target(SECRET, "conn", "v1", NOW, methods, paths)))
    assert isinstance(decision, Deny)
    assert decision.detail.startswith(told)


@pytest.mark.parametrize(("size", "wanted"), [(8192, "path_not_allowed"), (8193, "malformed")])
def test_a_list_holds_eight_kibibytes_at_most(size: int, wanted: str) -> None:
    for filler in ("x", "ü"):
        paths = (filler * size)[: size // len(filler.encode())]
        paths += "x" * (size - len(paths.encode()))
        target = presign_target(SECRET, "conn", "v1", NOW, "GET", paths)
        assert code(request(target)) == wanted


@pytest.mark.parametrize(
    ("left", "wanted"), [(59, "forward"), (60, "forward"), (61, "lifetime_too_long"), (-1, "expired")]
)
def test_a_lifetime_is_at_most_what_the_connection_allows(left: int, wanted: str) -> None:
    known = registry(connection(ceiling=Ceiling(max_lifetime=60)))
    asked = request(presign_target(SECRET, "conn", "v1", NOW + left, "GET", "*"))
    assert code(asked, known) == wanted


@pytest.mark.parametrize(
    ("ceiling", "wanted"),
    [
        (Ceiling(), "forward"),
        (Ceiling(allow_no_expiry=False), "no_expiry_not_allowed"),
        (Ceiling(max_lifetime=10**12), "no_expiry_not_allowed"),
        (Ceiling(max_lifetime=0), "no_expiry_not_allowed"),
    ],
)
def test_eternity_ends_where_any_bound_is_set(ceiling: Ceiling, wanted: str) -> None:
    asked = request(presign_target(SECRET, "conn", "v1", 0, "GET", "*"))
    assert code(asked, registry(connection(ceiling=ceiling))) == wanted


@pytest.mark.parametrize(
    ("method", "signed", "allowed", "head_as_get", "wanted"),
    [
        ("HEAD", "GET", ("GET",), True, "forward"),
        ("HEAD", "GET", ("HEAD",), True, "forward"),
        ("HEAD", "GET", ("GET",), False, "method_not_allowed"),
        ("HEAD", "POST", ("GET",), True, "method_not_allowed"),
        ("POST", "GET", ("*",), True, "method_not_allowed"),
        ("POST", "*", ("GET",), True, "method_not_allowed"),
        ("GET", "HEAD", ("*",), True, "method_not_allowed"),
        ("get", "*", ("*",), True, "method_not_allowed"),
        ("A" * 32, "*", ("*",), True, "forward"),
        ("A" * 33, "*", ("*",), True, "method_not_allowed"),
        ("M-SEARCH", "M-SEARCH", ("*",), True, "forward"),
    ],
)
def test_a_method_is_both_signed_and_allowed(
    method: str, signed: str, allowed: tuple[str, ...], head_as_get: bool, wanted: str
) -> None:
    ceiling = Ceiling(methods=allowed, head_as_get=head_as_get)
    asked = request(presign_target(SECRET, "conn", "v1", NOW, signed, "*"), method=method)
    assert code(asked, registry(connection(ceiling=ceiling))) == wanted


@pytest.mark.parametrize("method", [b"G\xc3\x89T", b"\xff", b""])
def test_a_method_of_other_than_capitals_is_never_forwarded(method: bytes) -> None:
    with pytest.raises(Denied) as denied:
        check_method(method, ("*",), Ceiling())
    assert denied.value.code == "method_not_allowed"


@pytest.mark.parametrize(
    ("signed", "allowed", "whose"), [("POST", "GET", "the signature"), ("GET", "POST", "the connection")]
)
def test_the_audit_log_says_who_does_not_allow_a_method(signed: str, allowed: str, whose: str) -> None:
    with pytest.raises(Denied) as denied:
        check_method(b"GET", (signed,), Ceiling(methods=(allowed,)))
    assert denied.value.detail == f"{whose} does not allow this method"


@pytest.mark.parametrize("digits", [64, 65])
def test_an_id_has_sixty_four_characters_at_most(digits: int) -> None:
    name = "c" * digits
    asked = request(presign_target(SECRET, name, "v1", NOW, "GET", "*"))
    assert code(asked, registry(connection(name))) == ("forward" if digits == 64 else "malformed")
