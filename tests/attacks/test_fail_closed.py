"""Whatever fails, at start or at run time, denies or keeps the last good state (SPEC §10, 2)."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.answers import BEHAVIOURS, Answer
from support.audit_log import audit_lines
from support.config import write_config
from support.fault_switch import ADDON, FaultSwitch
from support.gateways import MakeGateway
from support.h2client import H2Client, H2Reply
from support.lab import LAB_SECRET, REAL_SECRET, bearer_connection
from support.leaks import FOREVER, LONG_AGO, Issuer, Traces
from support.proxy import SCRIPT, Mitm
from support.puppet import SCRIPTS, Puppeteer, eventually
from support.raw import (
    ConnectRefused,
    Hang,
    Response,
    connect,
    connect_tls,
    exchange,
    parse_response,
    send_raw,
)
from support.recorder import Recorder

GATEWAY = "presign.local"
EXCEPTION_TEXT = "EXCEPTION-TEXT"
PATIENCE = 2.0
"""Seconds after which an answer that has not come will not come."""

# -- faults: what may break ---------------------------------------------------------------------------

# Before the request leaves: refused, and the upstream sees nothing. A number is the call that fails.
DECIDING = (
    "decide",
    "head_of",
    "form_of",
    "recognise",
    "check_size",
    "check_grammar",
    "grant_presign",
    "Registry.get",
    "presign",
    "KeyRing.verify",
    "signature_id",
    "parse_list",
    "check_expiry",
    "check_lifetime",
    "check_method",
    "check_path",
    "canonical_path",
    "handshake_of",
    "check_wishes",
    "outgoing",
    "HeaderCredential.inject",
    "HeaderCredential.placeholder",
    "arrival_of",
    "request_of",
    "Committer._decide",
)
# As above, of a request that has something to wait for.
WAITING = ("Committer._wait", "Admission.complete", "DestinationJudge.pin", "Limiter.admit")
COMMITTING = (
    "Committer._commit",
    "Committer._grant",
    "mask_for",
    "show",
    "snapshot",
    "FlowStates.open",
    "FlowStates.get",
    "ClientStates.head_came",
    "FlowStates.grant",
    "new_request_id@1",
)
SENDING = (
    "Progress.enter",
    "is_unchanged@1",
    "is_unchanged@2",
    "reaches",
    "why_not_over",
    "wire_request",
    "SendingStream._connect",
    "SendingStream._send",
    "SendingStream._send_head",
)
# mitmproxy knows one outcome of a connection that must not be dialled: the upstream is unreachable.
DIALLING = ("Dialler.connect",)
# After the answer of the upstream has begun to arrive: no whole answer of the upstream reaches the client.
ANSWERED = (
    "rewrite",
    "checked_head",
    "masked_fields",
    "Mask.mask",
    "MaskedStream.__call__",
    "Body.__init__",
    "Body.feed",
    "Body.finish",
    "reply_of",
    "put_reply",
)
# Book-keeping: it may cost the answer or not, but opens nothing.
BOOK_KEEPING = (
    "line",
    "Throttle.admit",
    "AuditSink.write",
    "AuditLog.write",
    "Finisher._finish",
    "FlowStates.retire",
    "Dialler.connected",
)
# What refusals are made of: without them a request is still not let through.
REFUSING = (
    "refusal@1",
    "response_of@1",
    "redact",
    "Committer._refuse",
    "Committer._commit",
    "line",
    "new_request_id@1",
    "new_request_id@2",
)
# What chooses how a new connection is spoken to.
LAYERING = ("Guard.guard_layer", "adopt", "is_raw")
CONNECTING = ("Guard.http_connect", "decide_connect", "_answer", "request_of", "recognise", "arrival_of@1")
# Between mitmproxy's protocol and ours, where nothing of ours decides: no answer, but an end.
PROTOCOL = (
    "ClientStates.holds_too_much",
    "GuardedHttpLayer.make_stream",
    "GuardedHttp1Server.read_headers",
    "GuardedStream._arrive",
    "GuardedStream._checked",
    "GuardedStream._decided",
    "WaitingStream.handle_event",
)
# Where an answer passes on its way from mitmproxy's protocol to ours.
RECEIVING = ("DownloadingStream._receive",)

TARGETS = {
    target.partition("@")[0]
    for group in (
        DECIDING,
        WAITING,
        COMMITTING,
        SENDING,
        DIALLING,
        ANSWERED,
        BOOK_KEEPING,
        REFUSING,
        LAYERING,
        CONNECTING,
        PROTOCOL,
        RECEIVING,
    )
    for target in group
}


def config(port: int, **connections: Any) -> dict[str, Any]:
    lab = bearer_connection(f"http://127.0.0.1:{port}", LAB_SECRET)
    counted = lab | {"limits": [{"rate": "1000/second", "burst": 100000}]}
    return {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {"conn_lab": lab, "conn_counted": counted, **connections},
        "audit": {"file": "audit.jsonl"},
    }


def head_of(url: str) -> bytes:
    return f"GET {url} HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode()


def upload_of(url: str) -> bytes:
    return f"POST {url} HTTP/1.1\r\nHost: {GATEWAY}\r\nContent-Length: 6\r\n\r\nupload".encode()


@dataclass
class Ended:
    """What came of a request."""

    status: int | None
    received: bytes
    whole: bool
    hung: bool = False

    @classmethod
    def h1(cls, received: bytes, *, hung: bool = False) -> "Ended":
        try:
            response = parse_response(received)
        except ValueError:
            return cls(None, received, whole=False, hung=hung)
        length = int(response.header("content-length") or -1)
        return cls(response.status, received, whole=len(response.body) == length, hung=hung)

    @classmethod
    def h2(cls, reply: H2Reply) -> "Ended":
        length = int(reply.header("content-length") or -1)
        whole = len(reply.body) == length and "RST" not in reply.detail
        return cls(reply.status, reply.received, whole, hung=not reply.ended)


@dataclass
class Lab:
    """A gateway in which any of the functions above can be made to fail."""

    gateway: Mitm
    upstream: Recorder
    switch: FaultSwitch
    issuer: Issuer = field(
        default_factory=lambda: Issuer({"conn_lab": LAB_SECRET, "conn_counted": LAB_SECRET})
    )

    def arm(self, target: str) -> None:
        """From now on `target` fails: on every call, or on the one whose number follows an `@`."""
        name, _, nth = target.partition("@")
        self.switch.arm(name, nth or 0)

    def send(self, shape: str, target: str, expires: int = FOREVER, path: str = "v1/models") -> Ended:
        """One presigned request while `target` fails; a tunnel is built before."""
        connection = "conn_counted" if target in WAITING else "conn_lab"
        url = self.issuer.url(connection, path, expires=expires)
        if shape == "h2":
            with H2Client.through(self.gateway.port, GATEWAY, cafile=self.gateway.ca) as client:
                self.arm(target)
                head = [(":method", "GET"), (":scheme", "https"), (":authority", GATEWAY), (":path", url)]
                return Ended.h2(client.request([*head, ("accept", "*/*")], timeout=PATIENCE))
        self.arm(target)
        data = head_of(url) if shape == "get" else upload_of(url)
        try:
            return Ended.h1(send_raw(self.gateway.port, data, timeout=PATIENCE))
        except Hang as hang:
            return Ended.h1(hang.received, hung=True)

    def works(self) -> bool:
        """Whether a good request is granted and a bad one refused."""
        self.upstream.clear()
        good = send_raw(self.gateway.port, head_of(self.issuer.url("conn_lab", "v1/models")))
        bad = send_raw(self.gateway.port, head_of(self.issuer.url("conn_lab", "x", expires=LONG_AGO)))
        carried = [seen.header("authorization") for seen in self.upstream.requests]
        statuses = (parse_response(good).status, parse_response(bad).status)
        return statuses == (200, 403) and carried == [f"Bearer {REAL_SECRET}"]


@pytest.fixture(scope="module", params=["hooks in tasks", "hooks at once"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    upstream: Recorder,
    tmp_path_factory: pytest.TempPathFactory,
) -> Lab:
    switch = FaultSwitch(tmp_path_factory.mktemp("faults"), TARGETS)
    watching = [*ADDON, "--set", "flow_detail=4"]
    if request.param == "hooks at once" and "AS_SERVED" not in os.environ:  # else it is there
        watching += ["-s", str(SCRIPTS / "promptly.py")]
    return Lab(module_gateway(config(upstream.port), *watching, env=switch.env), upstream, switch)


@pytest.fixture(scope="module", autouse=True)
def _held_back() -> Iterator[None]:
    """An upstream whose answer ends like a key: its end is held back until it is known not to be one."""
    BEHAVIOURS["heldback"] = lambda request: Answer(body=b"this ends in REALSECRET")
    yield
    del BEHAVIOURS["heldback"]


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    """The lab with nothing broken; it has to serve again as soon as the fault of the test is over."""
    logged, strikes = len(module_lab.gateway.log()), module_lab.switch.strikes()
    yield module_lab
    module_lab.switch.disarm()
    log = module_lab.gateway.log()[logged:]
    assert module_lab.works()
    assert module_lab.switch.strikes() > strikes, "the function was never called"
    assert "has crashed" not in log
    assert not Traces([REAL_SECRET]).found_in(log.encode())


@pytest.mark.parametrize("shape", ["get", "upload", "h2"])
@pytest.mark.parametrize("target", [*DECIDING, *WAITING, *COMMITTING, *SENDING])
def test_a_failing_function_refuses_a_good_request(target: str, shape: str, lab: Lab) -> None:
    ended = lab.send(shape, target)
    assert not lab.upstream.touched
    assert ended.status == 500, ended
    assert EXCEPTION_TEXT not in ended.received.decode("latin-1")


@pytest.mark.parametrize("shape", ["get", "upload", "h2"])
@pytest.mark.parametrize("target", DIALLING)
def test_a_failing_dialler_reaches_no_upstream(target: str, shape: str, lab: Lab) -> None:
    ended = lab.send(shape, target)
    assert not lab.upstream.touched
    assert ended.status in (500, 502)
    assert EXCEPTION_TEXT not in ended.received.decode("latin-1")


@pytest.mark.parametrize("shape", ["get", "upload", "h2"])
@pytest.mark.parametrize("target", ANSWERED)
def test_a_failing_function_lets_no_answer_through_whole(target: str, shape: str, lab: Lab) -> None:
    ended = lab.send(shape, target, path="v1/heldback")
    assert ended.status in (500, 502) or not ended.whole
    assert not ended.hung, ended
    assert ended.received.count(b"HTTP/1.1 ") == (0 if shape == "h2" else 1), ended
    assert EXCEPTION_TEXT not in ended.received.decode("latin-1")


@pytest.mark.parametrize("shape", ["get", "upload", "h2"])
@pytest.mark.parametrize("target", BOOK_KEEPING)
def test_failing_book_keeping_opens_nothing(target: str, shape: str, lab: Lab) -> None:
    ended = lab.send(shape, target)
    assert ended.status in (200, 500, 502)
    assert EXCEPTION_TEXT not in ended.received.decode("latin-1")
    assert len(lab.upstream.requests) == 1
    assert lab.send(shape, target, LONG_AGO).status in (403, 500)
    assert len(lab.upstream.requests) == 1


@pytest.mark.parametrize("shape", ["get", "upload", "h2"])
@pytest.mark.parametrize("target", REFUSING)
def test_a_refusal_that_fails_is_still_a_refusal(target: str, shape: str, lab: Lab) -> None:
    ended = lab.send(shape, target, LONG_AGO)
    assert not lab.upstream.touched
    assert ended.status in (403, 500)
    assert EXCEPTION_TEXT not in ended.received.decode("latin-1")


@pytest.mark.parametrize("target", LAYERING)
def test_a_connection_that_cannot_be_guarded_is_closed(target: str, lab: Lab) -> None:
    lab.arm(target)
    received = send_raw(lab.gateway.port, head_of(lab.issuer.url("conn_lab", "v1/models")), timeout=PATIENCE)
    assert not lab.upstream.touched
    assert b" 200 " not in received


@pytest.mark.parametrize("shape", ["get", "upload"])
@pytest.mark.parametrize("target", PROTOCOL)
def test_a_failing_protocol_keeps_nobody_waiting(target: str, shape: str, lab: Lab) -> None:
    """mitmproxy logs such a failure and leaves the connection open, for as long as the client waits."""
    ended = lab.send(shape, target)
    assert (ended.received, ended.hung) == (b"", False)
    assert not lab.upstream.touched


def test_a_failing_protocol_hangs_up_on_a_client_that_is_talking(lab: Lab) -> None:
    """One in twenty kept its connection: mitmproxy forgets to close it while its task waits for its turn to
    report what it has read, here that the client has taken a part of the answer.
    """
    assert not any(lab.send("h2", "DownloadingStream._receive").hung for _ in range(30))


@pytest.mark.parametrize("shape", ["get", "upload", "h2"])
@pytest.mark.parametrize("target", RECEIVING)
def test_what_was_granted_is_in_the_audit_log_also_where_the_protocol_fails(
    target: str, shape: str, lab: Lab
) -> None:
    ended = lab.send(shape, target)
    asked = re.search(rb"req_[0-9a-f]+", ended.received)
    assert asked
    assert not ended.whole
    audit = lab.gateway.directory / "audit.jsonl"

    def found() -> list[dict[str, Any]]:
        lines = audit_lines(audit)
        return [line for line in lines if line["request_id"] == asked[0].decode()]

    assert eventually(found)
    (line,) = found()
    assert (line["decision"], line["connection"], line["upstream_status"]) == ("forward", "conn_lab", 200)
    assert line["detail"] == "the gateway failed at the protocol"


@pytest.mark.parametrize("target", CONNECTING)
def test_a_tunnel_that_cannot_be_judged_is_refused(target: str, lab: Lab) -> None:
    lab.arm(target)
    with pytest.raises(ConnectRefused) as refused:
        connect_tls(lab.gateway.port, GATEWAY).close()
    assert refused.value.received.startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("target", [*DECIDING, *WAITING, *COMMITTING, *SENDING])
def test_a_failing_function_leaves_no_signature_in_the_terminal(target: str, lab: Lab) -> None:
    """Only what prints of its own accord: mitmproxy shows every flow that ends, and this one was refused."""
    logged = len(lab.gateway.log())
    lab.send("get", target)
    assert not Traces(lab.issuer.issued).found_in(lab.gateway.log()[logged:].encode())


@pytest.mark.slow
def test_a_request_that_fails_right_after_a_slow_start_ends_only_itself(
    make_gateway: MakeGateway, upstream: Recorder, tmp_path: Path
) -> None:
    """Until its start is over, mitmproxy exits at whatever logs an error; its port accepts long before."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import time\nfrom presign_proxy.core import decide as gateway\n"
        "def decide(*_):\n    raise ValueError\n"
        "gateway.decide = decide\n"
        "time.sleep(1)\n"
        "def running():\n    time.sleep(0.5)\n",
        "utf-8",
    )
    gateway = make_gateway(config(upstream.port), "-s", str(script))
    url = Issuer({"conn_lab": LAB_SECRET}).url("conn_lab", "v1/models")
    for _ in range(2):
        assert parse_response(send_raw(gateway.port, head_of(url))).status == 500
    assert gateway.child.poll() is None


