"""gRPC through a real gateway: client and server of `grpcio`, unchanged, with twins that are refused."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.core.grpc_answer import GRPC_STATUS
from presign_proxy.errors import STATUS
from support.asking import SECRET, Grant
from support.audit_log import audit_lines
from support.config import write_config
from support.documents import DOCS, block
from support.gateways import TLS_NAMES, MakeGateway
from support.grpc_server import DETAILS, SERVICE, GrpcServer, Stub, path
from support.lab import REAL_SECRET, bearer_connection
from support.places import TESTS
from support.puppet import eventually
from support.recorder import Recorder
from support.serving import Serve, presign

GATEWAY = "presign.local"
PATIENT = 20.0
FORMS = ("its real name", "the gateway")
LONG_AGO = 1714808400
OWN_KEY = "sk-client-of-my-own-0123456789"
BIG = 3 * 1024 * 1024
REVOCABLE = tuple(f"conn_revoked_{number}" for number in range(20))
Metadata = tuple[tuple[str, str], ...]


@dataclass
class Lab:
    gateway: Any
    server: GrpcServer
    http1: Recorder
    directory: Path
    revocable: Iterator[str] = field(default_factory=lambda: iter(REVOCABLE))

    def channel(self, form: str, port: int = 0) -> grpc.Channel:
        """A channel to the API by its real name through the proxy, or to the gateway itself."""
        credentials = grpc.ssl_channel_credentials(self.gateway.ca.read_bytes())
        if form == "the gateway":
            options: list[tuple[str, Any]] = [
                ("grpc.ssl_target_name_override", GATEWAY),
                ("grpc.enable_http_proxy", 0),
            ]
            return grpc.secure_channel(f"127.0.0.1:{self.gateway.port}", credentials, options)
        proxy = ("grpc.http_proxy", f"http://127.0.0.1:{self.gateway.port}")
        return grpc.secure_channel(f"localhost:{port or self.server.port}", credentials, [proxy])

    def lines(self, connection: str, count: int) -> list[dict[str, Any]]:
        """The lines of the audit log about a connection, once there are so many."""

        def found() -> list[dict[str, Any]]:
            lines = audit_lines(self.directory / "audit.jsonl")
            return [line for line in lines if line["connection"] == connection]

        assert eventually(lambda: len(found()) >= count, PATIENT), found()
        return found()


def connections(server: GrpcServer, http1: Recorder) -> dict[str, Any]:
    upstream = f"https://localhost:{server.port}"
    names = ("conn_grpc", "conn_audited", "conn_waiting", *REVOCABLE)
    found = {name: bearer_connection(upstream, SECRET) for name in names}
    found["conn_one"] = bearer_connection(upstream, SECRET, limits=[{"concurrency": 1}])
    found["conn_thrice"] = bearer_connection(upstream, SECRET, limits=[{"quota": "3/month"}])
    found["conn_http1"] = bearer_connection(f"https://localhost:{http1.tls_port}", SECRET)
    for one in found.values():
        one["signing_keys"] = [{"id": "k1", "secret": SECRET}]
    return found


@pytest.fixture(scope="module")
def server(ca: trustme.CA) -> Iterator[GrpcServer]:
    with GrpcServer(ca.issue_cert(*TLS_NAMES)) as found:
        yield found


@pytest.fixture(scope="module", params=["mitmdump", "serve"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    server: GrpcServer,
    tls_upstream: Recorder,
    ca_pem: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    directory = tmp_path_factory.mktemp("grpc")
    directory.chmod(0o700)
    write_private(
        directory / "registry.json",
        json.dumps({"connections": connections(server, tls_upstream)}).encode(),
    )
    config = {
        "gateway": {"hosts": [GATEWAY]},
        "registry": {"file": "registry.json"},
        "limits": {"store": "sqlite:///limits.db"},
        "audit": {"file": "audit.jsonl"},
    }
    if request.param == "serve":
        with Serve(directory, config, "--upstream-ca", str(ca_pem)) as served:
            yield Lab(served, server, tls_upstream, directory)
        return
    yield Lab(module_gateway(write_config(config, directory)), server, tls_upstream, directory)


@pytest.fixture
def lab(module_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("GRPC_"):
            monkeypatch.delenv(name)
    module_lab.server.clear()
    logged = len(module_lab.gateway.log())
    yield module_lab
    module_lab.server.go_on.set()
    log = module_lab.gateway.log()[logged:]
    for word in ("Traceback", "failed at", "withheld", REAL_SECRET):
        assert word not in log


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stub(lab: Lab, form: str) -> Iterator[Stub]:
    with lab.channel(form) as channel:
        yield Stub(channel)


def key(connection: str = "conn_grpc", **grant: Any) -> dict[str, Any]:
    """What a holder gives to a call: the key as metadata, as its own credential would be."""
    token = Grant(connection, **{"methods": "POST", "paths": f"{SERVICE}/*"} | grant).token
    return {"metadata": (("authorization", f"Bearer {token}"), ("x-mine", "1")), "timeout": PATIENT}


def named(metadata: Any) -> dict[str, Any]:
    return dict(metadata or ())


# -- calls of each kind -----------------------------------------------------------------------------------


def test_a_unary_call_brings_a_message_and_metadata_before_and_behind_it(lab: Lab, stub: Stub) -> None:
    message, call = stub.echo.with_call(b"hello", **key())
    assert (message, call.code()) == (b"hello", grpc.StatusCode.OK)
    before, behind = named(call.initial_metadata()), named(call.trailing_metadata())
    assert before["x-lab"] == "before"
    assert before["x-presign-request-id"].startswith("req_")
    assert behind == {"x-lab-cost": "7", "x-lab-bin": b"\x00\xff"}
    assert "set-cookie" not in before
    ((_, sent),) = lab.server.calls
    assert sent["authorization"] == f"Bearer {REAL_SECRET}"
    assert sent["x-mine"] == "1"
    assert not [value for value in sent.values() if "ps1_" in str(value) or "presign" in str(value)]


def test_a_large_message_goes_both_ways(stub: Stub) -> None:
    assert stub.echo(bytes(BIG), **key()) == bytes(BIG)


def test_a_stream_of_the_server_comes_message_by_message(lab: Lab, stub: Stub) -> None:
    call = stub.count(b"100", **key())
    assert next(call) == b"0"
    lab.server.go_on.set()
    assert [int(message) for message in call] == list(range(1, 100))
    assert call.code() is grpc.StatusCode.OK


def test_a_stream_of_the_client_goes_message_by_message(lab: Lab, stub: Stub) -> None:
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answer = stub.size.future(iter(messages.get, None), **key())
    for number in range(3):
        messages.put(b"x" * number)
        assert eventually(lambda: len(lab.server.received) == number + 1, PATIENT)  # noqa: B023 - at once
    messages.put(None)
    assert answer.result(PATIENT) == b"3 3"


def test_both_sides_take_turns_in_one_stream(stub: Stub) -> None:
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    call = stub.talk(iter(messages.get, None), **key())
    for word in (b"one", b"two", b"", b"x" * 100_000):
        messages.put(word)
        assert next(call) == word.upper()
    messages.put(None)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_many_calls_go_on_at_a_time(stub: Stub) -> None:
    calls = [stub.echo.future(b"%d" % number, **key()) for number in range(60)]
    assert [call.result(PATIENT) for call in calls] == [b"%d" % number for number in range(60)]


def test_asyncio_calls_too(lab: Lab) -> None:
    async def call() -> list[bytes]:
        credentials = grpc.ssl_channel_credentials(lab.gateway.ca.read_bytes())
        options = [("grpc.ssl_target_name_override", GATEWAY), ("grpc.enable_http_proxy", 0)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{lab.gateway.port}", credentials, options) as channel:
            talk = channel.stream_stream(path("Talk"))(**key())
            found = []
            for word in (b"one", b"two"):
                await talk.write(word)
                found.append(await talk.read())
            await talk.done_writing()
            return found

    assert asyncio.run(call()) == [b"ONE", b"TWO"]


# -- statuses ---------------------------------------------------------------------------------------------


def refused(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_a_status_in_place_of_an_answer_keeps_its_message_and_details(stub: Stub) -> None:
    error = refused(lambda: stub.fail(b"", **key()))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "not so many: 100% übel\n"
    assert named(error.trailing_metadata())["grpc-status-details-bin"] == DETAILS


def test_a_status_behind_a_message_keeps_its_details(stub: Stub) -> None:
    call = stub.fail_late(b"x", **key())
    assert next(call) == b"x"
    error = refused(lambda: next(call))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost")
    assert named(error.trailing_metadata())["grpc-status-details-bin"] == DETAILS


@pytest.mark.parametrize("message", [b"", b"x"])
def test_a_credential_in_a_status_is_masked_and_the_status_survives(stub: Stub, message: bytes) -> None:
    """Asterisks in the base64 of a field would be an error to its reader, who would lose the status."""
    error = refused(lambda: list(stub.leak(message, **key())))
    stars = "*" * len(REAL_SECRET)
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, f"not with {stars}, 100%")
    found = named(error.trailing_metadata())
    assert found["x-lab-echo"] == f"Bearer {stars}"
    assert found["x-lab-echo-bin"] == f"?{stars}".encode()
    assert found["grpc-status-details-bin"].endswith(f"{stars}!".encode())


def test_a_deadline_reaches_the_server(lab: Lab, stub: Stub) -> None:
    error = refused(lambda: stub.wait(b"", **key() | {"timeout": 0.5}))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert eventually(lambda: lab.server.ended == ["Wait"], PATIENT)


def test_a_cancelled_call_ends_at_the_server(lab: Lab, stub: Stub) -> None:
    call = stub.wait.future(b"", **key("conn_waiting"))
    assert eventually(lambda: len(lab.server.calls) == 1, PATIENT)
    seen = len(lab.lines("conn_waiting", 0))
    call.cancel()
    assert call.cancelled()
    assert eventually(lambda: lab.server.ended == ["Wait"], PATIENT)
    line = lab.lines("conn_waiting", seen + 1)[-1]
    assert (line["decision"], line["detail"]) == ("forward", "the client went away")
    assert stub.echo(b"next", **key()) == b"next"


# -- refusals ---------------------------------------------------------------------------------------------

DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
TWINS: dict[str, tuple[dict[str, Any], grpc.StatusCode, str, str]] = {
    "an expired key": (key(expires=LONG_AGO), DENIED, "expired", "expired"),
    "a key for another call": (key(paths=path("Talk")[1:]), DENIED, "path_not_allowed", "Talk"),
    "a key for reading": (key(methods="GET"), DENIED, "method_not_allowed", "GET"),
    "a forged key": (key(secret="x" * 40), DENIED, "invalid", "signature"),
    "half a key": (
        {"metadata": (("authorization", "Bearer ps1_abc"),), "timeout": PATIENT},
        grpc.StatusCode.INVALID_ARGUMENT,
        "malformed",
        "well-formed",
    ),
}


@pytest.mark.parametrize("what", TWINS)
def test_a_call_is_refused_with_a_status_and_a_sentence(lab: Lab, stub: Stub, what: str) -> None:
    options, status, code, word = TWINS[what]
    error = refused(lambda: stub.echo(b"x", **options))
    assert error.code() is status
    assert word in error.details()
    found = named(error.trailing_metadata())
    assert found["x-presign-error"] == code
    assert found["x-presign-request-id"].startswith("req_")
    assert not lab.server.calls
    assert stub.echo(b"next", **key()) == b"next"  # over the same connection


def test_a_stream_is_refused_before_its_messages(lab: Lab, stub: Stub) -> None:
    error = refused(lambda: stub.size(iter([bytes(BIG)] * 3), **key(expires=LONG_AGO)))
    assert error.code() is DENIED
    assert not lab.server.calls


@pytest.mark.parametrize("metadata", [(), (("authorization", f"Bearer {OWN_KEY}"),)])
def test_a_call_to_the_gateway_without_a_key_is_told_to_bring_one(lab: Lab, metadata: Metadata) -> None:
    with lab.channel("the gateway") as channel:
        error = refused(lambda: Stub(channel).echo(b"x", metadata=metadata, timeout=PATIENT))
    assert error.code() is UNKNOWN
    assert "authorization: Bearer ps1_" in error.details()
    assert not lab.server.calls


def test_an_upstream_without_http2_is_told_of_and_gets_no_credential(lab: Lab) -> None:
    lab.http1.clear()
    with lab.channel("the gateway") as channel:
        error = refused(lambda: Stub(channel).echo(b"x", **key("conn_http1")))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert named(error.trailing_metadata())["x-presign-error"] == "upstream"
    assert not lab.http1.requests
    assert "HTTP/2 (by ALPN, over TLS), which gRPC needs" in lab.lines("conn_http1", 1)[-1]["detail"]


def test_a_call_without_tls_to_the_gateway_is_refused(lab: Lab) -> None:
    """Cleartext HTTP/2 is not spoken: a key would pass in the open."""
    with grpc.insecure_channel(
        f"127.0.0.1:{lab.gateway.port}", options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        error = refused(lambda: Stub(channel).echo(b"x", **key()))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert not lab.server.calls


# -- limits, and what an operator ends --------------------------------------------------------------------


def test_a_stream_holds_one_slot_until_it_ends(lab: Lab, stub: Stub) -> None:
    call = stub.count(b"5", **key("conn_one"))
    assert next(call) == b"0"
    error = refused(lambda: stub.echo(b"x", **key("conn_one")))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert named(error.trailing_metadata())["x-presign-error"] == "limited"
    lab.server.go_on.set()
    assert len(list(call)) == 4
    assert eventually(lambda: is_let_in(stub), PATIENT)


def is_let_in(stub: Stub) -> bool:
    try:
        return bool(stub.echo(b"x", **key("conn_one")) == b"x")
    except grpc.RpcError:
        return False


def test_a_stream_counts_once_however_many_messages_it_has(lab: Lab) -> None:
    """Each front has a store of its own, and each has three calls."""
    lab.server.go_on.set()
    with lab.channel("the gateway") as channel:
        stub, options = Stub(channel), key("conn_thrice")
        assert len(list(stub.count(b"50", **options))) == 50
        assert len(list(stub.talk(iter([b"x"] * 50), **options))) == 50
        assert stub.size(iter([b"x"] * 50), **options) == b"50 50"
        error = refused(lambda: stub.echo(b"x", **options))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(named(error.trailing_metadata())["retry-after"]) > 0


def test_a_stream_has_one_line_in_the_audit_log(lab: Lab, stub: Stub) -> None:
    lab.server.go_on.set()
    seen = len(lab.lines("conn_audited", 0))
    assert len(list(stub.count(b"50", **key("conn_audited")))) == 50
    (line,) = lab.lines("conn_audited", seen + 1)[seen:]
    assert (line["method"], line["path"], line["status"]) == ("POST", path("Count"), 200)


@pytest.mark.parametrize("which", ["answering", "uploading", "silent"])
def test_a_revoked_stream_ends_with_a_status(lab: Lab, stub: Stub, which: str) -> None:
    name = next(lab.revocable)
    options = key(name)
    messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    if which == "answering":
        call = stub.count(b"5", **options)
        assert next(call) == b"0"
    elif which == "uploading":
        call = stub.talk(iter(messages.get, None), **options)
        messages.put(b"x")
        assert next(call) == b"X"
    else:
        call = stub.wait.future(b"", **options)
        assert eventually(lambda: len(lab.server.calls) == 1, PATIENT)
    presign(lab.directory, "revoke", "--connection", name, "--now")
    error = refused(lambda: call.result(PATIENT) if which == "silent" else next(call))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "revoked while it was under way" in error.details()
    assert eventually(lambda: bool(lab.server.ended), PATIENT)
    messages.put(None)
    assert lab.lines(name, 1)[0]["code"] == "ended"


# -- a program that is not changed --------------------------------------------------------------------------

PROGRAM = """
import os, sys, grpc
with grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials()) as channel:
    key = (("authorization", "Bearer " + os.environ["LAB_API_KEY"]),)
    try:
        print(channel.unary_unary(sys.argv[2])(b"hello", metadata=key, timeout=20).decode())
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""


