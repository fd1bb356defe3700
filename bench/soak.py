"""A soak: a real mitmdump under good and hostile load, while its operator works and its upstreams die.

The gateway has an encrypted registry. Its clients use every carrier, over HTTP/1.1 and HTTP/2; hostile ones
send the catalogue of `tests/data/hostile.json`, forged copies of good requests, unfinished heads and uploads
that are refused, and read what they asked for slowly or not at all. Others hang up over HTTP/2 in the middle
of all the requests that their connection may have under way, and ask for signed sources whose names are never
found (`soak_actors.py`). Every few seconds the registry changes (a connection is disabled or enabled, a key
rotated, connections added), is broken and mended, or an upstream is restarted. The upstreams judge each
request that arrives: was exactly this one signed, and was it not sent before? What was disabled for three
seconds must not arrive.

At the end: no request that was not granted, no credential or signature at a client or in a log, no traceback,
no good request that waited for more than five seconds, no slot and no request at an upstream whose client has
gone, memory and descriptors as they were once the load had begun. Exit code 1 where that does not hold.

Run: .venv/bin/python bench/soak.py [--minutes 15] [--seed N]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "addon"), str(ROOT / "tests")]

import trustme  # noqa: E402 - the path is set above
from soak_actors import SILENT, USABLE, Departures, SlowNames, Verdicts  # noqa: E402

from presign_proxy.config.registry_file.edit import Draft  # noqa: E402
from presign_proxy.config.registry_file.encryption import new_key, parse_key  # noqa: E402
from support.asking import Grant, wire  # noqa: E402
from support.attack import attack  # noqa: E402
from support.config import write_config  # noqa: E402
from support.descriptors import links_of  # noqa: E402
from support.h2client import H2Client  # noqa: E402
from support.hostile import Template, acceptable, load  # noqa: E402
from support.lab import REAL_SECRET, SECRETS, lab_config, lab_dns  # noqa: E402
from support.leaks import forms  # noqa: E402
from support.proxy import Mitm  # noqa: E402
from support.puppet import eventually  # noqa: E402
from support.raw import Hang, Tls, connect, exchange, parse_response  # noqa: E402
from support.recorder import Recorder  # noqa: E402
from support.seen import Seen, SeenLog  # noqa: E402

NAMES = ("conn_good", "conn_tls", "conn_toggle")
GOOD_NAME = "good.soak.test"
"""The upstream of the first one: it has to be looked up while other names hang."""
GRACE = 3.0
"""Seconds after which a change of the registry must hold; two on a machine that has nothing else to do."""
LATE = 5.0
"""Seconds in which each good request must have been answered, whatever others wait for."""
WARM = 20.0
"""Seconds until the load is what it will be."""
LOG_NEVER = re.compile(rb"Traceback|has crashed|\b[0-9a-fA-F]{64}\b")
ANSWERS = (
    "models",
    "bodyreflect",
    "hdrreflect",
    "echo",
    "chunked",
    "trailers",
    "sse",
    "download?bytes=300000",
)
SAFE = ("GET", "HEAD", "OPTIONS")
BROKEN = ("garbage", "rawecho", "close")
"""How the upstream fails; the gateway answers these with 502."""


class Judge(SeenLog):
    """An upstream's record that keeps nothing: each request is judged as it arrives."""

    def __init__(self, verdicts: Verdicts) -> None:
        super().__init__()
        self._verdicts = verdicts
        self._granted: dict[str, str] = {}
        self._came: dict[str, tuple[str, int]] = {}
        """Safe requests that came once, and how often the upstream had been restarted by then."""
        self.restarts = 0
        self.arrived = 0
        self.came_again = 0

    def grant(self, method: str, target: str) -> None:
        with self._changed:
            self._granted[target] = method

    def started(self, request: Seen) -> None:
        with self._changed:
            self.arrived += 1
            first = self._granted.pop(request.target, None)
            granted = first or self._again(request.target)
            if first in SAFE:
                self._came[request.target] = (first, self.restarts)
        if granted != request.method:
            self._verdicts.failed("forwarded without a grant", request.raw)
        elif request.all("authorization") != [f"Bearer {REAL_SECRET}"]:
            self._verdicts.failed("forwarded with another credential", request.headers)
        if USABLE.search(request.everything):
            self._verdicts.failed("a presign at the upstream", request.raw)

    def _again(self, target: str) -> str | None:
        """The method of a safe request that had no answer, because the upstream hung up or was restarted: the
        lane sends it once more (docs/answers.md), and no third time.
        """
        method, restarts = self._came.pop(target, ("", 0))
        if not method or not (target.endswith("/close") or restarts != self.restarts):
            return None
        self.came_again += 1
        return method

    def finished(self, request: Seen) -> None:
        request.complete = True

    def fragment(self, data: bytes) -> None:
        if data and REAL_SECRET.encode() not in data:
            self._verdicts.failed("bytes at the upstream that are no request", data)