def test_nothing_is_served_behind_a_request_that_could_not_be_judged(lab: Lab) -> None:
    """Nor does anybody know then whether it was HTTP, and where the next one begins."""
    url = lab.issuer.url("conn_lab", "v1/models")
    lab.arm("decide@1")
    with connect(lab.gateway.port) as sock:
        received = exchange(sock, head_of(url) + head_of(url))
        assert parse_response(received).status == 500
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b""
    assert not lab.upstream.touched


# -- the script --------------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """A gateway over a copy of the script, which may be broken and deleted."""

    gateway: Mitm
    script: Path
    upstream: Recorder
    issuer: Issuer = field(
        default_factory=lambda: Issuer({"conn_lab": LAB_SECRET, "conn_counted": LAB_SECRET})
    )

    def ours(self) -> Response:
        url = self.issuer.url("conn_lab", "v1/models")
        return parse_response(send_raw(self.gateway.port, head_of(url)))

    def intercepted(self) -> Response:
        """The same request, addressed to the upstream itself."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.issuer.headers("conn_lab"))
        head = f"GET {self.upstream.url}/v1/models HTTP/1.1\r\nHost: 127.0.0.1:{self.upstream.port}\r\n"
        return parse_response(send_raw(self.gateway.port, f"{head}{fields}\r\n".encode()))

    def not_ours(self) -> Response:
        head = f"GET {self.upstream.url}/open HTTP/1.1\r\nHost: 127.0.0.1:{self.upstream.port}\r\n\r\n"
        return parse_response(send_raw(self.gateway.port, head.encode()))

    def check_disarmed(self) -> None:
        """All that is ours is refused, and nothing of it reaches the upstream."""
        self.upstream.clear()
        for response in (self.ours(), self.intercepted()):
            assert (response.status, response.header("x-presign-error")) == (503, "unavailable")
        assert not self.upstream.touched


@pytest.fixture
def scripted(
    upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Scripted]]:
    gateways: list[Mitm] = []

    def start(**gateway: Any) -> Scripted:
        directory = tmp_path_factory.mktemp("scripted")
        script = directory / "presign.py"
        shutil.copy(SCRIPT, script)
        settings = config(upstream.port)
        settings["gateway"] |= gateway
        # The package stays where it is: a script copied elsewhere finds it as an installed one does.
        env = {"PYTHONPATH": str(SCRIPT.parent)}
        made = Mitm(directory, write_config(settings, directory), script=script, env=env)
        gateways.append(made)
        found = Scripted(made.start(), script, upstream)
        assert found.ours().status == found.intercepted().status == 200
        return found

    yield start
    for gateway in gateways:
        gateway.stop()
        assert "has crashed" not in gateway.log()


@pytest.mark.slow
def test_a_deleted_script_refuses_what_is_ours(scripted: Callable[..., Scripted]) -> None:
    lab = scripted()
    lab.script.unlink()
    assert lab.gateway.wait_for_log("Un-loading script")
    assert eventually(lambda: lab.ours().status != 200)
    lab.check_disarmed()
    assert lab.not_ours().status == 200


@pytest.mark.slow
def test_a_deleted_script_still_refuses_what_is_unsigned(scripted: Callable[..., Scripted]) -> None:
    lab = scripted(unsigned="deny")
    assert lab.not_ours().status == 403
    lab.script.unlink()
    assert lab.gateway.wait_for_log("Un-loading script")
    assert eventually(lambda: lab.ours().status != 200)
    lab.check_disarmed()
    assert lab.not_ours().status in (403, 503)
    assert not lab.upstream.touched
    with pytest.raises(ConnectRefused):
        connect_tls(lab.gateway.port, "other.test")


@pytest.mark.slow
def test_a_broken_script_refuses_what_is_ours_until_it_is_repaired(
    scripted: Callable[..., Scripted],
) -> None:
    lab = scripted()
    good = lab.script.read_text("utf-8")
    for text in ("this is not Python (", "raise RuntimeError", "import presign_proxy.nothing_here", ""):
        lab.script.write_text(text, "utf-8")
        assert eventually(lambda: lab.ours().status != 200), text
        lab.check_disarmed()
        assert lab.not_ours().status == 200
        lab.script.write_text(good, "utf-8")
        assert eventually(lambda: lab.ours().status == 200), text
        assert lab.intercepted().status == 200


# -- the configuration ---------------------------------------------------------------------------------------

BROKEN = """\
gateway:
  hosts: [presign.local]
  unsinged: deny
