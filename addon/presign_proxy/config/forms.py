"""The forms of texts in the configuration, in words.

pydantic's own message shows the regular expression. A test compares the table with the models.
"""

from __future__ import annotations

from typing import Final

from ..http.patterns import UPSTREAM_NAME
from ..signing import grammar

_ID: Final = "1 to 64 of A-Z a-z 0-9 _ -"

FORMS: Final = {
    grammar.CONNECTION_ID: _ID,
    grammar.KEY_ID: "1 to 64 of A-Z a-z 0-9 _ . -",
    rf"(\*|{grammar.METHOD})": "a method in capitals, as in GET, or *",
    grammar.EXTENSION: "a file extension, as in jpg",
    rf"{grammar.CONNECTION_ID}/{grammar.KEY_ID}": "CONNECTION/KEY",
    rf"{grammar.CONNECTION_ID}/{grammar.PRESIGN_ID}": "CONNECTION/ID",
    rf"(\*|{grammar.CONNECTION_ID})": "the id of a connection, or *",
    grammar.SIGNATURE_ID: "a signature id: 32 hex digits",
    r"[A-Za-z0-9_.\[\]-]{1,128}": "the name of a query parameter",
    r"[A-Za-z0-9-]{1,64}": "1 to 64 of A-Z a-z 0-9 -, as in eu-central-1",
    r"[\x20-\x7e]{0,1024}": "at most 1024 printable ASCII characters",
    r"[\x20-\x7e]{1,200}": "1 to 200 printable ASCII characters",
    r"[!-~]{1,200}": "1 to 200 printable ASCII characters without a blank",
    r"[!-9;-~]{1,64}": "1 to 64 printable ASCII characters without a blank and a colon",
    r"(memory://|sqlite:///[^\x00-\x1f]+|rediss?://[!-~]+)": (
        "memory://, sqlite:///FILE, redis://HOST or rediss://HOST"
    ),
    r".+\.(enc|yaml|yml|json)": "a file whose name ends in .enc, .yaml, .yml or .json",
    r"[^\x00-\x1f]+\.(yaml|yml|json)": "a file whose name ends in .yaml, .yml or .json",
    r"[a-z0-9][a-z0-9-]{0,63}": "1 to 64 of a-z 0-9 -, a letter or digit first",
    r"[A-Za-z_][A-Za-z0-9_]{0,127}": "the name of an environment variable",
    r"[a-z][a-z0-9_]{0,31}": "1 to 32 of a-z 0-9 _, a letter first",
    UPSTREAM_NAME: "1 to 31 of a-z 0-9 -, a letter first",
    r"https?://[!-~]+": "a URL, with http:// or https://",
    r"https?://[!-\"$->@-~]+": "a URL, with http:// or https://, and without ? or #",
}
"""The form for each regular expression, which is written without its anchors."""


def in_words(pattern: str) -> str:
    """Return the message for a text that does not match an anchored regular expression."""
    return f"has to be {FORMS.get(pattern[1:-1], 'of another form')}"
