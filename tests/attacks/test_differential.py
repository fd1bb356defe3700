"""What an upstream parses is what was granted, and it was granted only if an independent verifier grants it.

Mutated requests go through a real gateway to real HTTP parsers: h11, uvicorn (httptools), aiohttp, tornado,
gunicorn, waitress. A thousand run with the other tests; many more with

    make hostile

each time with other random numbers. One of its runs is

    PRESIGN_REQUESTS=N PRESIGN_SEED=N .venv/bin/pytest tests/attacks/test_differential.py -s
"""

import base64
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from support.conversing import Answered, Conversations, Talk
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.hunting import LONG, REQUESTS, hunt, rounds
from support.mutations import PAGE, H2Sample, NamesSample, Sample, Samples, h2_samples, names_samples
from support.parsers import Parsed, Parsers
from support.passed_fields import check_passed, named
from support.raw import ConnectRefused, connect_tls, exchange, parse_response
from support.verifier import Granted, Verifier, Way, read, read_h2

SIGNING = "sk_differential_signing_secret_0123456789"
REAL = "REALSECRET-differential-0123456789"
AUTH: dict[str, dict[str, Any]] = {
    "uvicorn": {"type": "header", "headers": {"X-Api-Key": REAL}},
    "aiohttp": {"type": "query", "params": {"key": REAL}},
    "tornado": {"type": "basic", "username": "user", "password": REAL},
    "gunicorn": {"type": "path", "template": "/bot{token}", "token": REAL},
}
BEARER = {"type": "bearer", "token": REAL}

LOG_NEVER = re.compile(
    r"REALSECRET|(?<![0-9a-fA-F])[0-9a-f]{64}(?![0-9a-fA-F])|Traceback|has crashed|failed to|failed at"
)


