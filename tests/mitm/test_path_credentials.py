"""A credential in the upstream's path, on both paths: it arrives, and never comes back or out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, ask, code
from support.audit_log import audit_lines
from support.gateways import MakeGateway
from support.lanes import WAYS
from support.leaks import Traces
from support.proxy import Mitm
from support.puppet import eventually
from support.recorder import Recorder
from support.seen import Seen

TOKEN = "123456789:AAH-R3AL_secret_of_the_bot_0123456789"
WEBHOOK = "T00000000/B00000000/R3ALsecretOfTheWebhook0123"
TELEGRAM, SLACK = Grant("conn_telegram"), Grant("conn_slack")


@pytest.fixture(scope="module", params=("lane", "flows"))
def gateway(request: Any, module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    def auth(preset: str, token: Any) -> dict[str, Any]:
        return {
            "preset": preset,
            "upstream": upstream.url,
            "auth": {"token": token},
            "signing_keys": [{"secret": SECRET}],
        }

    connections = {
        "conn_telegram": auth("telegram", TOKEN),
        "conn_slack": auth("slack-webhook", {"exec": ["echo", WEBHOOK]}),
        "conn_bad": auth("telegram", {"exec": ["echo", "123:abc/../../admin"]}),
    }
    config = {
        "gateway": {"hosts": ["presign.local"]},
        "connections": connections,
        "audit": {"file": "audit.jsonl"},
    }
    options = () if request.param == "lane" else ("-w", "flows.mitm", "--set", "flow_detail=4")
    return module_gateway(config, *WAYS[request.param], *options)


@pytest.fixture
def echoing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the upstream answer at `…/echo` with its own path, wherever a server may write it."""

    def answer(request: Seen) -> Answer:
        path = request.target
        url = f"http://{request.header('host')}{path}"
        headers = (
            ("Location", f"{url}/next"),
            ("Link", f"<{url}?page=2>; rel=next"),
            ("Content-Location", path),
            ("X-Request-Path", path),
            ("Content-Type", "text/plain"),
        )
        return Answer(201, headers, f"not found: {path}\n{url}\n{path.replace('/', '%2F')}\n".encode())

    monkeypatch.setitem(BEHAVIOURS, "echo", answer)
    return lambda: None


def test_a_bot_calls_its_api_and_a_webhook_is_posted_to(gateway: Mitm, upstream: Recorder) -> None:
    answer = ask(gateway.port, TELEGRAM.target("sendMessage?chat_id=1&text=a+b"), method="POST", body=b"{}")
    assert answer.status == 200
    assert ask(gateway.port, SLACK.target(""), method="POST", body=b'{"text": "hi"}').status == 200
    telegram, slack = upstream.wait_for(2)
    assert telegram.target == f"/bot{TOKEN}/sendMessage?chat_id=1&text=a+b"
    assert slack.target == f"/services/{WEBHOOK}"
    assert slack.body == b'{"text": "hi"}'
    assert telegram.header("authorization") is None


def test_an_upstream_that_writes_its_path_into_the_answer_reveals_no_token(
    gateway: Mitm, upstream: Recorder, echoing: Callable[..., None]
) -> None:
    del echoing
    for grant, secret in ((TELEGRAM, TOKEN), (SLACK, WEBHOOK)):
        answer = ask(gateway.port, grant.target("a/echo"))
        assert answer.status == 201
        whole = b"\n".join(f"{name}: {value}".encode() for name, value in answer.headers) + answer.body
        assert not Traces([secret, secret.rpartition("/")[2]]).found_in(whole)
        location = answer.header("location") or ""
        assert f"/api/proxy/{grant.connection}/a/echo/next" in location
    assert len(upstream.wait_for(2)) == 2


@pytest.mark.parametrize(
    "path",
    [
        "../getMe",
        "%2e%2e/getMe",
        "/getMe",
        "a//b",
        "..;/x",
        "..%2fx",
        "%252e%252e/x",
        "..\\x",
        "\uff0e\uff0e/x",
    ],
)
def test_no_path_leaves_the_bot(gateway: Mitm, upstream: Recorder, path: str) -> None:
    found = ask(gateway.port, TELEGRAM.target(path))
    assert code(found) in ((403, "path_not_allowed"), (400, "malformed"))
    assert not upstream.touched


@pytest.mark.parametrize("path", ["@evil.test/x", "@uploads/x", "a@evil.test:80/", "bot999:other/getMe"])
def test_a_path_that_looks_like_an_authority_stays_a_path(
    gateway: Mitm, upstream: Recorder, path: str
) -> None:
    assert ask(gateway.port, TELEGRAM.target(path)).status == 200
    assert upstream.wait_for(1)[0].target == f"/bot{TOKEN}/{path}"


def test_a_program_that_prints_what_no_path_carries_sends_nothing(gateway: Mitm, upstream: Recorder) -> None:
    assert code(ask(gateway.port, Grant("conn_bad").target("getMe"))) == (502, "upstream")
    assert not upstream.touched


def test_neither_log_nor_record_nor_saved_flow_holds_the_token(
    gateway: Mitm, echoing: Callable[..., None]
) -> None:
    del echoing
    for grant in (TELEGRAM, SLACK):
        ask(gateway.port, grant.target("recorded/echo"))
    path = gateway.directory / "audit.jsonl"

    def recorded() -> list[str]:
        return [line["path"] for line in audit_lines(path) if "recorded" in str(line.get("path"))]

    assert eventually(lambda: recorded() == ["/recorded/echo"] * 2)
    time.sleep(0.2)
    traces = Traces([TOKEN, WEBHOOK, WEBHOOK.rpartition("/")[2]])
    for file in sorted(Path(gateway.directory).rglob("*")):
        if file.is_file() and file.name != "config.yaml" and "confdir" not in str(file):
            assert not traces.found_in(file.read_bytes()), file
    assert not traces.found_in(gateway.log().encode())
