"""The pages for people, in the browser of a person: a link that works once, and links that do not work."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.asking import SECRET, Grant, in_an_hour
from support.audit_log import audit_lines
from support.browser import Browser, lightness
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.policy import Policy
from support.proxy import Mitm
from support.puppet import eventually
from support.recorder import Recorder

pytestmark = pytest.mark.needs("chromedriver")
NUMBERS = itertools.count()
PICTURES = os.environ.get("PICTURES")
"""A directory for pictures of the pages, to look at."""
LOOKS = [(width, dark) for width in (320, 800) for dark in (False, True)]


@pytest.fixture(scope="module")
def gateway(module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    config = {
        "gateway": {"unsigned": "deny"},
        "connections": {
            "conn": bearer_connection(upstream.url, SECRET),
            "conn_dead": bearer_connection("http://127.0.0.1:9", SECRET),
        },
        "limits": {"store": "memory://"},
        "audit": {"file": "audit.jsonl"},
    }
    return module_gateway(config)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def link(gateway: Mitm, uses: int = 1) -> str:
    """A link with uses of its own."""
    terms = {"Max-Uses": str(uses), "Id": f"link-{next(NUMBERS)}"}
    target = Policy(SECRET, terms, "conn", in_an_hour(), "GET,HEAD").target("v1/models")
    return f"http://127.0.0.1:{gateway.port}{target}"


def served(upstream: Recorder) -> int:
    return sum(seen.target.startswith("/v1/models") for seen in upstream.requests)


def codes(gateway: Mitm) -> list[str | None]:
    """What was answered, but for the picture that browsers ask each site for."""
    return [
        line["code"] for line in audit_lines(gateway.directory / "audit.jsonl") if line["code"] != "not_found"
    ]


def fits(browser: Browser, name: str) -> None:
    """Nothing is wider than the window, and what is to be read can be seen on its ground."""
    for width, dark in LOOKS:
        browser.look(width, dark=dark)
        assert browser.value("document.documentElement.scrollWidth") <= width
        # An instant that goes on in the next line is hard to read.
        boxes = "[...document.querySelectorAll('time')].map(one => one.getClientRects().length)"
        assert set(browser.value(boxes)) <= {1}
        ink, ground = (
            browser.value(f"getComputedStyle(document.body).{what}") for what in ("color", "backgroundColor")
        )
        assert lightness(ink) > 600 if dark else lightness(ink) < 150
        assert lightness(ground) < 150 if dark else lightness(ground) > 600
        if PICTURES:
            browser.picture(Path(PICTURES) / f"{name}-{width}-{'dark' if dark else 'light'}.png")
    browser.look()


def test_a_link_that_works_once_asks_a_person_and_then_works_once(
    gateway: Mitm, browser: Browser, upstream: Recorder
) -> None:
    url, before = link(gateway), len(codes(gateway))
    upstream.clear()
    for _ in range(2):  # looking twice spends nothing
        browser.open(url)
        assert "Open this link?" in browser.text
        assert "This link works once. If you continue, it is used up." in browser.text
    assert eventually(lambda: codes(gateway)[before:] == ["not_confirmed"] * 2)
    assert served(upstream) == 0
    fits(browser, "continue")
    browser.follow("Continue")
    assert '"ok"' in browser.text
    assert served(upstream) == 1
    browser.open(url)  # who opens it again is asked again
    assert "Open this link?" in browser.text
    browser.follow("Continue")
    assert "A limit of this link has been reached" in browser.text
    assert served(upstream) == 1
    asked = "not_confirmed"
    assert eventually(lambda: codes(gateway)[before:] == [asked, asked, None, asked, "limited"])
    fits(browser, "used-up")


def test_a_link_with_more_uses_says_how_many_and_spends_one_at_a_time(
    gateway: Mitm, browser: Browser, upstream: Recorder
) -> None:
    upstream.clear()
    browser.open(link(gateway, 2))
    assert "This link can be used 2 times in all. If you continue, one of them is spent." in browser.text
    browser.follow("Continue")
    assert '"ok"' in browser.text
    assert served(upstream) == 1


@pytest.mark.parametrize(("name", "target", "title"), [
    ("expired", Grant("conn", expires=1_700_000_000).target("v1/models"), "This link has expired"),
    ("damaged", "/api/proxy/conn/v1/models?X-Presign-Expires=1", "This link is damaged"),
    ("upstream", Grant("conn_dead").target("v1/models"), "Something went wrong"),
])  # fmt: skip
def test_a_refused_link_is_a_page_that_a_person_can_read(
    name: str, target: str, title: str, gateway: Mitm, browser: Browser
) -> None:
    browser.open(f"http://127.0.0.1:{gateway.port}{target}")
    assert browser.text.startswith(title)
    assert "\nRequest\nreq_" in browser.text
    assert ("2023-11-14T22:13:20Z" in browser.text) == (name == "expired")
    assert browser.value("document.querySelectorAll('time').length") == (name == "expired")
    fits(browser, name)
    asked = [url for url in browser.asked_for() if not url.startswith(f"http://127.0.0.1:{gateway.port}/")]
    assert [url for url in asked if url.startswith("http")] == []