class Lab:
    """Upstreams, two gateways, and the judge of what passes between them."""

    def __init__(self, parsers: Parsers, make: MakeGateway) -> None:
        self.parsers, now = parsers, int(time.time())
        upstreams = {f"conn_{name}": f"127.0.0.1:{port}" for name, port in parsers.ports.items()}
        upstreams |= {
            "conn_tls": f"api.tls.test:{parsers.tls_port}",
            "pk_lab": f"img.lab.test:{parsers.ports['h11']}",
            "conn_hosts": f"127.0.0.1:{parsers.ports['h11']}",
        }
        keys = [{"secret": SIGNING}]
        connections: dict[str, Any] = {
            name: {
                "upstream": f"http://{at}",
                "auth": AUTH.get(name.removeprefix("conn_"), BEARER),
                "signing_keys": keys,
            }
            for name, at in upstreams.items()
            if name.startswith("conn_")
        }
        connections["conn_tls"]["upstream"] = f"https://{upstreams['conn_tls']}"
        connections["conn_tornado"]["upstream"] += "/base"
        connections["conn_waitress" if "conn_waitress" in connections else "conn_h11"]["allow"] = {
            "paths": ["v1/*"]
        }
        if not parsers.missing:
            connections["conn_hosts"] |= {
                "upstream": f"http://{upstreams['conn_hosts']}/main",
                "upstreams": {
                    "up": {
                        "url": f"http://{upstreams['conn_tornado']}/up",
                        "auth": {"type": "basic", "username": "user"},
                    },
                    "raw": f"http://{upstreams['conn_aiohttp']}/raw",
                },
            }
        connections["conn_h11"]["cors"] = {"origins": [PAGE.decode()]}
        connections["pk_lab"] = {
            "scheme": "source",
            "mode": "signed",
            "allowed_origins": [f"http://{upstreams['pk_lab']}"],
            "allow_networks": ["127.0.0.0/8"],
            "formats": ["webp"],
            "signing_keys": keys,
        }
        config = {"gateway": {"hosts": ["presign.local"], "unsigned": "deny"}, "connections": connections}
        trap = [f"127.0.0.1#{parsers.ports['h11']}"]
        names = {
            "api.tls.test": ["127.0.0.1"],
            "img.lab.test": ["127.0.0.1"],
            "evil.test": trap,
            "presign.local": trap,
        }
        self.gateway = make(config, dns=names)
        target = upstreams["conn_h11"]
        self.reverse = make(config, "--mode", f"reverse:http://{target}", dns=names)
        self.verifier = Verifier(config)
        self.connections = connections
        self.samples = Samples(config, upstreams, SIGNING, now)
        self.upstreams = upstreams
        self.client = Conversations(self.gateway, self.reverse, parsers.tls_port)
        self.counts: Counter[str] = Counter()
        self._logs = {mitm.log_path: 0 for mitm in (self.gateway, self.reverse)}
        self._before = b""

    def way(self, sample: Sample) -> Way:
        host, _, port = self.upstreams[sample.connection].partition(":")
        if sample.way == "connect":
            return Way(self.gateway.port, ("https", "presign.local", 443), "presign.local")
        if sample.way == "tls":
            return Way(self.gateway.port, ("https", "api.tls.test", self.parsers.tls_port), "api.tls.test")
        if sample.way == "tunnel":
            return Way(self.gateway.port, ("http", host, int(port)))
        if sample.way == "reverse":
            return Way(self.reverse.port, reverse=("http", "127.0.0.1", self.parsers.ports["h11"]))
        return Way(self.gateway.port)

    def try_h1(self, sample: Sample) -> None:
        """Send one sample and judge what came of it."""
        strays = self.parsers.take()
        assert not strays, f"after an earlier request: {strays}, which was {self._before!r}"
        self._before = sample.data
        found = read(sample.data)
        heads, clean = found.heads, found.is_clean
        talk = self.client.talk(sample.way, self.upstreams[sample.connection], sample.data, heads, clean)
        if not clean:
            time.sleep(0.003)
        grants = [self.verifier.grants(asked, self.way(sample), int(time.time())) for asked in found.requests]
        self.judge(talk, [grant for grant in grants if grant], clean)
        self.counts["requests"] += 1
        self.counts[f"way {sample.way}"] += 1

    def try_h2(self, sample: H2Sample) -> None:
        """One request over HTTP/2, on a connection of its own."""
        strays = self.parsers.take()
        assert not strays, f"after an earlier request: {strays}"
        tls = sample.host == "api.tls.test"
        port = self.parsers.tls_port if tls else 443
        with H2Client.through(self.gateway.port, sample.host, port) as client:
            reply = client.request(sample.fields, sample.body, timeout=5)
        assert reply.ended, "no answer"
        fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in sample.fields)
        asked = read_h2(fields, sample.body)
        # Of length 0, it may go out without a body before the body comes that makes it malformed.
        early = asked is None and (asked := read_h2(fields, b"")) is not None
        way = Way(self.gateway.port, ("https", sample.host, port), sample.host)
        grant = asked and self.verifier.grants(asked, way, int(time.time()))
        answers = []
        if reply.status is not None:
            head = "".join(f"\r\n{name}: {value}" for name, value in reply.headers) + "\r\n"
            answers = [Answered(reply.status, head.encode("latin-1"), reply.body)]
        self.judge(Talk(answers, reply.received), [grant] if grant else [], clean=not early)
        self.counts["requests"] += 1
        self.counts["way h2"] += 1

    def try_names(self, sample: NamesSample) -> None:
        """One request through a tunnel of its own."""
        port = self.parsers.tls_port if sample.dialled == "api.tls.test" else 443
        answered = None
        try:
            with connect_tls(self.gateway.port, sample.dialled, port, sample.sni) as sock:
                received = exchange(sock, sample.data)
                answered = parse_response(received, sample.data.startswith(b"HEAD "))
        except (ConnectRefused, ValueError, OSError):
            received = b""
        way = Way(self.gateway.port, ("https", sample.dialled, port), sample.sni)
        grants = [self.verifier.grants(asked, way, int(time.time())) for asked in read(sample.data).requests]
        answers = []
        if answered:
            head = "".join(f"\r\n{name}: {value}" for name, value in answered.headers) + "\r\n"
            answers = [Answered(answered.status, head.encode("latin-1"), answered.body)]
        self.judge(Talk(answers, received), [grant for grant in grants if grant], clean=True)
        self.counts["requests"] += 1
        self.counts["way names"] += 1

    def judge(self, talk: Talk, grants: list[Granted], clean: bool) -> None:
        """The oracle."""
        parsed = self.parsers.take()
        left = list(grants)
        for one in parsed:
            while left and not self.is_it(one, left[0]):
                left.pop(0)
            assert left, f"not granted, or not as it was granted:\n{one}\nof {grants}"
            self.check_fields(one, left.pop(0))
        forwarded = [answer for answer in talk.answers if answer.status == 200]
        refused = [answer for answer in talk.answers if answer.refused]
        self.counts["forwarded"] += len(parsed)
        self.counts["granted, not forwarded"] += max(0, len(grants) - len(parsed))
        self.counts["refused by the upstream"] += len(talk.answers) - len(forwarded) - len(refused)
        if clean:
            assert not talk.hung, f"no answer: {talk.raw!r}"
            # An upstream may close a connection on which it has parsed a request: then it is answered 502.
            lost = [answer for answer in refused if answer.status == 502]
            assert len(forwarded) <= len(parsed) <= len(forwarded) + len(lost)
        else:
            assert len(forwarded) <= len(parsed)
        check_received(talk.raw)
        self.check_readers(talk.answers)
        self.check_logs()

    def auth(self, grant: Granted) -> dict[str, Any]:
        """How the credential stands in what the upstream gets."""
        connection = self.connections[grant.connection]
        other = connection["upstreams"][grant.upstream] if grant.upstream else {}
        own: dict[str, Any] = {} if isinstance(other, str) else other.get("auth", {})
        return own or connection.get("auth", {})

    def is_it(self, one: Parsed, grant: Granted) -> bool:
        """Whether a parser read what the verifier granted."""
        auth = self.auth(grant)
        target = grant.target
        if auth.get("type") == "query":
            target += (b"&" if b"?" in target else b"?") + f"key={REAL}".encode()
        if auth.get("type") == "path":
            target = f"/bot{REAL}".encode() + target
        if one.parser == "uvicorn" and target.find(b"?") == len(target) - 1:
            target = target.removesuffix(b"?")  # ASGI cannot tell an empty query from none
        hosts = [value for name, value in one.fields if name.lower() == b"host"]
        return (one.method, one.target, one.body, hosts) == (
            grant.method,
            target,
            grant.body,
            [grant.host.encode()],
        )

    def check_fields(self, one: Parsed, grant: Granted) -> None:
        """One credential, nothing of ours, nothing that the client did not send."""
        auth = self.auth(grant)
        credential = {
            "bearer": ("authorization", f"Bearer {REAL}"),
            "basic": ("authorization", "Basic " + base64.b64encode(f"user:{REAL}".encode()).decode()),
            "header": ("x-api-key", REAL),
        }.get(auth.get("type", ""))
        fields = named(one.fields)
        assert [field for field in fields if field[0] in ("authorization", "x-api-key")] == [
            credential
        ] * bool(credential)
        assert str(one).count("REALSECRET") == (auth.get("type") in ("bearer", "header", "query", "path"))
        assert ("accept-encoding", "identity") in fields
        check_passed(fields, grant, one.body, (credential,) if credential else (), folded=one.folded)

    def check_readers(self, answers: list[Answered]) -> None:
        """Only the page that is listed reads anything, and only of the connection that lists it."""
        for answer in answers:
            readers = re.findall(rb"(?i)\r\naccess-control-allow-origin: *([^\r]*)", answer.head)
            assert readers in ([], [PAGE]), answer
            self.counts["readable answers"] += bool(readers)

    def check_logs(self) -> None:
        for path, at in self._logs.items():
            with path.open("rb") as log:
                log.seek(at)
                new = log.read()
            self._logs[path] = at + len(new)
            wrong = LOG_NEVER.search(new.decode("utf-8", "replace"))
            assert not wrong, new


