"""What in a head over HTTP/1 could be read in two ways, and what it costs to see that."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.http.head_lines import has_bare_lf, is_ambiguous
from presign_proxy.mitm.lane.request_head import may_begin, parse
from presign_proxy.signing.disclosure import discloses

# As a pattern says it. It takes a step of the interpreter for each byte.
AMBIGUOUS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
BARE_LF = re.compile(rb"(?<!\r)\n")

texts = st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\t", b"\0", b"\x7f", b"\xff"])).map(b"".join)


@pytest.mark.parametrize("octet", range(256))
def test_each_octet_alone_is_judged_as_the_pattern_does(octet: int) -> None:
    text = b"a%cb" % octet
    assert is_ambiguous(text) == bool(AMBIGUOUS.search(text))


@given(texts)
def test_a_head_is_ambiguous_where_the_pattern_says_so(text: bytes) -> None:
    assert is_ambiguous(text) == bool(AMBIGUOUS.search(text))


@given(texts, texts)
def test_a_bare_line_feed_is_found_where_the_pattern_says_so(seen: bytes, new: bytes) -> None:
    found = bool(BARE_LF.search(seen + new, len(seen)))
    assert has_bare_lf(seen + new, len(seen)) == found


def cost(call: Callable[[], Any]) -> float:
    """Seconds of the processor; the least of several, because the machine does other things too."""

    def once() -> float:
        started = time.process_time()
        for _ in range(5):
            call()
        return time.process_time() - started

    return min(once() for _ in range(7))


def test_a_head_of_60_kib_that_nobody_signed_is_read_at_a_fraction_of_what_a_pattern_takes() -> None:
    """Measured beside the pattern, in the same process, because a clock alone says little."""
    start = b"GET /x HTTP/1.1\r\nHost: x\r\nX-A: "
    raw = start + b"some words " * ((60_000 - len(start)) // 11) + b"x\r\n\r\n"
    assert parse(raw)
    pattern = cost(partial(AMBIGUOUS.search, raw))
    assert cost(partial(parse, raw)) < pattern / 2
    assert cost(partial(may_begin, raw)) < pattern / 8


def test_a_field_of_short_words_costs_no_more_than_one_that_is_decoded() -> None:
    assert cost(partial(discloses, b"x " * 30_000)) < 2 * cost(partial(discloses, b"ab" * 30_000))
