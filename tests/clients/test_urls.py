"""URLs and names as other people's clients write them: on the lane, and on both forms of the flow path."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import pytest

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Given, Grant, ask, code
from support.audit_log import audit_lines
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.lab import bearer_connection
from support.lanes import WAYS
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Response
from support.recorder import Recorder
from support.seen import Seen

API = Grant("conn_api")


@dataclass
class Lab:
    gateway: Mitm
    upstream: Recorder

    def ask(self, target: str, headers: Given = (), **more: Any) -> Response:
        self.upstream.clear()
        return ask(self.gateway.port, target, headers, **more)

    def sent(self, target: str, headers: Given = (), **more: Any) -> Seen:
        """What the upstream saw of a request that is granted."""
        assert code(self.ask(target, headers, **more)) == (200, None)
        (request,) = self.upstream.wait_for(1)
        return request

    def audited(self, response: Response) -> dict[str, Any]:
        """The audit line of an answer."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            lines = audit_lines(self.gateway.directory / "audit.jsonl")
            found[:] = [
                line for line in lines if line["request_id"] == response.header("x-presign-request-id")
            ]
            return bool(found)

        assert eventually(is_there)
        return found[0]


def config(upstream: Recorder) -> dict[str, Any]:
    return {
        "gateway": {"hosts": ["presign.local"]},
        "connections": {
            "conn_api": bearer_connection(upstream.url, SECRET),
            "conn_base": bearer_connection(f"{upstream.url}/base", SECRET),
        },
        "audit": {"file": "audit.jsonl"},
    }


@pytest.fixture(scope="module", params=WAYS)
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder) -> Iterator[Lab]:
    yield Lab(module_gateway(config(upstream), *WAYS[request.param]), upstream)


# -- what is taken off, and what is refused --------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Vault-Token", "X-Consul-Token", "X-Nomad-Token", "X-Registry-Auth"])
def test_a_clients_own_key_does_not_reach_the_upstream_beside_ours(name: str, lab: Lab) -> None:
    request = lab.sent("/api/proxy/conn_api/v1/x", {**API.headers, name: "own"})
    assert request.header(name) is None
    assert request.header("authorization") is not None


@pytest.mark.parametrize("name", ["X-Original-Filename", "X-User-Name", "Token-Count"])
def test_a_header_of_the_apis_own_is_not_dropped_in_silence(name: str, lab: Lab) -> None:
    assert lab.sent("/api/proxy/conn_api/v1/x", {**API.headers, name: "kept"}).header(name) == "kept"


def test_a_method_override_is_refused_by_name(lab: Lab) -> None:
    headers = {**API.headers, "X-HTTP-Method-Override": "PATCH"}
    response = lab.ask("/api/proxy/conn_api/v1/x", headers, method="POST", body=b"{}")
    assert code(response) == (400, "malformed")
    assert "overrides the method" in json.loads(response.body)["error"]["message"]
    assert "x-http-method-override" in lab.audited(response)["detail"]
    assert not lab.upstream.touched


@pytest.mark.parametrize("method", ["MOVE", "COPY"])
def test_a_move_with_a_destination_is_refused_by_name(method: str, lab: Lab) -> None:
    response = lab.ask("/api/proxy/conn_api/v1/x", {**API.headers, "Destination": "/v1/y"}, method=method)
    assert code(response) == (400, "malformed")
    assert "Destination" in json.loads(response.body)["error"]["message"]
    assert "destination" in lab.audited(response)["detail"]
    assert not lab.upstream.touched


# -- how a path is spelled ---------------------------------------------------------------------------------

SPELLED = {
    "v1/model/claude-v1%3A0/invoke": "v1/model/claude-v1:0/*",
    "v1/model/claude-v1:0/invoke": "v1/model/claude-v1%3A0/*",
    "v1/users/a%40b.c": "v1/users/a@b.c",
    "v1/users/a@b.c": "v1/users/a%40b.c",
    "v1/numbers/%2B4930": "v1/numbers/+4930",
    "v1/points/52.5,13.4": "v1/points/52.5%2C13.4",
    "v1/points/52.5%2C13.4": "v1/points/52.5%2C13.4",
    "v1/Products(%27a%27)": "v1/Products('a')",
    "v1/%24metadata": "v1/$metadata",
}