class Upstreams:
    """The judged upstream, restarted again and again, and the one that nothing may ever reach."""

    def __init__(self, verdicts: Verdicts) -> None:
        self.ca = trustme.CA()
        self._cert = self.ca.issue_cert("127.0.0.1")
        self.judge, self.nobody = Judge(verdicts), Judge(verdicts)
        self._down = 0.0
        self._up = True
        self.trap = self._start(self.nobody)
        self.good = self._start(self.judge, 0, 0, self._cert)

    @staticmethod
    def _start(log: Judge, port: int = 0, tls_port: int = 0, cert: Any = None) -> Recorder:
        recorder = Recorder(cert, port=port, tls_port=tls_port)
        recorder._log = log
        return recorder.start()

    def restart(self, pause: float) -> None:
        self._up, self._down = False, time.monotonic()
        self.judge.restarts += 1
        self.good.stop()
        time.sleep(pause)
        self.good = self._start(self.judge, self.good.port, self.good.tls_port, self._cert)
        self._up, self._down = True, time.monotonic()

    def was_down_since(self, moment: float) -> bool:
        return not self._up or self._down >= moment - 1.0

    def stop(self) -> None:
        self.good.stop()
        self.trap.stop()


class Operator:
    """The owner of the registry."""

    def __init__(self, directory: Path, upstreams: Upstreams, others: dict[str, Any]) -> None:
        """Args: others: connections of the configuration, with signing keys that stay as they are."""
        self.key = new_key()
        self.directory = directory
        self.secrets = [_fresh(0)]
        self.disabled: float | None = None
        self._settings = lab_config(upstreams.trap.port)
        self._settings["registry"] = {"file": "connections.enc", "key": {"env": "PRESIGN_KEY"}}
        self._settings["audit"] = {"file": "audit.jsonl"}
        self._settings["connections"] |= others
        self.config = write_config(self._settings, directory)
        self.draft = Draft(directory / "connections.enc", [parse_key(self.key)], {})
        good, tls = upstreams.good.url, f"https://127.0.0.1:{upstreams.good.tls_port}"
        named = f"http://{GOOD_NAME}:{upstreams.good.port}"
        for name, url in zip(NAMES, (named, tls, good), strict=True):
            auth = {"type": "bearer", "token": REAL_SECRET}
            self.draft.connections[name] = {"upstream": url, "auth": auth, "insecure_upstream": url == named}
        self._sign_with(self.secrets)
        self.draft.write()

    @property
    def secret(self) -> str:
        return self.secrets[0]

    def _sign_with(self, secrets: list[str]) -> None:
        for name in NAMES:
            keys = [{"id": f"k{secret[-4:]}", "secret": secret} for secret in secrets]
            self.draft.connections[name]["signing_keys"] = keys

    def toggle(self, rest: Callable[[float], None]) -> None:
        self.draft.connections["conn_toggle"]["enabled"] = False
        self.draft.write()
        self.disabled = time.monotonic()
        rest(GRACE + 3)
        self.disabled = None
        self.draft.connections["conn_toggle"]["enabled"] = True
        self.draft.write()
        rest(GRACE)

    def rotate(self, rest: Callable[[float], None]) -> None:
        self.secrets = self.secrets[:1]
        rest(GRACE)  # whoever has just signed with the other key is answered
        new = [_fresh(int(self.secret[-4:]) + 1), self.secret]
        self._sign_with(new)
        self.draft.write()
        rest(GRACE)
        self.secrets = new

    def add_connections(self, rest: Callable[[float], None]) -> None:
        for number in range(300):
            name = f"conn_more_{number}"
            if self.draft.connections.pop(name, None) is None:
                self.draft.connections[name] = {**self.draft.connections["conn_good"]}
        self.draft.write()
        rest(1)

    def break_registry(self, rest: Callable[[float], None]) -> None:
        path = self.directory / "connections.enc"
        whole = path.read_bytes()
        path.write_bytes(random.choice([b"", whole[:-7], whole[:50] + b"A" + whole[51:], b"\x00" * 4000]))
        rest(2)
        self.draft.write()
        rest(1)

    def break_config(self, rest: Callable[[float], None]) -> None:
        self.config.write_text(random.choice(["connections: {", "", "gateway: {hosts: [x], hosts: [y]}\n"]))
        rest(2)
        write_config(self._settings, self.directory)
        rest(1)