connections:
  conn_lab:
    upstream: http://api.example.com
    auth: {type: bearer, token: REALSECRET-in-the-file-0123456789}
    signing_keys: [{secret: sk_short_REAL}]
"""


def refused_start(make_gateway: MakeGateway, config_file: Path | dict[str, Any] | None, *args: str) -> str:
    """The log of a mitmdump that must refuse to start."""
    returncode, log = make_gateway(config_file, *args, start=False).run()
    assert returncode == 1, log
    assert "Traceback" not in log
    assert "REALSECRET" not in log
    assert "sk_short" not in log
    return log


@pytest.mark.slow
def test_a_broken_configuration_refuses_to_start_and_says_all_that_is_wrong(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BROKEN, "utf-8")
    path.chmod(0o600)
    log = refused_start(make_gateway, path)
    assert re.search(rf"{re.escape(str(path))}:3:[0-9]+: gateway\.unsinged", log)
    (tmp_path / "config.yaml").write_text(BROKEN.replace("unsinged", "unsigned"), "utf-8")
    log = refused_start(make_gateway, path)
    assert re.search(rf"{re.escape(str(path))}:6:[0-9]+: connections\.conn_lab\.upstream", log)
    assert re.search(rf"{re.escape(str(path))}:8:[0-9]+: connections\.conn_lab\.signing_keys\.0\.secret", log)


@pytest.mark.slow
def test_an_unclosed_quote_beside_a_secret_is_reported_without_it(
    make_gateway: MakeGateway, tmp_path: Path
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BROKEN.replace("token: REAL", 'token: "REAL'), "utf-8")
    path.chmod(0o600)
    log = refused_start(make_gateway, path)
    assert re.search(rf"{re.escape(str(path))}:[0-9]+:[0-9]+: is not valid YAML", log)


@pytest.mark.slow
def test_a_missing_configuration_refuses_to_start(make_gateway: MakeGateway, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere.yaml") in refused_start(make_gateway, tmp_path / "nowhere.yaml")


@pytest.mark.slow
@pytest.mark.parametrize(
    "option", ["ssl_insecure=true", "proxy_debug=true", "validate_inbound_headers=false"]
)
def test_an_unsafe_option_refuses_to_start(option: str, make_gateway: MakeGateway) -> None:
    name, _, _ = option.partition("=")
    assert f"option {name} must be" in refused_start(make_gateway, config(1), "--set", option)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["presign_conifg=x", "presign_unsined=deny"])
def test_a_mistyped_option_refuses_to_start(option: str, make_gateway: MakeGateway) -> None:
    assert option.partition("=")[0] in refused_start(make_gateway, config(1), "--set", option)


@dataclass
class Reloaded:
    """A gateway whose configuration and options change under it."""

    gateway: Mitm
    puppet: Puppeteer
    upstream: Recorder
    issuer: Issuer = field(default_factory=lambda: Issuer({"conn_lab": LAB_SECRET, "conn_new": LAB_SECRET}))

    def status(self, cid: str = "conn_lab") -> int:
        return parse_response(send_raw(self.gateway.port, head_of(self.issuer.url(cid, "v1/models")))).status

    def unsigned(self) -> int:
        head = f"GET {self.upstream.url}/open HTTP/1.1\r\nHost: 127.0.0.1:{self.upstream.port}\r\n\r\n"
        return parse_response(send_raw(self.gateway.port, head.encode())).status

    def write(self, settings: dict[str, Any]) -> None:
        write_config(settings, self.gateway.directory)


@pytest.fixture(scope="module")
def module_reloaded(module_gateway: MakeGateway, upstream: Recorder) -> Reloaded:
    gateway = module_gateway(config(upstream.port), "-s", str(SCRIPTS / "puppet.py"))
    return Reloaded(gateway, Puppeteer(gateway.port), upstream)


@pytest.fixture
def reloaded(module_reloaded: Reloaded) -> Iterator[Reloaded]:
    """The same gateway for each test, with its configuration put back."""
    assert module_reloaded.status() == 200
    yield module_reloaded
    module_reloaded.write(config(module_reloaded.upstream.port))
    assert eventually(lambda: module_reloaded.status() == 200)


UNSAFE = {
    "ssl_insecure": True,
    "proxy_debug": True,
    "validate_inbound_headers": False,
    "connection_strategy": "eager",
    "presign_config": "/nowhere/config.yaml",
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_option_at_run_time_is_rolled_back(name: str, reloaded: Reloaded) -> None:
    before = reloaded.puppet.tell("option", name=name)
    assert "error" in reloaded.puppet.tell("options", **{name: UNSAFE[name]})
    assert reloaded.puppet.tell("option", name=name) == before
    assert reloaded.status() == 200


def test_an_unsafe_option_beside_a_harmless_one_is_rolled_back_too(reloaded: Reloaded) -> None:
    assert "error" in reloaded.puppet.tell("options", flow_detail=2, ssl_insecure=True)
    assert reloaded.puppet.tell("option", name="ssl_insecure") == {"value": False}
    assert reloaded.status() == 200


def test_a_connection_that_is_removed_is_refused_within_two_seconds(reloaded: Reloaded) -> None:
    settings = config(reloaded.upstream.port)
    del settings["connections"]["conn_lab"]
    reloaded.write(settings)
    assert eventually(lambda: reloaded.status() == 403, timeout=2)
    reloaded.upstream.clear()
    assert reloaded.status() == 403
    assert not reloaded.upstream.touched


def test_a_connection_that_is_disabled_is_refused_within_two_seconds(reloaded: Reloaded) -> None:
    settings = config(reloaded.upstream.port)
    settings["connections"]["conn_lab"]["enabled"] = False
    reloaded.write(settings)
    assert eventually(lambda: reloaded.status() == 403, timeout=2)


def test_a_connection_that_is_added_is_served(reloaded: Reloaded) -> None:
    assert reloaded.status("conn_new") == 403
    added = bearer_connection(reloaded.upstream.url, LAB_SECRET)
    reloaded.write(config(reloaded.upstream.port, conn_new=added))
    assert eventually(lambda: reloaded.status("conn_new") == 200, timeout=2)


@pytest.mark.parametrize(
    "text",
    [BROKEN, "connections: [", "", "\x00", "[]"],
    ids=["wrong", "unclosed", "empty", "binary", "a list"],
)
def test_a_broken_change_keeps_the_last_good_configuration(text: str, reloaded: Reloaded) -> None:
    logged = len(reloaded.gateway.log())
    assert reloaded.gateway.config is not None
    reloaded.gateway.config.write_text(text, "utf-8")
    assert eventually(lambda: "the last good one stays" in reloaded.gateway.log()[logged:], timeout=3)
    assert reloaded.status() == 200
    assert "Traceback" not in reloaded.gateway.log()[logged:]
    assert "REALSECRET" not in reloaded.gateway.log()


def test_a_configuration_that_is_written_only_in_part_opens_nothing(reloaded: Reloaded) -> None:
    """An editor that does not replace the file at once leaves it empty for a moment."""
    settings = config(reloaded.upstream.port)
    settings["gateway"]["unsigned"] = "deny"
    reloaded.write(settings)
    assert eventually(lambda: reloaded.unsigned() == 403)
    assert reloaded.gateway.config is not None
    reloaded.gateway.config.write_text("", "utf-8")
    assert not eventually(lambda: reloaded.unsigned() != 403, timeout=1.5)


def test_a_configuration_that_is_deleted_leaves_the_last_good_one(reloaded: Reloaded) -> None:
    logged = len(reloaded.gateway.log())
    assert reloaded.gateway.config is not None
    reloaded.gateway.config.unlink()
    assert eventually(lambda: "the last good one stays" in reloaded.gateway.log()[logged:], timeout=3)
    assert reloaded.status() == 200


def test_a_configuration_that_others_may_write_is_not_taken(reloaded: Reloaded) -> None:
    logged = len(reloaded.gateway.log())
    assert reloaded.gateway.config is not None
    settings = config(reloaded.upstream.port)
    settings["connections"]["conn_lab"]["enabled"] = False
    path = write_config(settings, reloaded.gateway.directory, "other.yaml")
    path.chmod(0o666)
    path.replace(reloaded.gateway.config)
    assert eventually(lambda: "the last good one stays" in reloaded.gateway.log()[logged:], timeout=3)
    assert reloaded.status() == 200
