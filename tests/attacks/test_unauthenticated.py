"""What bytes that nobody signed may cost: a small constant for each, whatever they are.

Counted, not timed: the lines and calls that a decision and its refusal run through, and the bytes that are
decoded. `bench/unauthenticated.py` prints times of the same heads.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http

import presign_proxy
from presign_proxy.core.connection import Conduct, KeyForms
from presign_proxy.core.cors import Cors
from presign_proxy.core.decision import Deny
from presign_proxy.core.redact import redact
from presign_proxy.core.registry import Registry
from presign_proxy.http import percent
from presign_proxy.http.message import MAX_FIELDS, Request, is_sound
from presign_proxy.http.query import MAX_PARAMETERS, has_param, hides
from presign_proxy.mitm.flow.arrival import arrival_of
from presign_proxy.mitm.lane import request_head
from presign_proxy.observe.audit_record import Outcome, line
from presign_proxy.observe.log_redaction import Redaction
from presign_proxy.regexes import LateRegex
from presign_proxy.signing.disclosure import MAX_ESCAPES
from support.adverse import PLACES, SIZES, UNITS, repeated
from support.deciding import ask, code, connection, project, registry, request, signed
from support.work import steps

PACKAGE = Path(presign_proxy.__file__).parent
AWAY: dict[str, Any] = {"host": "other.test"}
TRUSTED = (ip_network("203.0.113.0/24"),)


def known(*, deny: bool) -> Registry:
    """With everything that looks at a request before its MAC: sources, interception, trusted proxies."""
    conduct = Conduct(cors=Cors(frozenset((b"https://app.example",))), websocket=True)
    open_to_pages = connection(conduct=conduct, key_forms=KeyForms(frozenset((b"sk-",))))
    found = registry(open_to_pages, project(intercept=True), deny=deny)
    return Registry(found.connections, found.hosts, deny_unsigned=deny, trusted_proxies=TRUSTED)


@pytest.mark.parametrize("size", [1024, 4096])
def test_a_preflight_costs_no_more_than_a_refusal_whatever_headers_it_names(size: int) -> None:
    """Two thousand names in 4 KiB took 20,000 steps."""
    rules = known(deny=True)
    found = [steps(partial(refuse, PLACES["preflight"](repeated(unit, size)), rules)) for unit in UNITS]
    assert max(found) < 4_000


def refuse(asked: Request, rules: Registry) -> None:
    """All that is done with a request that is refused: the decision, the redaction, the audit record."""
    asked = asked._replace(client="203.0.113.9")
    decision = ask(asked, rules)
    if isinstance(decision, Deny):
        is_sound(asked)
        redact(asked.target, asked.fields)
        Redaction.redact(f"refused: {decision.code}: {decision.detail}")
        assert len(line(decision, Outcome(status=403), 1.0)) < 1000


def test_what_another_thread_does_meanwhile_counts_for_no_step() -> None:
    """Upstreams of other tests run in this process; one of them came in between."""
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            sum(range(50))

    work = partial(time.sleep, 0.1)
    alone, other = steps(work), threading.Thread(target=busy)
    other.start()
    try:
        assert steps(work) == alone
    finally:
        over.set()
        other.join()


def arrived(count: int, length: int) -> http.Request:
    """A request with so many fields that may say what only one may."""
    fields = [(b"te", b"t" * length), (b"content-type", b"application/grpc" + b"x" * length)] * (count // 2)
    made = http.Request.make("POST", "https://presign.local/x", b"", fields)
    made.data.http_version = b"HTTP/2.0"
    return made


def test_how_a_request_came_is_read_in_one_pass() -> None:
    """Whether it wants trailers and is a call of gRPC is asked of every request over HTTP/2."""
    few, many = (partial(arrival_of, arrived(count, 10), tunnelled=False) for count in (40, 80))
    long = partial(arrival_of, arrived(80, 400), tunnelled=False)
    assert steps(many) <= 2.2 * steps(few)
    assert steps(long) == steps(many)


@pytest.mark.parametrize("deny", [False, True], ids=["pass", "deny"])
@pytest.mark.parametrize("place", PLACES)
def test_a_head_of_64_kib_costs_no_more_steps_than_a_few_thousand(place: str, deny: bool) -> None:
    """The number of parameters, of fields and of rounds is bounded; all else is one search."""
    rules = known(deny=deny)
    for unit in UNITS:
        asked = [PLACES[place](repeated(unit, size)) for size in SIZES]
        found = [steps(partial(refuse, one, rules)) for one in asked]
        assert max(found) < 12_000, f"{unit!r}: {found}"


@pytest.mark.parametrize("place", PLACES)
def test_each_byte_is_decoded_a_few_times_at_most(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0
    stock = percent.decode

    def counted(raw: bytes) -> bytes:
        nonlocal seen
        seen += len(raw)
        return stock(raw)

    monkeypatch.setattr(percent, "decode", counted)
    rules = known(deny=False)
    for unit in UNITS:
        for size in SIZES:
            seen = 0
            refuse(PLACES[place](repeated(unit, size)), rules)
            assert seen <= 15 * (size + 1000), f"{unit!r} of {size}: {seen}"


# -- parameters ---------------------------------------------------------------------------------------


def crowd(count: int) -> str:
    return "&".join(f"p{number}=1" for number in range(count))


def test_a_presigned_url_may_have_as_many_parameters_as_are_read() -> None:
    fields = signed().count("&") + 1
    assert code(request(f"{signed()}&{crowd(MAX_PARAMETERS - fields)}")) == "forward"


def test_a_presigned_url_with_more_parameters_than_are_read_is_malformed() -> None:
    fields = signed().count("&") + 1
    decision = ask(request(f"{signed()}&{crowd(MAX_PARAMETERS - fields + 1)}"))
    assert isinstance(decision, Deny)
    assert (decision.code, decision.detail) == ("malformed", "the query holds more than 1000 parameters")


@pytest.mark.parametrize("more", ["x", "presign=1", "q=x-presign-paths", "a%41=%41", "a;b", "t=ps1_x"])
def test_somebody_elses_request_may_have_any_number_of_parameters(more: str) -> None:
    assert code(request(f"/search?{more}&{crowd(5000)}", **AWAY)) == "pass"


@pytest.mark.parametrize(
    "more", ["x%2Dpresign-paths=1", "a;x_presign_paths=1", "X.Presign.Paths", "a[%26x-presign-a"]
)
def test_a_look_alike_among_thousands_of_parameters_is_found(more: str) -> None:
    assert code(request(f"/search?{crowd(2000)}&{more}&{crowd(2000)}", **AWAY)) == "malformed"


def test_a_token_among_thousands_of_parameters_is_no_ones_parameter() -> None:
    token = f"ps1_{'A' * 20}.{'0' * 64}"
    assert code(request(f"/search?{crowd(2000)}&t={token}", **AWAY)) == "malformed"


def test_somebody_elses_request_of_any_size_passes_and_one_of_ours_does_not() -> None:
    large = [(b"x%d" % number, b"1") for number in range(MAX_FIELDS + 50)]
    assert code(request("/search", *large, **AWAY)) == "pass"
    assert code(request("/search", *large, **AWAY), registry(deny=True)) == "too_large"
    assert code(request(signed(), *large)) == "too_large"
    # Its size is all that is told, whatever else is wrong.
    assert code(request("/api/proxy/conn/x?X-Presign-Expires=1&X-Presign-Expires=1", *large)) == "too_large"


def test_a_source_hides_no_signature_behind_encoded_separators() -> None:
    target = "/v1/pk/aGVsbG8.png?exp=1&sig=" + "0" * 64
    assert code(request(target + "&a%26sig%5B%5D=1"), known(deny=False)) == "malformed"


PARTS = (
    b"x-presign X_Presign x.presign sig exp = & ; # ? %26 %2526 %3b %3D [ ] %5b % %2 %25 %41 %73 s ig".split()
)
PARTS += b"%2573 + %00 a 5b _ . %5D %20 %%32%35 x%2dpresign %252525".split()


def names_in(query: bytes) -> set[bytes]:
    """The names of a query, one after the other, as a lenient framework reads them."""

    def decoded(text: bytes) -> bytes:
        for _ in range(3):
            text = unquote_to_bytes(text)
        return text.lower().replace(b"_", b"-")

    found = set()
    for part in re.split(rb"[&;#?]", query):
        for name in re.split(rb"[&;#?]", decoded(part.partition(b"=")[0])):
            found.add(decoded(name).partition(b"[")[0].replace(b".", b"-").strip(b" +\t\r\n\x00]"))
    return found


@given(st.lists(st.sampled_from(PARTS), max_size=9))
def test_names_are_found_all_at_once_as_one_by_one(parts: list[bytes]) -> None:
    query, names = b"".join(parts), frozenset((b"sig", b"exp"))
    found = names_in(query)
    assert hides(query, b"x-presign") == any(b"x-presign" in name for name in found)
    assert has_param(query, names) == bool(names & found)


@given(st.lists(st.sampled_from(PARTS), max_size=9))
def test_an_escape_is_decoded_as_everybody_decodes_it(parts: list[bytes]) -> None:
    assert percent.decode(b"".join(parts)) == unquote_to_bytes(b"".join(parts))


# -- what is refused is shown to nobody -----------------------------------------------------------------


def test_what_holds_hundreds_of_escapes_is_hidden_without_being_looked_at() -> None:
    few, many = b"%41" * MAX_ESCAPES, b"%41" * (MAX_ESCAPES + 1)
    hidden = redact(b"/" + many, ((b"x-few", few), (b"x-many", many)))
    assert hidden.target == b"/[redacted]"
    assert hidden.fields == ((b"x-few", few), (b"x-many", b"[redacted]"))


def test_of_a_refused_head_with_thousands_of_fields_none_is_shown() -> None:
    assert redact(b"/", ((b"a", b"b"),) * (MAX_FIELDS + 1)).fields == ()


# -- one decoder ----------------------------------------------------------------------------------------

# Rooms that only ever see what somebody at the gateway types, or the gateway's own configuration.
OPERATORS = ("cli", "explain", "config.presets", "limits.stores")
SLOW = {"unquote", "unquote_plus", "unquote_to_bytes", "parse_qs", "parse_qsl", "urlsplit", "urlparse"}


def before_the_mac() -> list[Path]:
    files = {path: ".".join(path.relative_to(PACKAGE).parts) for path in sorted(PACKAGE.rglob("*.py"))}
    return [path for path, name in files.items() if not name.startswith(OPERATORS)]


@pytest.mark.parametrize("path", before_the_mac(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_decoded_in_the_slow_way_of_the_standard_library(path: Path) -> None:
    used = {
        getattr(one, "id", getattr(one, "attr", getattr(one, "name", None)))
        for one in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(one, ast.Name | ast.Attribute | ast.alias)
    }
    assert not used & SLOW


# Repetitions inside repetitions that cannot match one text in two ways.
NESTED = {
    **dict.fromkeys(
        ("core.aws_hosts._OLD_S3", "core.aws_hosts._REGIONAL", "core.aws_hosts._REVERSED"),
        "words of a region are separated by dashes, which none holds; the host is the configuration's",
    ),
    "http.paths._PLAIN": "a segment begins with a slash, which none holds",
    "signing.signed_policy._WRITTEN": "networks are separated by commas, which none holds; 4 KiB at most",
}


def patterns() -> dict[str, re.Pattern[Any] | LateRegex]:
    found: dict[str, re.Pattern[Any] | LateRegex] = {}
    for info in pkgutil.walk_packages([str(PACKAGE)], "presign_proxy."):
        name = info.name.removeprefix("presign_proxy.")
        if name.startswith(OPERATORS):
            continue
        if not name.endswith("__main__"):
            module = importlib.import_module(info.name)
            for key, value in vars(module).items():
                found |= dict(patterns_in(f"{name}.{key}", value))
    return found


def patterns_in(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Those that a value is, or that it holds as a tuple or as an object of ours."""
    if isinstance(value, re.Pattern | LateRegex):
        yield name, value
    elif isinstance(value, tuple):
        for index, one in enumerate(value):
            yield from patterns_in(f"{name}[{index}]", one)
    elif type(value).__module__ == "presign_proxy.http.patterns" and hasattr(value, "__dict__"):
        for key, one in vars(value).items():
            yield from patterns_in(f"{name}.{key}", one)


