"""What other addons, scripts and people at the UI do to a granted request: none of it carries a credential
anywhere else, or to the same place with another request (SPEC §10, 4; hostile H23).
"""

import base64
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.io import FlowReader, FlowWriter
from mitmproxy.test import tflow

from support.byhand import Wire
from support.gateways import MakeGateway
from support.leaks import FOREVER, Field, Issuer, Traces
from support.proxy import Mitm
from support.puppet import SCRIPTS, Puppeteer, eventually
from support.raw import Response, Tls, connect, exchange, parse_response, send_raw
from support.recorder import Recorder
from support.seen import Seen

GATEWAY = "presign.local"
CREDENTIALS = {
    "conn_bearer": "REALSECRET-bearer-0123456789",
    "conn_query": "REALSECRET-query-0123456789",
    "conn_other": "REALSECRET-other-0123456789",
}
SIGNING = {name: f"sk_signing_secret_of_{name}_0123456789" for name in CREDENTIALS}
REFUSED = (403, 502)


@dataclass
class Lab:
    """A gateway with the puppet beside it; `upstream` is the right place, `elsewhere` every other one."""

    gateway: Mitm
    puppet: Puppeteer
    issuer: Issuer
    upstream: Recorder
    elsewhere: Recorder

    def send(
        self,
        cid: str = "conn_bearer",
        path: str = "v1/models",
        method: str = "GET",
        body: bytes = b"",
        fields: tuple[Field, ...] = (),
        timeout: float = 10.0,
    ) -> Response:
        """One presigned request."""
        lines = [f"{method} {self.issuer.url(cid, path)} HTTP/1.1", f"Host: {GATEWAY}"]
        lines += [f"{name}: {value}" for name, value in fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        data = "\r\n".join([*lines, "", ""]).encode() + body
        return parse_response(send_raw(self.gateway.port, data, timeout=timeout))

    def pass_through(self, fields: tuple[Field, ...] = ()) -> Response:
        """A request that is not ours, to the same upstream."""
        lines = [
            f"GET {self.upstream.url}/open HTTP/1.1",
            f"Host: 127.0.0.1:{self.upstream.port}",
            *(f"{name}: {value}" for name, value in fields),
        ]
        return parse_response(send_raw(self.gateway.port, "\r\n".join([*lines, "", ""]).encode()))

    def carried(self) -> list[Seen]:
        """Every request, wherever it arrived, that had a credential on it."""
        traces = Traces(CREDENTIALS.values())
        seen = [*self.upstream.requests, *self.elsewhere.requests]
        assert not any(traces.found_in(part) for part in self.upstream.fragments + self.elsewhere.fragments)
        return [request for request in seen if traces.found_in(request.everything)]

    def works(self) -> bool:
        """Whether an untouched request is granted, with its credential, exactly once."""
        self.upstream.clear()
        granted = self.send().status == 200
        return granted and [request.target for request in self.carried()] == ["/base/v1/models"]


def config(port: int, other_port: int) -> dict[str, Any]:
    upstream = f"http://127.0.0.1:{port}/base"
    auths: dict[str, dict[str, Any]] = {
        "conn_bearer": {"type": "bearer", "token": CREDENTIALS["conn_bearer"]},
        "conn_query": {"type": "query", "params": {"key": CREDENTIALS["conn_query"]}},
        "conn_other": {"type": "bearer", "token": CREDENTIALS["conn_other"]},
    }
    connections = {
        cid: {"upstream": upstream, "auth": auth, "signing_keys": [{"secret": SIGNING[cid]}]}
        for cid, auth in auths.items()
    }
    connections["conn_other"]["upstream"] = f"http://127.0.0.1:{other_port}/base"
    return {"gateway": {"hosts": [GATEWAY]}, "connections": connections}


@pytest.fixture(scope="module")
def elsewhere(_recorders: list[Recorder]) -> Iterator[Recorder]:
    """Where an edited request would end up."""
    recorder = Recorder().start()
    _recorders.append(recorder)
    yield recorder
    _recorders.remove(recorder)
    recorder.stop()


@pytest.fixture(scope="module")
def module_lab(module_gateway: MakeGateway, upstream: Recorder, elsewhere: Recorder) -> Lab:
    gateway = module_gateway(
        config(upstream.port, elsewhere.port),
        *("-s", str(SCRIPTS / "puppet.py"), "-w", "dump"),
        dns={"evil.test": [f"127.0.0.1#{elsewhere.port}"]},
    )
    return Lab(gateway, Puppeteer(gateway.port), Issuer(SIGNING), upstream, elsewhere)


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """The lab with nothing configured and nothing edited, and that is how it is left behind."""
    logged = len(module_lab.gateway.log())
    yield module_lab
    module_lab.puppet.tell("forget")
    module_lab.puppet.tell(
        "options",
        map_remote=[],
        map_local=[],
        modify_headers=[],
        modify_body=[],
        stickyauth=None,
        anticomp=False,
        stream_large_bodies=None,
    )
    assert module_lab.works()
    assert "has crashed" not in module_lab.gateway.log()[logged:]


# -- addons that mitmproxy brings along -----------------------------------------------------------------


@pytest.mark.parametrize("cid", ["conn_bearer", "conn_query"])
def test_map_remote_to_another_host_gets_no_key(cid: str, lab: Lab) -> None:
    lab.puppet.tell("options", map_remote=["|//127.0.0.1:[0-9]+/base|//evil.test/base"])
    assert lab.send(cid).status in REFUSED
    assert not lab.carried()
    assert not lab.elsewhere.touched


def test_map_remote_to_another_path_gets_no_key(lab: Lab) -> None:
    lab.puppet.tell("options", map_remote=["|/base/v1/models|/base/admin"])
    assert lab.send().status in REFUSED
    assert not lab.upstream.touched


def test_map_remote_to_another_connections_upstream_gets_no_key(lab: Lab) -> None:
    lab.puppet.tell("options", map_remote=[f"|127.0.0.1:{lab.upstream.port}|127.0.0.1:{lab.elsewhere.port}"])
    assert lab.send().status in REFUSED
    assert not lab.carried()


def test_map_local_answers_without_any_upstream(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text('{"local": true}')
    lab.puppet.tell("options", map_local=[f"|/base/v1/models|{tmp_path / 'models.json'}"])
    response = lab.send()
    assert (response.status, response.body) == (200, b'{"local": true}')
    assert not lab.upstream.touched


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer somebody"),
        ("Authorization", ""),
        ("Host", "evil.test"),
        ("X-Original-URL", "/admin"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Connection", "Authorization"),
        ("Accept-Encoding", "gzip"),
        ("Content-Length", "5"),
        ("Transfer-Encoding", "chunked"),
    ],
)
@pytest.mark.parametrize("cid", ["conn_bearer", "conn_query"])
def test_modify_headers_gets_no_key_on_what_it_made_of_a_request(
    cid: str, name: str, value: str, lab: Lab
) -> None:
    lab.puppet.tell("options", modify_headers=[f"|~q ~u base|{name}|{value}"])
    status = lab.send(cid).status
    if cid == "conn_query" and not value:
        assert status == 200  # there was nothing to remove
        return
    assert status in REFUSED
    assert not lab.upstream.touched


def test_modify_headers_gets_no_key_on_an_upload(lab: Lab) -> None:
    lab.puppet.tell("options", modify_headers=["|~q ~u base|X-Injected|yes"])
    assert lab.send(method="POST", body=b"upload").status in REFUSED
    assert not lab.upstream.touched


def test_modify_headers_does_not_see_the_key_that_an_upstream_echoes(lab: Lab) -> None:
    lab.puppet.tell("options", modify_headers=["|~s ~u base|X-Copied|yes"])
    response = lab.send(path="hdrreflect")
    assert (response.status, response.header("x-copied")) == (200, "yes")
    assert not Traces(CREDENTIALS.values()).found_in(str(response).encode())


def test_modify_body_gets_no_key_on_another_body(lab: Lab) -> None:
    lab.puppet.tell("options", modify_body=["|~q ~u base|upload|download"])
    response = lab.send(method="POST", body=b"upload")
    assert [seen.body for seen in lab.carried()] == ([b"upload"] if response.status == 200 else [])


def test_stickyauth_carries_a_placeholder_at_most(lab: Lab) -> None:
    lab.puppet.tell("options", stickyauth=".*")
    assert lab.send().status == 200
    assert lab.pass_through().status == 200
    granted, other = lab.upstream.wait_for(2)
    assert granted.header("authorization") == f"Bearer {CREDENTIALS['conn_bearer']}"
    assert other.header("authorization") in (None, "Bearer presign:conn_bearer")


def test_stickyauth_puts_no_other_authorization_beside_a_key(lab: Lab) -> None:
    lab.puppet.tell("options", stickyauth=".*")
    assert lab.pass_through((("Authorization", "Bearer of-a-client"),)).status == 200
    response = lab.send("conn_query")
    carried = lab.carried()
    assert response.status in REFUSED or all(seen.header("authorization") is None for seen in carried)
    assert bool(carried) == (response.status == 200)


# -- another script ---------------------------------------------------------------------------------------

EDITS: dict[str, dict[str, Any]] = {
    "host": {"host": "evil.test"},
    "port": {"port": 80},
    "url": {"url": "http://evil.test/base/v1/models"},
    "path": {"path": "/base/admin"},
    "query": {"path": "/base/v1/models?more=1"},
    "method": {"method": "DELETE"},
    "scheme": {"scheme": "https"},
    "authority": {"data:authority": "evil.test"},
    "version": {"http_version": "HTTP/1.0"},
    "version-2": {"http_version": "HTTP/2.0"},
    "new header": {"header:X-New": "1"},
    "second header": {"add:Authorization": "Bearer second"},
    "placeholder": {"header:Authorization": "Bearer other"},
    "host header": {"header:Host": "evil.test"},
    "framing": {"header:Transfer-Encoding": "chunked"},
    "length": {"header:Content-Length": "7"},
}
BODY_EDITS: dict[str, dict[str, Any]] = {
    "content": {"content": "smuggled"},
    "raw content": {"data:content": "smuggled"},
    "trailers": {"trailers": "smuggled"},
    "stream": {"stream": "smuggled"},
}


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("edit", EDITS)
def test_a_script_that_edits_a_granted_request_gets_no_key(edit: str, hook: str, lab: Lab) -> None:
    lab.puppet.tell("edit", hook=hook, **EDITS[edit])
    assert lab.send().status in REFUSED
    assert not lab.carried()
    assert not lab.upstream.touched


@pytest.mark.parametrize("edit", EDITS)
def test_a_script_that_edits_a_granted_upload_before_it_leaves_gets_no_key(edit: str, lab: Lab) -> None:
    lab.puppet.tell("edit", hook="requestheaders", **EDITS[edit])
    assert lab.send(method="POST", body=b"upload").status in REFUSED
    assert not lab.carried()
    assert not lab.upstream.touched


@pytest.mark.parametrize("edit", EDITS)
def test_a_script_that_edits_an_upload_under_way_changes_nothing_that_is_sent(edit: str, lab: Lab) -> None:
    lab.puppet.tell("edit", hook="request", **EDITS[edit])
    lab.send(method="POST", body=b"upload")
    for seen in lab.carried():
        assert (seen.method, seen.target, seen.body) == ("POST", "/base/v1/models", b"upload")
        assert seen.header("host") == f"127.0.0.1:{lab.upstream.port}"
        assert seen.header("x-new") is None
    assert not lab.elsewhere.touched


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("edit", BODY_EDITS)
def test_a_script_that_puts_a_body_on_a_granted_request_gets_no_key(edit: str, hook: str, lab: Lab) -> None:
    lab.puppet.tell("edit", hook=hook, **BODY_EDITS[edit])
    lab.send(timeout=3)
    assert {(seen.body, seen.trailers) for seen in lab.carried()} <= {(b"", b"")}
    assert not lab.upstream.fragments


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("edit", BODY_EDITS)
def test_a_script_that_swaps_the_body_of_an_upload_gets_no_key(edit: str, hook: str, lab: Lab) -> None:
    lab.puppet.tell("edit", hook=hook, **BODY_EDITS[edit])
    lab.send(method="POST", body=b"upload", timeout=3)
    assert {(seen.body, seen.trailers) for seen in lab.carried()} <= {(b"upload", b"")}
    assert not lab.upstream.fragments


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("name", ["Expect", "Proxy-Authorization"])
def test_a_header_that_mitmproxy_consumes_never_leaves_beside_a_key(name: str, hook: str, lab: Lab) -> None:
    assert lab.send().status == 200
    (untouched,) = lab.upstream.wait_for(1)
    lab.puppet.tell("edit", hook=hook, **{f"header:{name}": "100-continue"})
    lab.send()
    assert {seen.raw for seen in lab.carried()} == {untouched.raw}


def test_a_script_that_writes_metadata_changes_nothing(lab: Lab) -> None:
    lab.puppet.tell("edit", hook="requestheaders", **{"metadata:presign": "granted"})
    assert lab.works()


# -- people at the UI -------------------------------------------------------------------------------------


def intercepted(lab: Lab, hook: str, **edits: Any) -> Response:
    """Send a request that is held in `hook`, edited as in mitmweb, and resumed."""
    answers: list[Response] = []
    lab.puppet.tell("hold", hook=hook)
    sender = threading.Thread(target=lambda: answers.append(lab.send()))
    sender.start()
    assert eventually(lambda: lab.puppet.tell("held")["held"])
    assert not lab.upstream.touched
    lab.puppet.tell("resume", **edits)
    sender.join(10)
    return answers[0]


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
def test_an_intercepted_request_that_is_resumed_untouched_is_granted(hook: str, lab: Lab) -> None:
    assert intercepted(lab, hook).status == 200
    assert [seen.target for seen in lab.carried()] == ["/base/v1/models"]


@pytest.mark.parametrize("hook", ["requestheaders", "request"])
@pytest.mark.parametrize("edit", EDITS)
def test_an_intercepted_request_that_is_edited_gets_no_key(edit: str, hook: str, lab: Lab) -> None:
    assert intercepted(lab, hook, **EDITS[edit]).status in REFUSED
    assert not lab.carried()
    assert not lab.upstream.touched


# -- replay and dumps -------------------------------------------------------------------------------------

REPLAY_EDITS: dict[str, dict[str, Any]] = {
    "untouched": {},
    "to another path": {"path": "/base/admin"},
    "to another host": {"url": "http://evil.test/base/v1/models"},
}


@pytest.mark.parametrize("copy", [False, True], ids=["the flow", "a copy"])
@pytest.mark.parametrize("edits", REPLAY_EDITS.values(), ids=REPLAY_EDITS.keys())
def test_a_replayed_flow_gets_no_key(edits: dict[str, Any], copy: bool, lab: Lab) -> None:
    assert lab.send().status == 200
    (granted,) = lab.upstream.wait_for(1)
    lab.puppet.tell("replay", copy=copy, **edits)
    lab.puppet.finish_replays()
    assert [seen.raw for seen in lab.carried()] == [granted.raw]
    # Something arrived, or else this would prove nothing: with the placeholder, which is worth nothing.
    replayed = [*lab.upstream.requests[1:], *lab.elsewhere.requests]
    assert [seen.header("authorization") for seen in replayed] == ["Bearer presign:conn_bearer"]


@pytest.mark.parametrize("copy", [False, True], ids=["the flow", "a copy"])
def test_a_flow_turned_into_a_presigned_request_and_replayed_gets_no_key(copy: bool, lab: Lab) -> None:
    assert lab.send().status == 200
    (granted,) = lab.upstream.wait_for(1)
    for url in (
        f"http://{GATEWAY}{lab.issuer.url('conn_bearer', 'v1/other')}",
        f"{lab.upstream.url}/base/v1/other?X-Presign-Connection=conn_bearer&{lab.issuer.query('conn_bearer')}",
    ):
        lab.puppet.tell("replay", copy=copy, url=url)
        lab.puppet.finish_replays()
    assert [seen.raw for seen in lab.carried()] == [granted.raw]
    assert not Traces(lab.issuer.issued).found_in(b"".join(s.everything for s in lab.upstream.requests))


def test_a_replayed_refusal_is_not_forwarded(lab: Lab) -> None:
    target = lab.issuer.url("conn_bearer", "v1/models", expires=1)
    response = parse_response(
        send_raw(lab.gateway.port, f"GET {target} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode())
    )
    assert response.status == 403
    lab.puppet.tell("replay")
    lab.puppet.finish_replays()
    assert not lab.upstream.touched
    assert not lab.elsewhere.touched


def test_a_dump_from_before_is_replayed_without_key(lab: Lab, make_gateway: MakeGateway) -> None:
    """With `-C` on the command line, as people do it, in a fresh process that knows the connection."""
    assert lab.send().status == 200
    assert lab.send("conn_query").status == 200
    lab.upstream.clear()
    saved = saved_flows(lab, lambda flows: sum("/base/v1/models" in flow.request.path for flow in flows) >= 2)
    gateway = make_gateway(
        config(lab.upstream.port, lab.elsewhere.port),
        "-C",
        str(saved),
        "--set",
        "client_replay_concurrency=-1",
    )
    assert lab.upstream.wait_for(2)
    assert eventually(lambda: len([s for s in lab.upstream.requests if s.target.startswith("/base")]) >= 2)
    assert not lab.carried()
    assert "has crashed" not in gateway.log()


def saved_flows(lab: Lab, complete: Callable[[list[Any]], bool]) -> Path:
    """The dump that the lab is writing, once what is in it satisfies `complete`."""
    dump = lab.gateway.directory / "dump"

    def flows() -> list[Any]:
        with dump.open("rb") as file:
            found = [flow for flow in FlowReader(file).stream() if flow.type == "http"]
            # mitmproxy's own replay crashes on request trailers, which it cannot send over HTTP/1.
            return [flow for flow in found if not flow.request.trailers]

    assert eventually(lambda: complete(flows()))
    copy = lab.gateway.directory / "before"
    with copy.open("wb") as file:
        for flow in flows():
            if flow.request.path.startswith("/base"):
                FlowWriter(file).add(flow)
    return copy


@pytest.mark.parametrize("metadata", [False, True], ids=["plain", "with metadata"])
def test_a_forged_flow_file_gets_no_key(metadata: bool, lab: Lab, tmp_path: Path) -> None:
    """Flows that say of themselves that they were granted, some of them with a good signature."""
    forged = tmp_path / "forged"
    with forged.open("wb") as file:
        for url, headers in forgeries(lab):
            flow = tflow.tflow(resp=False)
            flow.request.url = url
            flow.request.headers.clear()
            flow.request.headers.update({"Host": flow.request.host, **headers})
            flow.request.content = b""
            flow.comment, flow.marked = "presign: granted by conn_bearer", ":lock:"
            if metadata:
                flow.metadata |= {
                    "presign": "granted",
                    "presign_connection": "conn_bearer",
                    "flow_state": True,
                }
            FlowWriter(file).add(flow)
    lab.puppet.tell("replay_file", path=str(forged))
    lab.puppet.finish_replays()
    assert not lab.carried()
    sent = b"".join(seen.everything for seen in [*lab.upstream.requests, *lab.elsewhere.requests])
    assert not Traces(lab.issuer.issued).found_in(sent)


def forgeries(lab: Lab) -> list[tuple[str, dict[str, str]]]:
    url = f"{lab.upstream.url}/base/v1/models"
    placeholder = {"Authorization": "Bearer presign:conn_bearer"}
    return [
        (url, placeholder),
        (f"http://evil.test/base/v1/models?expires={FOREVER}", placeholder),
        (f"http://{GATEWAY}{lab.issuer.url('conn_bearer', 'v1/models')}", {}),
        (f"http://{GATEWAY}{lab.issuer.url('conn_bearer', 'v1/models')}", placeholder),
        (url, dict(lab.issuer.headers("conn_bearer"))),
        (url, {"Authorization": f"Bearer {lab.issuer.token('conn_bearer')}"}),
        (f"{lab.upstream.url}/base/v1/models?key=presign%3Aconn_query", {}),
    ]


# -- proxyauth --------------------------------------------------------------------------------------------

PROXY_AUTH = ("Proxy-Authorization", "Basic " + base64.b64encode(b"user:pass").decode())


@pytest.fixture(scope="module")
def proxyauth(module_gateway: MakeGateway, upstream: Recorder, elsewhere: Recorder) -> Lab:
    gateway = module_gateway(config(upstream.port, elsewhere.port), "--proxyauth", "user:pass")
    return Lab(gateway, Puppeteer(gateway.port), Issuer(SIGNING), upstream, elsewhere)


@pytest.mark.parametrize("body", [b"", b"upload"], ids=["get", "upload"])
def test_a_presign_without_proxy_credentials_is_asked_for_them(body: bytes, proxyauth: Lab) -> None:
    response = proxyauth.send(method="POST" if body else "GET", body=body)
    assert (response.status, response.header("proxy-authenticate")) == (407, 'Basic realm="mitmproxy"')
    assert not proxyauth.upstream.touched


@pytest.mark.parametrize("body", [b"", b"upload"], ids=["get", "upload"])
def test_a_presign_with_proxy_credentials_is_granted(body: bytes, proxyauth: Lab) -> None:
    response = proxyauth.send(method="POST" if body else "GET", body=body, fields=(PROXY_AUTH,))
    assert response.status == 200
    (seen,) = proxyauth.upstream.wait_for(1)
    assert seen.header("authorization") == f"Bearer {CREDENTIALS['conn_bearer']}"
    assert (seen.header("proxy-authorization"), seen.body) == (None, body)


def test_wrong_proxy_credentials_beside_a_presign_are_refused(proxyauth: Lab) -> None:
    wrong = ("Proxy-Authorization", "Basic " + base64.b64encode(b"user:wrong").decode())
    assert proxyauth.send(fields=(wrong,)).status == 407
    assert not proxyauth.upstream.touched


def test_a_bad_presign_is_refused_with_and_without_proxy_credentials(proxyauth: Lab) -> None:
    for fields, expected in (((PROXY_AUTH,), {403}), ((), {403, 407})):
        target = proxyauth.issuer.url("conn_bearer", "v1/models", expires=1)
        lines = [f"GET {target} HTTP/1.1", f"Host: {GATEWAY}", *(f"{n}: {v}" for n, v in fields), "", ""]
        response = parse_response(send_raw(proxyauth.gateway.port, "\r\n".join(lines).encode()))
        assert response.status in expected
    assert not proxyauth.upstream.touched


def test_a_presign_inside_an_authenticated_tunnel_is_granted(proxyauth: Lab) -> None:
    """The client says its password on CONNECT only."""
    with Wire(connect(proxyauth.gateway.port)) as tunnel:
        lines = [f"CONNECT {GATEWAY}:443 HTTP/1.1", f"Host: {GATEWAY}:443", ": ".join(PROXY_AUTH), "", ""]
        tunnel.send("\r\n".join(lines).encode())
        assert tunnel.read_head().startswith(b"HTTP/1.1 200 ")
        sock = Tls(GATEWAY, proxyauth.gateway.ca).wrap(tunnel.sock)
        target = proxyauth.issuer.url("conn_bearer", "v1/models")
        received = exchange(sock, f"GET {target} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode())
    assert parse_response(received).status == 200
    assert [seen.target for seen in proxyauth.carried()] == ["/base/v1/models"]


# -- what is kept -------------------------------------------------------------------------------------------


def test_a_client_that_has_left_is_not_kept(lab: Lab) -> None:
    lab.puppet.tell("forget")
    before = lab.puppet.tell("clients")["kept"]
    for _ in range(20):
        assert lab.send().status == 200
    lab.puppet.tell("forget")
    # This question is a client itself, and another may be on its way out.
    assert eventually(lambda: lab.puppet.tell("clients")["kept"] <= before + 2)
