"""Who reads an answer: a person in a browser, or a program. What real clients send decides."""

from __future__ import annotations

import pytest

from presign_proxy.http.message import Fields, head_of
from presign_proxy.http.navigation import is_navigation
from support.deciding import request

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
NAVIGATE, CORS = ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Mode", "cors")

PEOPLE: dict[str, list[tuple[str, str]]] = {
    "Chrome": [("Accept", CHROME), NAVIGATE],
    "Firefox": [("Accept", FIREFOX), ("sec-fetch-mode", "navigate")],
    "an old Safari, or a browser at an http:// address": [("Accept", FIREFOX)],
    "Lynx": [("Accept", "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01")],
    "w3m": [("accept", "text/html, text/*;q=0.5, image/*")],
    "two lines": [("Accept", "text/html"), ("Accept", "*/*;q=0.1")],
    "only the mode": [NAVIGATE],
}
PROGRAMS: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "curl, requests, wget": [("Accept", "*/*")],
    "the SDKs": [("Accept", "application/json")],
    "axios": [("Accept", "application/json, text/plain, */*")],
    "superagent": [("Accept", "application/json, text/html, */*")],
    "fetch in a page": [("Accept", FIREFOX), CORS],
    "an image in a page": [("Accept", "image/avif,*/*;q=0.8"), ("Sec-Fetch-Mode", "no-cors")],
    "Java": [("Accept", "text/html, image/gif, image/jpeg, */*; q=0.2")],
    "an old Java": [("Accept", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2")],
    "html as a last resort": [("Accept", "*/*, text/html")],
    "a header that is none of ours": [("X-Note", "text/html")],
    "a type that only begins so": [("Accept", "text/html5, */*")],
    "more than any browser": [("Accept", FIREFOX + ",image/a" * 200)],
    "two modes": [NAVIGATE, CORS],
    "a mode that is no word": [("Sec-Fetch-Mode", "navigate, cors")],
}


def is_read_by_a_person(fields: list[tuple[str, str]]) -> bool:
    raw: Fields = tuple((name.encode(), value.encode()) for name, value in fields)
    asked = request("/", *raw)
    return is_navigation(asked.fields, head_of(asked))


@pytest.mark.parametrize("who", PEOPLE)
def test_a_browser_that_opens_a_page_is_a_person(who: str) -> None:
    assert is_read_by_a_person(PEOPLE[who])


@pytest.mark.parametrize("who", PROGRAMS)
def test_everybody_else_is_a_program(who: str) -> None:
    assert not is_read_by_a_person(PROGRAMS[who])


def test_a_mode_hidden_in_another_field_decides_nothing() -> None:
    assert not is_read_by_a_person([("X-Sec-Fetch-Mode", "navigate")])
