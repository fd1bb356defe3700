"""Masks: every form of a credential, in whatever pieces it comes, and how long a piece is held back."""

import base64
import json
import secrets
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.core.credentials import BasicCredential
from presign_proxy.core.masking import MAX_SHOWN, Mask, MaskedStream, forms, mask_for
from presign_proxy.signing.secret import Secret
from support.deciding import KEY

HARD = "sk+R3AL/S=cr&t<'\"~!ü9"
FORMS = {
    "raw": HARD.encode(),
    "urlencoded": quote(HARD, safe="").encode(),
    "urlencoded lower": quote(HARD, safe="").lower().replace("r3al", "R3AL").replace("s%3d", "S%3d").encode(),
    "encodeURIComponent": quote(HARD, safe="!'()*").encode(),
    "twice urlencoded": quote(quote(HARD, safe=""), safe="").encode(),
    "twice urlencoded lower": quote(HARD, safe="")
    .lower()
    .replace("r3al", "R3AL")
    .replace("s%3d", "S%3d")
    .replace("%", "%25")
    .encode(),
    "form": quote(HARD, safe="").replace("%20", "+").encode(),
    "json": json.dumps(HARD)[1:-1].encode(),
    "json php": json.dumps(HARD)[1:-1].replace("/", "\\/").encode(),
    "json go": json.dumps(HARD)[1:-1].replace("&", "\\u0026").replace("<", "\\u003c").encode(),
    "html": HARD.replace("&", "&amp;")
    .replace("<", "&lt;")
    .replace("'", "&#39;")
    .replace('"', "&quot;")
    .encode(),
    "hex": HARD.encode().hex().encode(),
    "HEX": HARD.encode().hex().upper().encode(),
    "base64": base64.b64encode(HARD.encode()),
    "base64 of Bearer": base64.b64encode(b"Bearer " + HARD.encode() + b" and more"),
    "base64 shifted": base64.b64encode(b"ab" + HARD.encode() + b"x"),
    "base64url": base64.urlsafe_b64encode(b"a" + HARD.encode() + b"xy"),
}


@pytest.mark.parametrize("how", FORMS)
def test_an_echoed_key_is_masked_in_every_form_and_at_every_split(how: str) -> None:
    mask = Mask([HARD.encode()])
    text = b"before " + FORMS[how] + b" after"
    whole = mask.mask(text)
    assert len(whole) == len(text)
    core = FORMS[how][4:-4]
    assert core not in whole, whole
    for at in range(len(text) + 1):
        stream = MaskedStream(mask)
        assert stream(text[:at]) + stream(text[at:]) + stream(b"") == whole


def test_basic_is_masked_as_rendered() -> None:
    mask = mask_for(BasicCredential(Secret("someuser"), Secret("verysecret")))
    encoded = base64.b64encode(b"someuser:verysecret")
    assert encoded not in mask.mask(b"Authorization: Basic " + encoded)
    assert b"verysecret" not in mask.mask(b"x verysecret x")


@given(
    st.lists(
        st.sampled_from([b"s", b"sk-", b"sk-REAL", KEY.encode(), b"x", b"\n\n", KEY.encode()[:-1]]),
        max_size=12,
    )
)
def test_a_stream_is_masked_like_the_whole(chunks: list[bytes]) -> None:
    mask = Mask([KEY.encode()])
    stream = MaskedStream(mask)
    assert b"".join([*map(stream, [c for c in chunks if c]), stream(b"")]) == mask.mask(b"".join(chunks))


def test_the_last_letter_of_a_word_goes_on_after_a_moment() -> None:
    """It waited for the next word, for as long as that took."""
    stream = MaskedStream(Mask([KEY.encode()]))
    assert stream(b"three words") == b"three word"
    assert stream.is_short
    assert stream.overdue() == b"s"
    assert not stream.is_short
    assert stream(b", and more") == b", and more"


def test_a_key_that_comes_byte_by_byte_shows_three_of_them() -> None:
    """However long its upstream waits between them; what may not go on is masked once it is whole."""
    for text in (KEY.encode(), b"x" + KEY.encode() + KEY.encode(), KEY.encode()[:3] + KEY.encode() + b"."):
        stream = MaskedStream(Mask([KEY.encode()]))
        shown = b"".join([stream(bytes([one])) + stream.overdue() for one in text]) + stream(b"")
        assert len(shown) == len(text)
        assert KEY.encode()[:4] not in shown
        assert shown.count(b"*") >= text.count(KEY.encode()) * (len(KEY) - MAX_SHOWN)


@given(
    st.lists(
        st.sampled_from(
            [b"s", b"sk", b"sk-", b"sk-REAL", KEY.encode(), b"x", KEY.encode()[:-1], KEY[2:].encode()]
        ),
        max_size=12,
    ),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_what_goes_on_early_differs_from_the_mask_by_three_bytes_of_a_key(
    chunks: list[bytes], waits: list[bool]
) -> None:
    mask = Mask([KEY.encode()])
    stream, found = MaskedStream(mask), b""
    for chunk, wait in zip(chunks, waits, strict=False):
        found += stream(chunk)
        if wait:
            found += stream.overdue()
    found += stream(b"")
    text = b"".join(chunks)
    assert len(found) == len(text)
    whole = mask.mask(text)
    assert all(ours in (masked, plain) for ours, masked, plain in zip(found, whole, text, strict=True))
    shown = [at for at, (ours, masked) in enumerate(zip(found, whole, strict=True)) if ours != masked]
    starts = [at for at in range(len(text)) if text.startswith(KEY.encode(), at)]
    assert all(any(start <= at < start + MAX_SHOWN for start in starts) for at in shown)


def test_an_event_is_not_held_back() -> None:
    """Server-sent events end in a blank line, which begins no secret."""
    stream = MaskedStream(Mask([KEY.encode()]))
    assert stream(b"data: hello s\n\n") == b"data: hello s\n\n"


def steps(mask: Mask, piece: bytes) -> int:
    """How many calls it takes to mask a piece."""
    found = 0

    def count(*_: object) -> None:
        nonlocal found
        found += 1

    stream = MaskedStream(mask)
    sys.setprofile(count)
    try:
        stream(piece)
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("size", [1, 16, 31, 32, 33])
def test_an_answer_that_repeats_how_a_long_key_begins_takes_few_steps(size: int) -> None:
    """Each letter of its end was held against each form: a key of 1,500 bytes, of which an upstream sent the
    first again and again, packed, took a worker three seconds.
    """
    key = secrets.token_urlsafe(3000).encode()
    assert steps(Mask((key,)), key[:size] * (64 * 1024 // size)) < 3000


@given(
    st.text("ab+&", min_size=8, max_size=100),
    st.integers(0, 60),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
)
def test_what_is_held_back_is_the_longest_that_could_begin_a_form(
    key: str, before: int, which: int, cut: int
) -> None:
    every = sorted(forms(key.encode()))
    form = every[which % len(every)]
    mask = Mask((key.encode(),))
    data = mask.mask(form[:before] + form[: cut % len(form)])
    could = [
        size
        for size in range(len(data) + 1)
        if any(one.startswith(data[len(data) - size :]) for one in every)
    ]
    assert mask.tail(data) == max(could)
