"""Several upstreams of one connection, on both paths and both fronts: each gets its own form of the secret,
and nothing that was signed for another one.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask, code, wire
from support.audit_log import audit_lines
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.leaks import Traces
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response, connect_tls, exchange, parse_response
from support.recorder import Recorder
from support.seen import Seen
from support.serving import Serve

API, UPLOADS, GIT, PLAIN = "api.tls.test", "uploads.tls.test", "git.tls.test", "plain.tls.test"
BASIC = "Basic " + base64.b64encode(f"x-access-token:{REAL_SECRET}".encode()).decode()
GRANT = Grant("conn_api", paths="@git/*,@plain/*,@uploads/repos/*,repos/*")
DEFAULT = Grant("conn_api")
UPSTREAMS = {
    "uploads": f"https://{UPLOADS}/base",
    "git": {"url": f"https://{GIT}", "auth": {"type": "basic", "username": "x-access-token"}},
    "plain": {"url": f"https://{PLAIN}", "auth": {"type": "none"}},
}

LATE = {"url": f"https://{PLAIN}/late", "auth": {"type": "none"}}


def connections() -> dict[str, Any]:
    return {
        "conn_api": bearer_connection(f"https://{API}", SECRET, upstreams=UPSTREAMS),
        # Its secret is fetched when it is first needed, and known in all of its forms then.
        "conn_late": bearer_connection(f"https://{API}/late", SECRET)
        | {
            "auth": {"type": "bearer", "token": {"exec": ["echo", REAL_SECRET]}},
            "upstreams": {"git": UPSTREAMS["git"] | {"url": f"https://{GIT}/late"}, "plain": LATE},
        },
        "conn_narrow": bearer_connection(
            f"https://{API}/narrow",
            SECRET,
            upstreams={"uploads": f"https://{UPLOADS}/narrow"},
            allow={"paths": ["*"]},
        ),
    }


@pytest.fixture(scope="module", params=["lane", "flows", "flows as served"])
def gateway(request: pytest.FixtureRequest, module_gateway: MakeGateway, tls_upstream: Recorder) -> Mitm:
    config = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": connections(),
        "audit": {"file": "audit.jsonl"},
    }
    dns: dict[str, Any] = {
        name: [f"127.0.0.1#{tls_upstream.tls_port}"] for name in (API, UPLOADS, GIT, PLAIN)
    }
    return module_gateway(config, *WAYS[request.param], dns=dns)


def dialled(gateway: Mitm, host: str, target: str, headers: Any, sni: str | None = None) -> Response:
    """One request to an API itself, in a tunnel to its host."""
    with connect_tls(gateway.port, host, 443, sni, gateway.ca) as sock:
        return parse_response(exchange(sock, wire(target, headers, host=host)))


def where(seen: Seen) -> tuple[str | None, str, str | None]:
    return seen.sni, seen.target, seen.header("authorization")


EXPECTED = {
    "repos/x": (API, "/repos/x", f"Bearer {REAL_SECRET}"),
    "@uploads/repos/x": (UPLOADS, "/base/repos/x", f"Bearer {REAL_SECRET}"),
    "@git/o/r.git": (GIT, "/o/r.git", BASIC),
    "@plain/asset": (PLAIN, "/asset", None),
}


@pytest.mark.parametrize("path", EXPECTED)
@pytest.mark.parametrize("carrier", ["query", "header", "path", "key"])
def test_the_first_segment_chooses_the_upstream_in_each_carrier(
    path: str, carrier: str, gateway: Mitm, tls_upstream: Recorder
) -> None:
    target, headers = {
        "query": (GRANT.target(path), {}),
        "header": (f"/api/proxy/conn_api/{path}", GRANT.headers),
        "path": (f"/p/{GRANT.token}/{path}", {}),
        "key": (f"/{path}", {"Authorization": f"Bearer {GRANT.token}"}),
    }[carrier]
    assert ask(gateway.port, target, headers).status == 200
    (seen,) = tls_upstream.wait_for(1)
    assert where(seen) == EXPECTED[path]
    assert seen.header("host") == EXPECTED[path][0]
    assert b"ps1_" not in seen.everything


@pytest.mark.parametrize(
    ("host", "target", "path"),
    [
        (API, "/repos/x", "repos/x"),
        (UPLOADS, "/base/repos/x", "@uploads/repos/x"),
        (GIT, "/o/r.git", "@git/o/r.git"),
        (PLAIN, "/asset", "@plain/asset"),
    ],
)
def test_the_dialled_host_chooses_the_upstream(
    host: str, target: str, path: str, gateway: Mitm, tls_upstream: Recorder
) -> None:
    for headers in ({"Authorization": f"token {GRANT.token}"}, GRANT.headers):
        assert dialled(gateway, host, target, headers).status == 200
    for seen in tls_upstream.wait_for(2):
        assert where(seen) == EXPECTED[path]


def test_a_request_that_names_no_connection_finds_it_by_any_of_its_hosts(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    assert dialled(gateway, GIT, "/o/r.git", GRANT.unnamed).status == 200
    assert where(tls_upstream.wait_for(1)[0]) == EXPECTED["@git/o/r.git"]


def test_a_url_for_everything_reaches_no_other_upstream(gateway: Mitm, tls_upstream: Recorder) -> None:
    for path in ("@uploads/repos/x", "@git/o/r.git", "@plain/asset"):
        assert code(ask(gateway.port, DEFAULT.target(path))) == (403, "path_not_allowed")
    key = {"Authorization": f"Bearer {DEFAULT.token}"}
    for host, target in ((UPLOADS, "/base/repos/x"), (GIT, "/o/r.git"), (PLAIN, "/asset")):
        assert code(dialled(gateway, host, target, key)) == (403, "path_not_allowed")
    assert not tls_upstream.touched


def test_a_ceiling_that_names_no_upstream_admits_none(gateway: Mitm, tls_upstream: Recorder) -> None:
    grant = Grant("conn_narrow", paths="@uploads/*")
    assert code(ask(gateway.port, grant.target("@uploads/x"))) == (403, "path_not_allowed")
    assert not tls_upstream.touched


@pytest.mark.parametrize(
    "name", ["@other", "@UPLOADS", "@Uploads", "@uploads;x", "@", "@@uploads", "@uploads%40"]
)
def test_a_name_that_no_upstream_has_reaches_none(name: str, gateway: Mitm, tls_upstream: Recorder) -> None:
    for grant in (DEFAULT, Grant("conn_api", paths=f"{name}/*")):
        assert code(ask(gateway.port, grant.target(f"{name}/repos/x"))) == (403, "path_not_allowed")
    assert not tls_upstream.touched


def test_a_path_of_the_default_upstream_that_begins_with_an_at_is_escaped(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    assert ask(gateway.port, DEFAULT.target("%40uploads/repos/x")).status == 200
    assert where(tls_upstream.wait_for(1)[0]) == (API, "/%40uploads/repos/x", f"Bearer {REAL_SECRET}")
    tls_upstream.clear()
    assert dialled(gateway, API, "/@uploads/repos/x", DEFAULT.headers).status == 200
    assert where(tls_upstream.wait_for(1)[0]) == (API, "/@uploads/repos/x", f"Bearer {REAL_SECRET}")
    tls_upstream.clear()
    # A pattern that begins with the name is for that upstream, and for no path of the default one.
    named = Grant("conn_api", paths="@uploads/*")
    assert code(dialled(gateway, API, "/@uploads/repos/x", named.headers)) == (403, "path_not_allowed")
    assert not tls_upstream.touched


def test_all_names_of_a_request_agree_with_the_upstream_it_reaches(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    """A tunnel to one upstream, and another one's name inside it."""
    with connect_tls(gateway.port, GIT, 443, GIT, gateway.ca) as sock:
        answer = parse_response(exchange(sock, wire("/o/r.git", GRANT.headers, host=API)))
    assert code(answer) == (403, "host_mismatch")
    assert code(dialled(gateway, GIT, "/o/r.git", GRANT.headers, sni=API)) == (403, "host_mismatch")
    plain = ask(gateway.port, f"http://{GIT}/o/r.git", GRANT.headers, host=GIT)
    assert code(plain) == (403, "host_mismatch")
    assert code(dialled(gateway, UPLOADS, "/other/repos/x", GRANT.headers)) == (403, "path_not_allowed")
    assert not tls_upstream.touched


