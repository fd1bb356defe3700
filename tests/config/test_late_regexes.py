"""Regular expressions that are compiled when they are first used find the same as those compiled at once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from presign_proxy.regexes import late

CASES: list[tuple[Any, int, Any]] = [
    ("a(b)?", 0, "xabaB"),
    ("A(b)?", re.IGNORECASE, "xabaB"),
    (rb"%([0-9A-F]{2})", 0, b"a%41b%4zc%42"),
    ("a.c", re.DOTALL, "a\nc"),
]
METHODS = ("findall", "fullmatch", "match", "search", "split")


def found(one: Any, method: str, text: Any) -> Any:
    result = getattr(one, method)(text)
    return (result.span(), result.groups()) if isinstance(result, re.Match) else result


@pytest.mark.parametrize(("pattern", "flags", "text"), CASES)
def test_it_finds_what_the_compiled_one_finds(pattern: Any, flags: int, text: Any) -> None:
    at_once = re.compile(pattern, flags)
    for method in METHODS:
        one = late(pattern, flags)
        expected = found(at_once, method, text)
        assert [found(one, method, text) for _ in range(2)] == [expected, expected]
    empty = text[:0]
    assert late(pattern, flags).sub(empty, text) == at_once.sub(empty, text)
    assert late(pattern, flags).subn(empty, text) == at_once.subn(empty, text)
    assert [one.span() for one in late(pattern, flags).finditer(text)] == [
        one.span() for one in at_once.finditer(text)
    ]
    assert late(pattern, flags).pattern == pattern


def test_it_is_compiled_at_its_first_use_and_not_before() -> None:
    broken = late("(")
    with pytest.raises(re.error):
        broken.search("text")


def test_from_its_first_use_on_it_is_the_compiled_one_that_searches() -> None:
    one = late("a+", re.IGNORECASE)
    assert one.search("xA")
    for method in (one.search, one.fullmatch, one.sub):
        assert getattr(method, "__self__", None) == re.compile("a+", re.IGNORECASE)


def test_threads_that_use_it_first_at_once_all_find_the_same() -> None:
    for number in range(50):
        one, start = late(f"({number}+)x"), Barrier(4)

        def ask(_: int, one: re.Pattern[str] = one, start: Barrier = start, text: str = f"{number}x") -> bool:
            start.wait()
            return one.fullmatch(text) is not None

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(ask, range(4))) == [True] * 4


def test_it_has_nothing_that_it_was_not_made_for() -> None:
    with pytest.raises(AttributeError, match="groupindex"):
        _ = late("a").groupindex