@pytest.mark.parametrize(("expires", "printed"), [(None, "hello"), (LONG_AGO, "PERMISSION_DENIED This")])
def test_a_program_finds_proxy_authorities_and_key_in_its_environment(
    lab: Lab, expires: int | None, printed: str
) -> None:
    """As `presign sign --as env` prints them; https_proxy in lower case, because gRPC reads no other."""
    token = Grant("conn_grpc", **({"expires": expires} if expires else {})).token
    env = os.environ | {
        "https_proxy": f"http://127.0.0.1:{lab.gateway.port}",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(lab.gateway.ca),
        "LAB_API_KEY": token,
    }
    argv = [sys.executable, "-c", PROGRAM, f"localhost:{lab.server.port}", path("Echo")]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, env=env, timeout=60)
    assert done.stdout.startswith(printed), done.stdout + done.stderr


def test_the_example_of_the_documents_calls(lab: Lab) -> None:
    token = Grant("conn_grpc", "POST", f"{SERVICE}/*").token
    program = block(DOCS["grpc.md"], "python").replace("gateway-ca.pem", str(lab.gateway.ca))
    program = program.replace("gateway.example.com:8443", f"localhost:{lab.gateway.port}")
    env = os.environ | {"API_KEY": token}
    argv = [sys.executable, "-c", program]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, env=env, timeout=60)
    assert done.stdout == "hello\n", done.stderr