@pytest.mark.parametrize("path", SPELLED)
def test_a_path_in_the_clients_spelling_is_granted_and_forwarded_as_it_came(path: str, lab: Lab) -> None:
    for target, headers in (
        (Grant("conn_api", paths=SPELLED[path]).target(path), {}),
        (f"/p/{Grant('conn_api', paths=SPELLED[path]).token}/{path}", {}),
        (f"/api/proxy/conn_api/{path}", Grant("conn_api", paths=SPELLED[path]).headers),
    ):
        assert lab.sent(target, headers).target == f"/{path}"


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("v1/files/a%3Bb", "v1/files/a;b"),
        ("v1/files/a%2Bb", "v1/files/a+b"),
        ("v1/a%2Fb", "v1/a/b"),
        ("v1/*:read", "v1/a%3Aread;x"),
    ],
)
def test_a_spelling_that_an_upstream_may_read_as_another_path_is_refused(
    written: str, path: str, lab: Lab
) -> None:
    response = lab.ask(Grant("conn_api", paths=written).target(path))
    assert code(response) == (403, "path_not_allowed")
    assert not lab.upstream.touched


# -- a host that is not the gateway's ------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:9000", "presign-gateway:8080"])
def test_a_host_that_is_not_listed_is_told_to_client_and_operator(host: str, lab: Lab) -> None:
    for target, headers in (
        (API.target("v1/x"), {}),
        (f"/p/{API.token}/v1/x", {}),
        ("/api/proxy/conn_api/v1/x", API.headers),
    ):
        response = lab.ask(target, headers, host=host)
        assert code(response) == (404, "not_found")
        assert "gateway.hosts" in json.loads(response.body)["error"]["message"]
        assert lab.audited(response)["detail"].startswith(f"{host} is not one of the gateway's names")
    assert not lab.upstream.touched


