"""The query of a URL that a signer writes: the same bytes as the standard library writes."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.http import percent


def test_each_character_is_written_as_the_standard_library_writes_it() -> None:
    for code in (*range(0xD800), *range(0xE000, 0x110000, 97)):
        fields = {"a": chr(code), chr(code): f"b{chr(code)}c"}
        assert percent.query(fields) == urlencode(fields)


@given(st.dictionaries(st.text(), st.text()))
def test_any_fields_are_written_as_the_standard_library_writes_them(fields: dict[str, str]) -> None:
    assert percent.query(fields) == urlencode(fields)
    assert parse_qsl(percent.query(fields), keep_blank_values=True, strict_parsing=bool(fields)) == list(
        fields.items()
    )


def test_half_a_character_is_refused_as_by_the_standard_library() -> None:
    for write in (percent.query, urlencode):
        with pytest.raises(UnicodeEncodeError):
            write({"a": "\ud800"})