def check_received(raw: bytes) -> None:
    """No answer holds the credential, in no form."""
    encoded = base64.b64encode(REAL.encode()).rstrip(b"=")[:-2]
    for form in (b"REALSECRET", REAL.encode().hex().encode(), encoded):
        assert form not in raw, raw


@pytest.fixture(scope="module")
def parsers(ca: trustme.CA) -> Iterator[Parsers]:
    started = Parsers(ca.issue_cert("api.tls.test")).start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def lab(parsers: Parsers, module_gateway: MakeGateway) -> Iterator[Lab]:
    lab = Lab(parsers, module_gateway)
    yield lab
    lab.client.close()
    if LONG:
        print("\n" + json.dumps(lab.counts), flush=True)


@pytest.mark.parametrize("name", Parsers.NAMES)
def test_every_parser_is_there(name: str, parsers: Parsers) -> None:
    if name in parsers.missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{name} is not installed")
    assert parsers.ports[name]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "size"), rounds(REQUESTS * 80 // 100))
def test_upstreams_parse_what_was_granted_and_nothing_else(number: int, size: int, lab: Lab) -> None:
    hunt(number, size, lab.samples.sample(), lab.try_h1, lab.counts)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "size"), rounds(REQUESTS * 15 // 100))
def test_the_same_over_http2(number: int, size: int, lab: Lab) -> None:
    hunt(number, size, h2_samples(lab.samples), lab.try_h2, lab.counts)


@pytest.mark.parametrize(("number", "size"), rounds(REQUESTS * 5 // 100))
def test_the_same_through_tunnels_under_other_names(number: int, size: int, lab: Lab) -> None:
    hunt(number, size, names_samples(lab.samples, lab.parsers.tls_port), lab.try_names, lab.counts)


def test_a_good_part_of_it_was_forwarded(lab: Lab) -> None:
    """Without this all of the above would hold for a gateway that is down."""
    assert lab.counts["forwarded"] > lab.counts["requests"] // 10
    assert lab.counts["granted, not forwarded"] < lab.counts["requests"] // 20
