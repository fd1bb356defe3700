"""base64url, in the one spelling that an encoder writes."""

import base64

import pytest

from presign_proxy.errors import Malformed
from presign_proxy.signing import base64url


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "über", "X", "?>", "X" * 9, "abW"])
def test_base64url_is_what_the_library_makes_of_it(text: str) -> None:
    made = base64url.encode(text)
    assert made == base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    assert base64url.decode(made.encode(), "it") == text


@pytest.mark.parametrize("word", ["YR", "YWJ", "YWI9", "Y", "_w", "YWJjX"])
def test_base64url_that_no_encoder_makes_is_malformed(word: str) -> None:
    if word == "YWI9":
        assert base64url.decode(word.encode(), "it") == "ab="
        return
    with pytest.raises(Malformed, match=r"of it is not canonical|it is not base64url"):
        base64url.decode(word.encode(), "it")