def test_the_documents_say_which_status_a_code_has() -> None:
    rows = [line for line in DOCS["grpc.md"].splitlines() if re.match(r"\| `.*\([0-9]+\)", line)]
    said = {code: row for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert {code for code in GRPC_STATUS if STATUS[code] not in (403, 426, 428)} <= said.keys()
    for code, row in said.items():
        assert f"({GRPC_STATUS[code]})" in row


def by_node(lab: Lab, form: str, token: str) -> dict[str, Any]:
    env = os.environ | {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(lab.gateway.ca), "LAB_API_KEY": token}
    target = [f"127.0.0.1:{lab.gateway.port}", SERVICE, GATEWAY]
    if form != "the gateway":
        target = [f"localhost:{lab.server.port}", SERVICE]
        env["https_proxy"] = f"http://127.0.0.1:{lab.gateway.port}"
    argv = ["node", str(TESTS / "support/node/grpc.mjs"), *target]
    done = subprocess.run(argv, capture_output=True, check=False, text=True, env=env, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.needs("node", "node packages")
def test_node_calls(lab: Lab, form: str) -> None:
    found = by_node(lab, form, Grant("conn_grpc").token)
    assert found["echo"]["answer"] == "hello"
    assert found["echo"]["behind"]["x-lab-cost"] == "7"
    assert found["talk"] == {"said": ["ONE", "TWO"]}
    assert (found["fail"]["code"], found["fail"]["details"]) == (8, "not so many: 100% übel\n")
    assert [name for name, _ in lab.server.calls] == ["Echo", "Talk", "Fail"]
    assert {sent["authorization"] for _, sent in lab.server.calls} == {f"Bearer {REAL_SECRET}"}


@pytest.mark.needs("node", "node packages")
def test_node_is_refused_with_a_sentence(lab: Lab, form: str) -> None:
    found = by_node(lab, form, Grant("conn_grpc", expires=LONG_AGO).token)
    assert [found[call]["code"] for call in ("echo", "talk", "fail")] == [7, 7, 7]
    assert "expired" in found["echo"]["details"]
    assert found["echo"]["metadata"]["x-presign-error"] == "expired"
    assert not lab.server.calls
