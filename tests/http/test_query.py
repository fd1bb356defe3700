"""Queries: decoded as everybody decodes them."""

import re
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.errors import Malformed
from presign_proxy.http.query import form_decode
from support.deciding import (
    NOW,
    SECRET,
    code,
    request,
)
from support.signing import presign_headers
from support.text import is_utf8


@pytest.mark.parametrize(
    "name",
    ["X.Presign.Paths", "x.presign-paths", "X%2EPresign%2EPaths", "X_Presign_Paths", "x-presign-paths"],
)
def test_look_alike_in_the_query_beside_a_presign_in_the_header_is_malformed(name: str) -> None:
    """A framework that turns dots into underscores, as PHP does, would find a field of ours upstream."""
    fields = presign_headers(SECRET, "conn", NOW + 60, "GET", "v1/*").items()
    asked = request(f"/api/proxy/conn/v1/models?{name}=*", *((k.encode(), v.encode()) for k, v in fields))
    assert code(asked) == "malformed"


@given(st.binary(max_size=40))
def test_a_form_is_decoded_as_everybody_decodes_it(raw: bytes) -> None:
    """Held against the standard library, which is lenient where this refuses."""
    for value in (raw, quote(raw).encode(), quote(raw, safe="").replace("%20", "+").encode()):
        try:
            found = form_decode(value)
        except Malformed:
            assert re.search(rb"%(?![0-9A-Fa-f]{2})", value) or not is_utf8(unquote_to_bytes(value))
        else:
            assert found == unquote_to_bytes(value.replace(b"+", b" ")).decode()


@given(
    st.lists(
        st.sampled_from([b"%2F", b"%2", b"%", b"F", b"C", b"%2C", b"A", b"%2a", b"%25", b"+"]), max_size=8
    )
)
def test_no_escape_is_made_of_what_stands_beside_another(parts: list[bytes]) -> None:
    value = b"".join(parts)
    broken = re.search(rb"%(?![0-9A-Fa-f]{2})", value) or not is_utf8(unquote_to_bytes(value))
    if broken:
        with pytest.raises(Malformed):
            form_decode(value)
    else:
        assert form_decode(value) == unquote_to_bytes(value.replace(b"+", b" ")).decode()