def _fresh(number: int) -> str:
    return f"sk_soak_signing_secret_0123456789_{number:04}"


class Soak:
    def __init__(self, directory: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.verdicts = Verdicts()
        self.upstreams = Upstreams(self.verdicts)
        self.departures, self.names = Departures(self.verdicts), SlowNames(self.verdicts)
        others = self.departures.connections() | self.names.connections()
        self.operator = Operator(directory / "gateway", self.upstreams, others)
        ca = directory / "ca.pem"
        self.upstreams.ca.cert_pem.write_to_path(str(ca))
        self.gateway = Mitm(
            directory / "gateway",
            self.operator.config,
            *("--set", f"ssl_verify_upstream_trusted_ca={ca}"),
            env={"PRESIGN_KEY": self.operator.key.reveal()},
            dns=lab_dns(self.upstreams.trap.port) | {GOOD_NAME: ["127.0.0.1"]} | SILENT,
        ).start()
        # The store of the limits is opened after the start.
        eventually(lambda: any(name.endswith("-shm") for name in links_of(self.gateway.pid)), 10)
        self.idle = self.descriptors()
        self.over = threading.Event()
        self.samples: list[tuple[float, int, int]] = []
        self._numbers = iter(range(10**9))
        self._lock = threading.Lock()
        self._cases = [
            case for case in load() if case["automatable"] and case["expect"].get("forwarded") is False
        ]
        self._secret_forms = tuple(forms(REAL_SECRET))
        self._held: list[socket.socket] = []

    def run(self, seconds: float) -> None:
        roles = [self.good] * 3 + [self.good_h2, self.toggled, self.catalogue, self.catalogue]
        roles += [self.forger, self.awkward, self.depart, self.ask_slow_names, self.operate, self.sample]
        threads = [threading.Thread(target=self._repeat, args=(role,), name=role.__name__) for role in roles]
        for thread in threads:
            thread.start()
        self.over.wait(seconds)
        self.over.set()
        for thread in threads:
            thread.join(60)
            if thread.is_alive():
                self.verdicts.failed("a client hangs", thread.name)

    def _repeat(self, role: Callable[[], None]) -> None:
        while not self.over.is_set():
            try:
                role()
            except Hang as hang:
                self.verdicts.failed(f"{role.__name__} gets no answer", hang)
            except (ConnectionError, TimeoutError, OSError) as error:
                self.verdicts.answered(role.__name__, type(error).__name__)
            except Exception as error:
                self.verdicts.failed(f"{role.__name__} cannot go on", error)
                self.over.wait(1)

    def number(self) -> int:
        with self._lock:
            return next(self._numbers)

    def rest(self, seconds: float) -> None:
        self.over.wait(seconds)

    # -- those who hold a presign ---------------------------------------------------------------------

    def good(self) -> None:
        """A few requests on one connection, in every carrier, a refused one among them."""
        chance = random.Random(self.number())
        tls = Tls("presign.local") if chance.random() < 0.2 else None
        opened = time.monotonic()
        with connect(self.gateway.port, tls, 20) as sock:
            for _ in range(chance.randint(1, 8)):
                name = chance.choice(NAMES[:2])
                behaviour = chance.choice(ANSWERS if chance.random() < 0.95 else BROKEN)
                method = chance.choice(["GET", "POST"])
                path = f"v1/good/{self.number()}/{behaviour}"
                secret = chance.choice(self.operator.secrets)
                request = _in_some_carrier(
                    chance, Grant(name, method, "v1/good/*", secret=secret), method, path
                )
                if chance.random() < 0.2:
                    forged = request.replace(b"v1/good/", b"v1/bad/", 1)
                    received = exchange(sock, forged, 20)
                    if not received and self.upstreams.was_down_since(opened):
                        return  # the last answer was not whole
                    refused = parse_response(received)
                    self.verdicts.answered("refused in between", refused.status)
                    if refused.status != 403 or refused.header("connection") == "close":
                        return
                started = time.monotonic()
                self.upstreams.judge.grant(method, f"/{path}")
                try:
                    received = exchange(sock, request, 20)
                except Hang as hang:
                    if not self.upstreams.was_down_since(started):
                        raise
                    self.verdicts.failed("hangs beside a restart", (sock.getsockname(), path, hang))
                    return
                if not self._check("good", received, started, behaviour in BROKEN):
                    return

    def good_h2(self) -> None:
        host = ("presign.local", 443)
        with H2Client.through(self.gateway.port, *host, "presign.local", self.gateway.ca) as client:
            for _ in range(10):
                path = f"v1/good/{self.number()}/models"
                grant = Grant("conn_tls", "GET", "v1/good/*", secret=self.operator.secret)
                good = self.number() % 3 > 0
                if good:
                    self.upstreams.judge.grant("GET", f"/{path}")
                target = grant.target(path if good else f"v1/bad/{self.number()}")
                fields = [
                    (":method", "GET"),
                    (":scheme", "https"),
                    (":authority", host[0]),
                    (":path", target),
                ]
                started = time.monotonic()
                reply = client.request(fields, timeout=20)
                self._check_time("HTTP/2", started)
                self.verdicts.answered("HTTP/2", reply.outcome if good else f"refused {reply.outcome}")
                wanted = "200" if good else "403"
                if reply.outcome != wanted and not (good and self.upstreams.was_down_since(started)):
                    self.verdicts.failed("an unexpected answer over HTTP/2", (wanted, reply))
                self._search(reply.received)
                if reply.status is None:
                    return

    def _check(self, who: str, received: bytes, started: float, broken: bool = False) -> bool:
        """Judge an answer; whether the connection goes on."""
        self._search(received)
        try:
            response = parse_response(received)
        except ValueError:
            self.verdicts.answered(who, "closed")
            if not self.upstreams.was_down_since(started):
                self.verdicts.failed("a good request was not answered", received)
            return False
        self.verdicts.answered(who, f"{response.status} {response.header('x-presign-error') or ''}")
        self._check_time(who, started)
        expected = 502 if broken else 200
        if response.status != expected and not self.upstreams.was_down_since(started):
            self.verdicts.failed("an unexpected answer", (expected, response))
        return response.status == 200

    def _check_time(self, who: str, started: float) -> None:
        took = time.monotonic() - started
        if took > LATE and not self.upstreams.was_down_since(started):
            self.verdicts.failed("a good request was answered late", (who, took))

    def _search(self, received: bytes) -> None:
        if any(form in received for form in self._secret_forms):
            self.verdicts.failed("the credential at a client", received)

    def toggled(self) -> None:
        """Asks for what is disabled now and then: after three seconds none of it arrives."""
        since = self.operator.disabled
        started = time.monotonic()
        overdue = since is not None and started - since > GRACE
        path = f"v1/toggle/{self.number()}"
        if not overdue:
            self.upstreams.judge.grant("GET", f"/{path}")
        grant = Grant("conn_toggle", "GET", "v1/toggle/*", secret=self.operator.secret)
        with connect(self.gateway.port, timeout=20) as sock:
            try:
                response = parse_response(exchange(sock, wire(grant.target(path)), 20))
            except ValueError:
                self.verdicts.answered("toggled", "closed")
                return
        error = response.header("x-presign-error")
        self.verdicts.answered("toggled", f"{response.status} {error or ''}")
        if overdue and self.operator.disabled == since and error != "revoked":
            self.verdicts.failed("a disabled connection answers", response)
        self.rest(0.05)

    def depart(self) -> None:
        self.departures.leave(self.gateway, random.Random(self.number()))
        self.rest(0.2)

    def ask_slow_names(self) -> None:
        self.names.ask(self.gateway, self.number())

    # -- those who hold none --------------------------------------------------------------------------

    def catalogue(self) -> None:
        case = random.choice(self._cases)
        template = Template(case["sign"], self.upstreams.trap.port)
        outcome = attack(case, "published", template, self.gateway)
        self.verdicts.answered("catalogue", f"{outcome.result} {outcome.code or ''}")
        if not acceptable(outcome, case["expect"]):
            self.verdicts.failed("an attack ends otherwise", (case["id"], outcome))
        self._search(outcome.received)

    def forger(self) -> None:
        """Good requests with one byte of what was signed changed: `v1/forged` is granted to nobody."""
        chance = random.Random(self.number())
        grant = Grant("conn_good", "GET", "v1/forged/*", secret=self.operator.secret)
        query = bytearray(grant.query.encode())
        at = chance.randrange(len(query))
        query[at] = chance.choice(b"0123456789abcdefABCDEF*+/%&=;-_.~")
        if sorted(parse_qsl(query.decode())) == sorted(parse_qsl(grant.query)):
            return
        target = f"/api/proxy/conn_good/v1/forged/{self.number()}?{query.decode()}"
        with connect(self.gateway.port, timeout=20) as sock:
            received = exchange(sock, wire(target), 20)
        response = parse_response(received)
        self.verdicts.answered("forger", f"{response.status} {response.header('x-presign-error') or ''}")
        if response.status not in (400, 403):
            self.verdicts.failed("a forged request is answered", (target, response))

    def awkward(self) -> None:
        """Heads and bodies that do not end, answers that nobody reads, bytes without sense."""
        while len(self._held) > 60:
            self._held.pop(0).close()
        chance = random.Random(self.number())
        sock = connect(self.gateway.port, timeout=5)
        kind = chance.randrange(9)
        self.verdicts.answered("awkward, kind", kind)
        grant = Grant("conn_good", "*", "v1/*", secret=self.operator.secret)
        bad = Grant("conn_good", "*", "v1/*", secret="sk_somebody_elses_secret_0123456789")
        number = self.number()
        with contextlib.suppress(OSError):
            if kind == 0:
                sock.sendall(wire(grant.target("v1/never"))[: chance.randrange(20, 200)])
            elif kind == 1:
                path = f"v1/{number}/download?bytes=30000000"
                self.upstreams.judge.grant("GET", f"/{path}")
                sock.sendall(wire(grant.target(path)))
                sock.recv(1000)
            elif kind == 2:
                sock.sendall(wire(bad.target("v1/x"), {"Content-Length": "20000000"}, "POST"))
                for _ in range(40):
                    sock.sendall(bytes(65536))
            elif kind == 3:
                sock.sendall(wire(grant.target("v1/never"), {"X-Big": "x" * 70_000}))
            elif kind == 4:
                sock.sendall(wire(grant.target("v1/never"), [(f"X-{n}", "1") for n in range(200)]))
            elif kind == 5:
                sock.sendall(chance.randbytes(chance.randrange(1, 3000)))
            elif kind == 6:
                sock.sendall(wire(bad.target("v1/x")) * 60)
            elif kind == 7:
                path = f"v1/{number}/echo"
                self.upstreams.judge.grant("POST", f"/{path}")
                sock.sendall(wire(grant.target(path), {"Content-Length": "900000"}, "POST"))
                sock.sendall(bytes(chance.randrange(1, 500_000)))
            else:
                path = f"v1/{number}/sse"
                self.upstreams.judge.grant("GET", f"/{path}")
                sock.sendall(wire(grant.target(path)))
                sock.recv(200)
        if chance.random() < 0.5:
            sock.close()
        else:
            self._held.append(sock)
        self.rest(0.1)

    # -- the operator, and the one who looks on -------------------------------------------------------

    def operate(self) -> None:
        operator = self.operator
        steps: list[Callable[[], None]] = [
            lambda: operator.toggle(self.rest),
            lambda: operator.rotate(self.rest),
            lambda: operator.add_connections(self.rest),
            lambda: operator.break_registry(self.rest),
            lambda: operator.break_config(self.rest),
            lambda: self.gateway.child.send_signal(signal.SIGHUP),
            lambda: self.upstreams.restart(self.random.random()),
            lambda: self.upstreams.restart(0),
        ]
        self.random.shuffle(steps)
        for step in steps:
            if self.over.is_set():
                return
            step()
            self.verdicts.answered("operator", "steps")
            self.rest(2)

    def sample(self) -> None:
        self.samples.append((time.monotonic(), self.gateway.rss(), self.descriptors()))
        if self.gateway.child.poll() is not None:
            self.verdicts.failed("the gateway has ended", self.gateway.child.returncode)
        self.rest(1)

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.gateway.pid}/fd").iterdir())

    # -- afterwards -----------------------------------------------------------------------------------

    def settle(self) -> int:
        """Everybody hangs up; the descriptors that are left after the deadline for heads."""
        for sock in self._held:
            sock.close()
        self.departures.settle(self.gateway)
        deadline = time.monotonic() + 20
        while self.descriptors() > self.idle + 3 and time.monotonic() < deadline:
            time.sleep(0.5)
        return self.descriptors()

    def stop(self) -> None:
        self.gateway.stop()
        self.upstreams.stop()
        self.departures.stop()

    def search_logs(self) -> None:
        secrets = [*self._secret_forms, *(secret.encode() for secret in SECRETS.values()), b"sk_soak_signing"]
        for path in (self.gateway.log_path, self.gateway.directory / "audit.jsonl"):
            with path.open("rb") as lines:
                for line in lines:
                    found = LOG_NEVER.search(line) if path.suffix == ".log" else USABLE.search(line)
                    if found or any(secret in line for secret in secrets):
                        self.verdicts.failed(f"{path.name} tells too much, or of a crash", line)

    def report(self, left: int) -> bool:
        """Print everything; whether all is well."""
        begun = self.samples[0][0]
        steady = [sample for sample in self.samples if sample[0] - begun >= min(WARM, 20)] or self.samples
        fifth = max(1, len(steady) // 5)
        middle = len(steady) // 2
        parts = {
            "start": steady[:fifth],
            "middle": steady[middle - fifth // 2 : middle - fifth // 2 + fifth],
            "end": steady[-fifth:],
        }
        print(f"{'':8}{'RSS, MB (median)':>18}{'RSS, MB (most)':>16}{'descriptors':>13}")
        rss = {}
        for name, part in parts.items():
            rss[name] = statistics.median(sample[1] for sample in part) / 1e6
            most = max(sample[1] for sample in part) / 1e6
            files = statistics.median(sample[2] for sample in part)
            print(f"{name:8}{rss[name]:18.1f}{most:16.1f}{files:13.0f}")
        print(f"descriptors: {self.idle} before the load, {left} after it")
        arrived = self.upstreams.judge.arrived, self.upstreams.nobody.arrived
        print(f"requests at the upstream: {arrived[0]}, at the one that nothing leads to: {arrived[1]}")
        print(f"of them once more, since the upstream gave no answer: {self.upstreams.judge.came_again}")
        for what, count in sorted(self.verdicts.answers.items()):
            print(f"  {count:8} {what}")
        if rss["end"] > 1.1 * rss["start"] + 5:
            self.verdicts.failed("memory grows", rss)
        if left > self.idle + 5:
            self.verdicts.failed("descriptors are left", left)
        for kind, count in self.verdicts.wrong.items():
            print(f"WRONG {count} times: {kind}")
        for example in self.verdicts.examples:
            print(f"  {example}")
        return not self.verdicts.wrong


def _in_some_carrier(chance: random.Random, grant: Grant, method: str, path: str) -> bytes:
    body = chance.randbytes(chance.randrange(1, 50_000)) if method == "POST" else b""
    gateway = f"/api/proxy/{grant.connection}/{path}"
    carrier = chance.randrange(4)
    if carrier == 0:
        return wire(grant.target(path), {"X-Api-Key": "sk-client-own-0123"}, method, body=body)
    if carrier == 1:
        return wire(gateway, grant.headers, method, body=body)
    if carrier == 2:
        return wire(f"/p/{grant.token}/{path}", (), method, body=body)
    return wire(gateway, {"Authorization": f"Bearer {grant.token}"}, method, body=body)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    # An upstream that is stopped in the middle leaves transports which Python 3.13 fails to finalise.
    sys.unraisablehook = lambda _: None
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="presign-soak-") as directory:
        soak = Soak(Path(directory), arguments.seed)
        try:
            soak.run(arguments.minutes * 60)
            left = soak.settle()
        finally:
            soak.stop()
        soak.search_logs()
        return 0 if soak.report(left) else 1


if __name__ == "__main__":
    sys.exit(main())