def test_the_other_hosts_are_open_to_no_request_without_a_presign(
    gateway: Mitm, tls_upstream: Recorder
) -> None:
    for host in (API, UPLOADS, GIT, PLAIN):
        assert code(dialled(gateway, host, "/x", {})) == (403, "unsigned")
    assert not tls_upstream.touched


@pytest.fixture
def leading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an upstream answer at `…/leads` with a redirect, and with links, to the others."""

    def answer(request: Seen) -> Answer:
        to = request.header("x-to") or ""
        return Answer(
            int(request.header("x-status") or "302"), (("Location", to), ("Link", f"<{to}>; rel=next"))
        )

    monkeypatch.setitem(BEHAVIOURS, "leads", answer)


LED = {
    f"https://{UPLOADS}/base/repos/y?a=1": "/api/proxy/conn_api/@uploads/repos/y?a=1",
    f"https://{PLAIN}/y": "/api/proxy/conn_api/@plain/y",
    f"https://{API}/repos/z": "/api/proxy/conn_api/repos/z",
}


@pytest.mark.parametrize("to", LED)
@pytest.mark.parametrize("path", ["repos/leads", "@git/leads"])
def test_a_redirect_to_another_upstream_goes_through_the_gateway(
    to: str, path: str, leading: None, gateway: Mitm, tls_upstream: Recorder
) -> None:
    answer = ask(gateway.port, GRANT.target(path), {"X-To": to})
    assert answer.status == 302
    mark = "&" if "?" in to else "?"
    assert answer.header("location") == f"{LED[to]}{mark}{GRANT.query}"
    assert f"presign.local{LED[to]}" in (answer.header("link") or "")
    keyed = ask(gateway.port, f"/{path}", {"Authorization": f"Bearer {GRANT.token}", "X-To": to})
    assert keyed.header("location") == LED[to].removeprefix("/api/proxy/conn_api")
    inside = ask(gateway.port, f"/p/{GRANT.token}/{path}", {"X-To": to})
    depth = path.count("/")
    assert inside.header("location") == ("../" * depth or "./") + LED[to].removeprefix("/api/proxy/conn_api/")


def test_a_redirect_to_an_upstream_that_was_not_signed_leaves_the_gateway(
    leading: None, gateway: Mitm, tls_upstream: Recorder
) -> None:
    """As one to any other host: the client may go there, without the presign."""
    to = f"https://{UPLOADS}/base/repos/y"
    answer = ask(gateway.port, DEFAULT.target("repos/leads"), {"X-To": to})
    assert (answer.status, answer.header("location")) == (302, to)
    keyed = ask(gateway.port, "/repos/leads", {"Authorization": f"Bearer {DEFAULT.token}", "X-To": to})
    assert code(keyed) == (403, "redirect_not_allowed")


def test_an_upstream_that_shows_the_form_of_another_reveals_nothing(
    monkeypatch: pytest.MonkeyPatch, gateway: Mitm, tls_upstream: Recorder
) -> None:
    shown = f"{BASIC} Bearer {REAL_SECRET}"
    answer = Answer(200, (("X-Shown", shown), ("Content-Type", "text/plain")), shown.encode())
    monkeypatch.setitem(BEHAVIOURS, "tells", lambda _: answer)
    for path in ("repos/tells", "@uploads/repos/tells", "@git/tells", "@plain/tells"):
        found = ask(gateway.port, GRANT.target(path))
        whole = b"\n".join(f"{name}: {value}".encode() for name, value in found.headers) + found.body
        assert found.status == 200
        assert not Traces([REAL_SECRET]).found_in(whole)
        assert BASIC.removeprefix("Basic ").encode() not in whole


def test_a_secret_that_a_program_prints_is_put_on_in_each_form(
    monkeypatch: pytest.MonkeyPatch, gateway: Mitm, tls_upstream: Recorder
) -> None:
    monkeypatch.setitem(BEHAVIOURS, "tells", lambda _: Answer(200, (("X-Shown", BASIC),), BASIC.encode()))
    grant = Grant("conn_late", paths="@git/*,@plain/*,a/*")
    expected = {
        "@plain/tells": (PLAIN, None),
        "@git/tells": (GIT, BASIC),
        "a/tells": (API, f"Bearer {REAL_SECRET}"),
    }
    for path in expected:
        found = ask(gateway.port, grant.target(path))
        assert found.status == 200
        assert BASIC.removeprefix("Basic ").encode() not in found.body
    seen = tls_upstream.wait_for(3)
    assert [(one.sni, one.header("authorization")) for one in seen] == list(expected.values())


def test_the_audit_log_names_the_upstream(gateway: Mitm, tls_upstream: Recorder) -> None:
    ask(gateway.port, GRANT.target("@git/audited/1"))
    ask(gateway.port, GRANT.target("repos/audited"))
    ask(gateway.port, DEFAULT.target("@git/audited/2"))
    path = gateway.directory / "audit.jsonl"

    def lines() -> list[tuple[Any, ...]]:
        found = [line for line in audit_lines(path) if "audited" in str(line.get("path"))]
        return sorted((line["path"], line["upstream"], line["code"]) for line in found)

    expected = [
        ("/@git/audited/1", f"https://{GIT}", None),
        ("/@git/audited/2", None, "path_not_allowed"),
        ("/repos/audited", f"https://{API}", None),
    ]
    assert eventually(lambda: lines() == expected), lines()


def test_over_http2_each_request_finds_its_own_upstream(gateway: Mitm, tls_upstream: Recorder) -> None:
    client = H2Client.direct(gateway.port, "presign.local", gateway.ca)
    for path in EXPECTED:
        head = [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", "presign.local"),
            (":path", GRANT.target(path)),
        ]
        assert client.request(head).status == 200
    client.close()
    assert [where(seen) for seen in tls_upstream.wait_for(4)] == list(EXPECTED.values())


def test_presign_serve_leads_to_each_upstream(tmp_path: Path, upstream: Recorder) -> None:
    config = {
        "connections": {
            "conn_api": bearer_connection(
                upstream.url,
                SECRET,
                upstreams={
                    "files": {
                        "url": f"{upstream.url}/files",
                        "auth": {"type": "header", "header": "X-Key", "prefix": "key "},
                    }
                },
            )
        }
    }
    served = Serve(tmp_path, config)
    try:
        served.start()
        grant = Grant("conn_api", paths="@files/a/*,b")
        assert ask(served.port, grant.target("@files/a/1"), host=f"127.0.0.1:{served.port}").status == 200
        assert ask(served.port, grant.target("b"), host=f"127.0.0.1:{served.port}").status == 200
        refused = ask(served.port, Grant("conn_api").target("@files/a/1"), host=f"127.0.0.1:{served.port}")
        assert code(refused) == (403, "path_not_allowed")
    finally:
        served.stop()
    first, second = upstream.wait_for(2)
    assert (first.target, first.header("x-key")) == ("/files/a/1", f"key {REAL_SECRET}")
    assert first.header("authorization") is None
    assert (second.target, second.header("authorization")) == ("/b", f"Bearer {REAL_SECRET}")
    assert second.header("x-key") is None
