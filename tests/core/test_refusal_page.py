"""The page for a refused browser: the same as the JSON, for people; nothing of it can be made to run."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from presign_proxy.core.answers import refusal
from presign_proxy.core.decision import Deny
from presign_proxy.errors import MESSAGE, STATUS
from support.deciding import ask, request, signed

NAVIGATE = (b"Sec-Fetch-Mode", b"navigate")
VOID = {"meta"}


class Page(HTMLParser):
    """A page that is well-formed: every element is closed, in order."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []
        self.style = ""
        self.feed(body.decode("utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.style += data
        elif data.strip():
            self.text.append(data.strip())


@pytest.mark.parametrize("code", STATUS)
def test_a_page_says_what_the_json_says(code: str) -> None:
    answer = refusal(code, "req_test", "page")
    page = Page(answer.body)
    title, heading, message, *rest = page.text
    assert title == heading
    assert message == MESSAGE[code]
    assert f"{STATUS[code]} {code}" in rest
    assert "req_test" in rest
    other = refusal(code, "req_test", "json")
    assert (answer.status, answer.reason) == (other.status, other.reason)
    for name in (b"X-Presign-Error", b"X-Presign-Request-Id", b"Cache-Control", b"Vary", b"Referrer-Policy"):
        assert dict(answer.fields)[name] == dict(other.fields)[name]
    assert dict(answer.fields)[b"Content-Length"] == str(len(answer.body)).encode()


def test_nothing_runs_loads_or_frames_a_page() -> None:
    answer = refusal("expired", "req_test", "page")
    page, fields = Page(answer.body), dict(answer.fields)
    assert page.tags <= {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "p",
        "dl",
        "dt",
        "dd",
    }
    assert page.attributes <= {"lang", "charset", "name", "content", "class"}
    assert "url(" not in page.style
    assert "@import" not in page.style
    directives = dict(
        one.strip().partition(" ")[::2] for one in fields[b"Content-Security-Policy"].decode().split(";")
    )
    hashed = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    assert directives == {
        "default-src": "'none'",
        "style-src": f"'sha256-{hashed}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "sandbox": "",
    }
    assert fields[b"X-Content-Type-Options"] == b"nosniff"


def test_what_was_signed_cannot_write_html() -> None:
    target = signed(paths="<script>alert(1)</script>&\"'")
    decision = ask(request(target, NAVIGATE))
    assert isinstance(decision, Deny)
    assert decision.code == "path_not_allowed"
    assert b"<script" not in decision.answer.body
    assert any("<script>alert(1)</script>&\"'" in text for text in Page(decision.answer.body).text)


def test_dark_and_light_are_readable() -> None:
    """WCAG 2: 4.5 to 1 for text, in both schemes."""
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{([^}]*)\}", Page(refusal("expired", "r", "page").body).style)
    )
    for colours in (light, dark):
        for ink in ("ink", "soft"):
            assert contrast(colours[ink], colours["paper"]) >= 4.5


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
