"""A link that works a few times, pasted into a chat: the preview spends no use, on all paths."""

from __future__ import annotations

import itertools

import pytest

from support.asking import SECRET, ask, code, in_an_hour
from support.audit_log import audit_lines
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import bearer_connection
from support.lanes import WAYS
from support.policy import Policy
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response
from support.recorder import Recorder

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Sec-Fetch-Mode": "navigate"}
LOOKS = (
    BROWSER,
    {"Accept": "*/*", "User-Agent": "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"},
    {"Accept": "*/*", "Sec-Purpose": "prefetch", "Sec-Fetch-Mode": "no-cors"},
)
NUMBERS = itertools.count()


@pytest.fixture(scope="module", params=WAYS)
def gateway(request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    config = {
        "gateway": {"hosts": ["presign.local"]},
        "connections": {
            "conn": bearer_connection(upstream.url, SECRET),
            "conn_cookies": bearer_connection(upstream.url, SECRET, cookies="pass"),
        },
        "limits": {"store": "memory://"},
        "audit": {"file": "audit.jsonl"},
    }
    return module_gateway(config, *WAYS[request.param])


def link(uses: int, connection: str = "conn") -> Policy:
    """A link with uses of its own."""
    terms = {"Max-Uses": str(uses), "Id": f"link-{next(NUMBERS)}"}
    return Policy(SECRET, terms, connection, in_an_hour(), "GET,HEAD")


def cookie_of(response: Response) -> str:
    return (response.header("set-cookie") or "").partition(";")[0]


def test_looks_spend_nothing_and_the_person_who_continues_spends_one_use(
    gateway: Mitm, upstream: Recorder
) -> None:
    target = link(1).target("v1/models")
    upstream.clear()
    for _ in range(3):
        for headers in LOOKS:
            assert code(ask(gateway.port, target, headers)) == (428, "not_confirmed")
            assert ask(gateway.port, target, headers, "HEAD").status == 428
    assert upstream.requests == []
    asked = ask(gateway.port, target, BROWSER)
    continued = ask(gateway.port, target, BROWSER | {"Cookie": cookie_of(asked)})
    assert (continued.status, len(upstream.requests)) == (200, 1)
    assert code(ask(gateway.port, target, BROWSER | {"Cookie": cookie_of(asked)})) == (429, "limited")


def test_a_program_that_uses_the_link_is_not_asked(gateway: Mitm) -> None:
    target = link(1).target("v1/models")
    assert ask(gateway.port, target).status == 200
    assert code(ask(gateway.port, target)) == (429, "limited")


def test_the_cookie_goes_no_further(gateway: Mitm, upstream: Recorder) -> None:
    policy = link(2, "conn_cookies")
    asked = ask(gateway.port, policy.target("v1/models"), BROWSER)
    upstream.clear()
    both = {"Cookie": f"theme=dark; {cookie_of(asked)}"}
    assert ask(gateway.port, policy.target("v1/models"), BROWSER | both).status == 200
    assert upstream.requests[0].all("cookie") == ["theme=dark"]


def test_the_operator_reads_that_a_link_was_looked_at(gateway: Mitm) -> None:
    asked = ask(gateway.port, link(5).target("v1/models"), BROWSER)
    wanted = asked.header("x-presign-request-id")
    log = gateway.directory / "audit.jsonl"
    assert eventually(lambda: wanted in log.read_text("utf-8"))
    (line,) = [one for one in audit_lines(log) if one["request_id"] == wanted]
    assert (line["decision"], line["code"], line["status"]) == ("deny", "not_confirmed", 428)
    assert line["detail"] == "a browser was asked to continue; no use was counted"


def test_it_is_asked_over_http2_too_where_cookies_come_in_crumbs(gateway: Mitm) -> None:
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    fields.append((":path", link(1).target("v1/models")))
    fields += [(name.lower(), value) for name, value in BROWSER.items()]
    with H2Client.through(gateway.port, "presign.local", cafile=gateway.ca) as client:
        asked = client.request(fields)
        assert asked.status == 428
        crumb = (asked.header("set-cookie") or "").partition(";")[0]
        assert client.request([*fields, ("cookie", "theme=dark"), ("cookie", crumb)]).status == 200