# -- URLs that an answer hands out --------------------------------------------------------------------------


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the upstream answer requests for `…/scripted` as told."""

    def script(status: int, *headers: tuple[str, str]) -> None:
        monkeypatch.setitem(BEHAVIOURS, "scripted", lambda request: Answer(status, headers, b"body"))

    return script


def follow(lab: Lab, target: str, response: Response) -> tuple[str, Response]:
    """Where a client like `curl -L` ends up, which sends nothing but what the URL says."""
    leads = urljoin(f"http://presign.local{target}", response.header("location") or "")
    assert leads.startswith("http://presign.local/")
    following = leads.removeprefix("http://presign.local").partition("#")[0]
    return leads, lab.ask(following)


REDIRECTS = {
    "a path": "/base/v1/dir/",
    "a whole URL": "{upstream}/base/v1/dir/",
    "relative": "dir/",
    "with a query": "/base/v1/dir/?page=2&x=%20#part",
    "in UTF-8, with blanks": "/base/v1/caf\u00e9/a b|{{c}}",
}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("form", REDIRECTS)
def test_a_client_that_follows_redirects_stays_granted(
    form: str, status: int, lab: Lab, answers: Callable[..., None]
) -> None:
    """`Location` came without the presign, and the next request was 400."""
    location = REDIRECTS[form].format(upstream=lab.upstream.url).encode().decode("latin-1")
    answers(status, ("Location", location))
    grant = Grant("conn_base", methods="GET", paths="v1/*")
    for target in (grant.target("v1/scripted"), f"/p/{grant.token}/v1/scripted"):
        response = lab.ask(target)
        assert response.status == status
        _, followed = follow(lab, target, response)
        assert code(followed) == (200, None)
        (request,) = lab.upstream.wait_for(1)
        assert request.target.startswith("/base/v1/")
        assert "presign" not in request.raw.decode("latin-1").lower()


@pytest.mark.needs("curl")
def test_curl_follows_a_redirect_with_a_presigned_url(lab: Lab, answers: Callable[..., None]) -> None:
    answers(301, ("Location", "/base/v1/dir/"))
    lab.upstream.clear()
    url = f"http://127.0.0.1:{lab.gateway.port}{Grant('conn_base', paths='v1/*').target('v1/scripted?x=1')}"
    argv = ["curl", "--silent", "--show-error", "--location", "--noproxy", "*", "--fail", url]
    assert json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout) == {
        "ok": True
    }
    assert [one.target for one in lab.upstream.wait_for(2)] == ["/base/v1/scripted?x=1", "/base/v1/dir/"]


def test_a_redirect_to_a_path_that_was_not_signed_takes_no_presign_along(
    lab: Lab, answers: Callable[..., None]
) -> None:
    answers(302, ("Location", "/base/v2/secret"))
    target = Grant("conn_base", methods="GET", paths="v1/*").target("v1/scripted")
    leads, followed = follow(lab, target, lab.ask(target))
    assert leads == "http://presign.local/api/proxy/conn_base/v2/secret"
    assert code(followed) == (400, "malformed")
    assert not lab.upstream.touched


@pytest.mark.parametrize("location", ["http://other.test/base/v1/x", "//other.test/", "/elsewhere"])
def test_a_redirect_to_somebody_else_takes_no_presign_along(
    location: str, lab: Lab, answers: Callable[..., None]
) -> None:
    answers(302, ("Location", location), ("Link", f"<{location}>; rel=next"))
    response = lab.ask(Grant("conn_base").target("v1/scripted"))
    assert response.status == 302
    assert "presign" not in (response.header("location") or "").lower()
    assert "presign" not in (response.header("link") or "").lower()


def test_a_redirect_at_the_apis_own_url_keeps_its_presign(lab: Lab, answers: Callable[..., None]) -> None:
    """Through the proxy, with the presign in the query."""
    answers(301, ("Location", "scripted/"))
    host = f"127.0.0.1:{lab.upstream.port}"
    query = f"{API.query}&X-Presign-Connection=conn_api"
    response = lab.ask(f"http://{host}/v1/scripted?{query}", host=host)
    leads = urljoin(f"http://{host}/v1/scripted", response.header("location") or "")
    assert leads.startswith(f"http://{host}/v1/scripted/?")
    assert code(lab.ask(leads, host=host)) == (200, None)


@pytest.mark.parametrize("name", ["Operation-Location", "Azure-AsyncOperation", "X-Goog-Upload-URL", "Link"])
def test_the_next_url_of_an_answer_is_asked_through_the_gateway(
    name: str, lab: Lab, answers: Callable[..., None]
) -> None:
    """It named the upstream, where the client has no key."""
    url = f"{lab.upstream.url}/base/v1/next?page=2"
    answers(200, (name, f'<{url}>; rel="next", <http://other.test/>; rel="help"' if name == "Link" else url))
    grant = Grant("conn_base")
    for target, headers in (
        (grant.target("v1/scripted"), {}),
        (f"/p/{grant.token}/v1/scripted", {}),
        ("/api/proxy/conn_base/v1/scripted", grant.headers),
        ("/api/proxy/conn_base/v1/scripted", {"Authorization": f"Bearer {grant.token}"}),
        ("/v1/scripted", {"Authorization": f"Bearer {grant.token}"}),
    ):
        value = lab.ask(target, headers).header(name) or ""
        if name == "Link":
            assert value.endswith(', <http://other.test/>; rel="help"')
            value = value.partition(">")[0].removeprefix("<")
        assert value.startswith("http://presign.local/")
        assert lab.sent(value.removeprefix("http://presign.local"), headers).target == "/base/v1/next?page=2"


def test_a_flow_shows_no_presign_that_an_answer_hands_out(lab: Lab, answers: Callable[..., None]) -> None:
    """Nor does mitmdump's own output, or the audit log."""
    answers(302, ("Location", "/base/v1/x"), ("Link", "</base/v1/y>; rel=next"))
    for target in (
        Grant("conn_base").target("v1/scripted"),
        f"/p/{Grant('conn_base').token}/v1/scripted",
    ):
        response = lab.ask(target)
        signature = target.rpartition("Signature=")[2] if "Signature=" in target else target.split("/")[2]
        assert signature in (response.header("link") or "")
        lab.audited(response)
        assert signature not in lab.gateway.log()
        assert signature not in (lab.gateway.directory / "audit.jsonl").read_text("utf-8")


def test_a_dump_of_flows_holds_no_presign_that_an_answer_hands_out(
    make_gateway: MakeGateway, upstream: Recorder, answers: Callable[..., None], tmp_path: Path
) -> None:
    answers(302, ("Location", "/base/v1/x"), ("Link", "</base/v1/y>; rel=next"))
    dump = tmp_path / "flows"
    gateway = make_gateway(config(upstream), "--set", "presign_lane=off", "-w", str(dump))
    by_url, by_token = Grant("conn_base", paths="v1/*"), Grant("conn_base", paths="*")
    signatures = [grant.token.rpartition(".")[2] for grant in (by_url, by_token)]
    targets = by_url.target("v1/scripted"), f"/p/{by_token.token}/v1/scripted"
    for target, signature in zip(targets, signatures, strict=True):
        assert signature in (ask(gateway.port, target).header("link") or "")
    gateway.stop()
    held = dump.read_bytes()
    assert b"presign:conn_base" in held
    assert not [signature for signature in signatures if signature.encode() in held]


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("carrier", ["query", "path", "none"])
def test_a_page_that_is_told_where_to_return_to_is_not_told_a_presign(
    carrier: str, rounds: int, lab: Lab
) -> None:
    """`?return_to=` took the presigned URL of the page before to the upstream, the terminal and the dump."""
    grant, before = Grant("conn_api"), Grant("conn_api", paths="before/*")
    value = f"https://presign.local{before.target('before/x')}"
    for _ in range(rounds):
        value = quote(value, safe="")
    target = {
        "query": grant.target(f"v1/x?return_to={value}"),
        "path": f"/p/{grant.token}/v1/x?return_to={value}",
        "none": f"/v1/x?return_to={value}",
    }[carrier]
    response = lab.ask(target)
    assert code(response) == (400, "malformed")
    assert not lab.upstream.touched
    signature = before.token.rpartition(".")[2]
    assert signature not in json.dumps(lab.audited(response))
    assert signature not in lab.gateway.log()