def nests(parsed: Any, *, inside: bool = False) -> bool:
    """Whether an unbounded repetition holds another one: then a search may take exponential time."""
    for operation, argument in parsed:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            unbounded = argument[1] is re._constants.MAXREPEAT  # type: ignore[attr-defined]
            if (unbounded and inside) or nests(argument[2], inside=inside or unbounded):
                return True
        elif name == "BRANCH":
            if any(nests(branch, inside=inside) for branch in argument[1]):
                return True
        elif name == "SUBPATTERN" and nests(argument[-1], inside=inside):
            return True
        elif name in ("ASSERT", "ASSERT_NOT") and nests(argument[1], inside=inside):
            return True
    return False


def test_no_pattern_repeats_a_repetition() -> None:
    found = patterns()
    assert len(found) > 40
    nested = {
        name
        for name, one in found.items()
        if nests(re._parser.parse(one.pattern, one.flags))  # type: ignore[attr-defined]
    }
    assert nested == set(NESTED)


# -- a head that comes byte by byte -----------------------------------------------------------------------


def test_a_head_that_comes_byte_by_byte_is_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is looked at with the three before it, not with all of them."""
    seen, stock = 0, request_head.has_bare_lf

    def counted(data: bytes, at: int = 0) -> bool:
        nonlocal seen
        seen += len(data) - max(at - 1, 0)
        return stock(data, at)

    monkeypatch.setattr(request_head, "has_bare_lf", counted)
    head = b"GET /" + b"a" * 8000
    for end in range(20, len(head)):
        assert request_head.may_begin(head[:end], end - 1)
    assert seen < 4 * len(head)


@pytest.mark.parametrize("at", range(12))
def test_a_line_break_without_its_return_is_seen_wherever_a_head_was_cut(at: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\nX: y"
    cut = head.index(b"\nX") - 6 + at
    assert request_head.may_begin(head[:14])
    assert not request_head.may_begin(head, min(cut, head.index(b"\nX")))
    good = b"GET / HTTP/1.1\r\nHost: x"
    assert request_head.may_begin(good, min(cut, len(good)))