def test_a_query_may_name_the_fields_of_a_presign(lab: Lab) -> None:
    """As somebody's search for them does: only a signature behind its name gives something away."""
    target = Grant("conn_api").target("v1/x?q=what+is%20the+name+X-Presign-Signature%3D")
    assert "what+is%20the" in lab.sent(target).target


def test_a_redirect_over_http2_takes_the_presign_along(lab: Lab, answers: Callable[..., None]) -> None:
    answers(302, ("Location", "/base/v1/x"), ("Operation-Location", "/base/v1/y"))
    head = [(":method", "GET"), (":scheme", "https"), (":authority", "presign.local")]
    grant = Grant("conn_base", paths="v1/*")
    with H2Client.through(lab.gateway.port, "presign.local", 443, None, lab.gateway.ca) as client:
        found = dict(client.request([*head, (":path", grant.target("v1/scripted"))]).headers)
    assert found["location"] == f"/api/proxy/conn_base/v1/x?{grant.query}"
    assert found["operation-location"] == f"https://presign.local/api/proxy/conn_base/v1/y?{grant.query}"


@pytest.mark.parametrize("name", ["Link", "Content-Location"])
def test_an_upstream_that_hands_out_hundreds_of_urls_is_not_passed_on(
    name: str, lab: Lab, answers: Callable[..., None]
) -> None:
    """Each was looked at: 20,000 in one answer kept everybody else waiting for three seconds."""
    value = f"<{'>,<'.join('abcd')}>" if name == "Link" else "/base/v1/x"
    each = 4 if name == "Link" else 1
    target = Grant("conn_base").target("v1/scripted")
    answers(200, *[(name, value)] * (256 // each))
    assert lab.ask(target).status == 200
    answers(200, *[(name, value)] * (256 // each + 1))
    assert code(lab.ask(target)) == (502, "upstream")


DEEP = "a/" * 12_000 + "scripted"


@pytest.mark.parametrize(
    ("path", "times", "value"),
    [
        pytest.param(DEEP, 60, "x", id="a letter, relative to a deep path"),
        pytest.param("v1/scripted", 3, "/base/v1/" + "Ã©" * 11_000, id="raw UTF-8, byte by byte"),
    ],
)
def test_an_upstream_whose_few_urls_cost_as_much_as_thousands_is_not_passed_on(
    path: str, times: int, value: str, lab: Lab, answers: Callable[..., None]
) -> None:
    """256 redirects to `x`, 4 KiB in all, took a worker four seconds, and the client got 16 MB of them."""
    target = Grant("conn_base").target(path)
    answers(302, ("Location", value))
    assert lab.ask(target).status == 302
    answers(302, *[("Location", value)] * times)
    assert code(lab.ask(target)) == (502, "upstream")


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("allowed", ["*", "v1/*"])
def test_a_base_url_that_is_joined_twice_tells_nobody_its_token(
    allowed: str, escaped: bool, lab: Lab
) -> None:
    """The second token was a part of the path: for the upstream, in dumps of flows and in the audit log."""
    grant = Grant("conn_api", paths=allowed)
    token = grant.token
    inner = token.replace("ps1_", "%70s1_") if escaped else token
    for target in (
        f"/p/{token}/p/{inner}/v1/x",
        f"/api/proxy/conn_api/p/{inner}/v1/x?{grant.query}",
        f"/api/proxy/conn_api/v1/X-Presign-Signature={'0' * 64}?{grant.query}",
    ):
        response = lab.ask(target)
        assert code(response) == (400, "malformed")
        assert not lab.upstream.touched
        signature = token.partition(".")[2]
        assert signature not in json.dumps(lab.audited(response))
        assert signature not in lab.gateway.log()
