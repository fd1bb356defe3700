"""An upstream of AWS gets only what was granted, signed by the gateway over the very bytes that arrive.

Requests, most of them bent, go through a real gateway on both paths to connections that sign for AWS. An
independent verifier says what is granted; another one, written from AWS's documentation, checks what arrived.
A few run with the other tests; many more with

    make hostile
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import trustme

from support.aws_arrivals import arrived, check_asked, check_signed, is_it, scopes
from support.aws_requests import MOST, aws_h2_requests, aws_requests
from support.conversing import Answered, Conversations, Talk
from support.gateways import MakeGateway
from support.h2client import H2Client
from support.hunting import LONG, REQUESTS, hunt, rounds
from support.lanes import WAYS
from support.leaks import Traces
from support.mutations import H2Sample, Sample, Samples
from support.recorder import Recorder
from support.seen import Seen
from support.verifier import Asked, Granted, Verifier, Way, first, read, read_h2

SIGNING = "sk_differential_signing_secret_0123456789"
KEY_ID, KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TOKEN = "IQoJb3JpZ2luX2VjR3ALsession//////////wEaCXVzLWVhc3QtMSJH=="
AUTHS: dict[str, dict[str, Any]] = {
    "conn_bedrock": {"service": "bedrock", "session_token": TOKEN},
    "conn_minio": {"service": "s3"},
    "conn_trusting": {"service": "dynamodb", "client_scope": True},
    "conn_bucket": {"service": "s3", "session_token": TOKEN},
}
BUCKET = "conn_bucket"
"""Over TLS, where uploads to S3 stream."""
SHARE = len(WAYS) * 20
"""Of twenty requests of `make hostile`, one is to be signed for AWS."""


class Expected(NamedTuple):
    """What may arrive of one sample: the whole requests that are granted, and the head of a broken one."""

    sample: Sample | H2Sample | None = None
    granted: tuple[tuple[Asked, Granted], ...] = ()
    begun: tuple[tuple[Asked, Granted], ...] = ()


class Lab:
    """One gateway, an upstream for each connection, and the judge of what passes between them."""

    def __init__(self, make: MakeGateway, options: tuple[str, ...], ca: trustme.CA) -> None:
        self.recorders = {name: Recorder().start() for name in AUTHS if name != BUCKET}
        self.recorders[BUCKET] = Recorder(ca.issue_cert("api.tls.test")).start()
        ports = {name: recorder.tls_port or recorder.port for name, recorder in self.recorders.items()}
        self._at = {name: f"{_host(name)}:{port}" for name, port in ports.items()}
        key = {"type": "aws_sigv4", "access_key_id": KEY_ID, "secret_access_key": KEY, "max_body": MOST}
        connections = {
            name: {
                "upstream": f"{'https' if name == BUCKET else 'http'}://{self._at[name]}",
                "auth": key | {"region": "eu-west-1"} | auth,
                "signing_keys": [{"secret": SIGNING}],
            }
            for name, auth in AUTHS.items()
        }
        config = {
            "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
            "connections": connections,
        }
        trap = [f"127.0.0.1#{ports['conn_bedrock']}"]
        names = {"api.tls.test": ["127.0.0.1"], "evil.test": trap, "presign.local": trap}
        self.gateway = make(config, *options, dns=names)
        self.verifier = Verifier(config)
        self.samples = Samples(config, self._at, SIGNING, int(time.time()))
        self.client = Conversations(self.gateway, self.gateway, 0)
        self.counts: Counter[str] = Counter()
        self._before = Expected()

    def stop(self) -> None:
        self.client.close()
        for recorder in self.recorders.values():
            recorder.stop()

    def try_request(self, sample: Sample) -> None:
        """Send one sample and judge what came of it."""
        self._judge(self._before)  # an upload that was cut off may arrive late
        found = read(sample.data)
        heads, clean = found.heads, found.is_clean
        talk = self.client.talk(sample.way, self._at[sample.connection], sample.data, heads, clean)
        if not clean:
            time.sleep(0.003)
        way = self._way(sample)
        expected = Expected(sample, self._granted(found.requests, way), self._granted(_head(found.left), way))
        self._conclude(expected, talk, clean)

    def try_h2(self, sample: H2Sample) -> None:
        """The same over HTTP/2, on a connection of its own."""
        self._judge(self._before)
        with H2Client.through(self.gateway.port, sample.host) as client:
            reply = client.request(sample.fields, sample.body, timeout=5)
        assert reply.ended, "no answer"
        fields = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in sample.fields)
        asked, head = read_h2(fields, sample.body), read_h2(fields, b"")
        way = Way(self.gateway.port, ("https", sample.host, 443), sample.host)
        # Of length 0, it may go out without a body before the body comes that makes it malformed.
        granted = self._granted([one for one in (asked or head,) if one], way)
        answers = []
        if reply.status is not None:
            lines = "".join(f"\r\n{name}: {value}" for name, value in reply.headers) + "\r\n"
            answers = [Answered(reply.status, lines.encode("latin-1"), reply.body)]
        begun = self._granted([head] if head else [], way)
        self._conclude(
            Expected(sample, granted, begun), Talk(answers, reply.received), clean=asked is not None
        )

    def _conclude(self, expected: Expected, talk: Talk, clean: bool) -> None:
        self._before = expected._replace(granted=())
        count = self._judge(expected)
        self._judge_answers(talk, count, clean)
        self.counts["requests for AWS"] += 1
        self.counts["forwarded, signed"] += count
        self.counts["granted, not forwarded, not signed"] += max(0, len(expected.granted) - count)

    def _way(self, sample: Sample) -> Way:
        if sample.way == "connect":
            return Way(self.gateway.port, ("https", "presign.local", 443), "presign.local")
        if sample.way == "tunnel":
            host, _, port = self._at[sample.connection].partition(":")
            return Way(self.gateway.port, ("http", host, int(port)))
        return Way(self.gateway.port)

    def _granted(self, requests: list[Asked], way: Way) -> tuple[tuple[Asked, Granted], ...]:
        now = int(time.time())
        found = [(asked, self.verifier.grants(asked, way, now)) for asked in requests]
        return tuple((asked, grant) for asked, grant in found if grant)

    def _judge(self, expected: Expected) -> int:
        """Hold all that arrived against what may have. Return how many whole requests that was."""
        count, left = 0, list(expected.granted)
        for name, recorder in self.recorders.items():
            requests, fragments = recorder.take()
            assert not fragments, f"no request: {fragments}, after {expected.sample}"
            for seen in requests:
                self._check(name, seen, left if seen.complete else list(expected.begun))
                count += seen.complete
        return count

    def _check(self, name: str, seen: Seen, left: list[tuple[Asked, Granted]]) -> None:
        sent = arrived(seen)
        if not seen.complete:
            assert name == BUCKET, f"sent before its body was there: {seen}"
            framed = [field for field in sent.fields if field[0].lower() != "content-length"]
            sent = sent._replace(body=b"", fields=framed)
        while left and not is_it(sent, left[0][1]):
            left.pop(0)
        assert left, f"not granted, or not as it was granted:\n{seen}"
        asked, grant = left.pop(0)
        assert grant.connection == name, f"of another connection:\n{seen}"
        auth = self.samples.connections[name]["auth"]
        check_signed(sent, auth, scopes(auth, asked), https=name == BUCKET)
        check_asked(sent, auth, grant)

    def _judge_answers(self, talk: Talk, arrived: int, clean: bool) -> None:
        good = [answer for answer in talk.answers if answer.status == 200]
        assert len(good) <= arrived, talk.answers
        for answer in talk.answers:
            assert answer.status == 200 or (answer.refused and answer.status < 500), answer
            self.counts[f"answered {answer.status}"] += 1
        if clean:
            assert not talk.hung, f"no answer: {talk.raw!r}"
            assert len(good) == arrived, talk.answers
        assert not TRACES.found_in(talk.raw)


TRACES = Traces([KEY, TOKEN, SIGNING])


def _host(name: str) -> str:
    return "api.tls.test" if name == BUCKET else "127.0.0.1"


def _head(broken: bytes) -> list[Asked]:
    """The request that a broken one would be without a body: its head is all that may have been sent."""
    lines = broken.replace(b"\r\n", b"\n").partition(b"\n\n")[0].split(b"\n")
    kept = [line for line in lines if not line.lower().startswith((b"content-length", b"transfer-encoding"))]
    found = first(b"\r\n".join([*kept, b"", b""]))
    return [found] if found else []


@pytest.fixture(scope="module", params=list(WAYS))
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway, ca: trustme.CA) -> Iterator[Lab]:
    lab = Lab(module_gateway, WAYS[request.param], ca)
    yield lab
    lab.stop()
    log = lab.gateway.log()
    assert not TRACES.found_in(log.encode())
    assert "Traceback" not in log
    assert "has crashed" not in log
    if LONG:
        print("\n" + json.dumps(lab.counts), flush=True)


@pytest.mark.parametrize(("number", "size"), rounds(max(60, REQUESTS // SHARE * 4 // 5)))
def test_what_arrives_was_granted_and_is_signed_as_it_arrives(number: int, size: int, lab: Lab) -> None:
    hunt(number, size, aws_requests(lab.samples, BUCKET), lab.try_request, lab.counts)


@pytest.mark.parametrize(("number", "size"), rounds(max(30, REQUESTS // SHARE // 5)))
def test_the_same_over_http2(number: int, size: int, lab: Lab) -> None:
    hunt(number, size, aws_h2_requests(lab.samples), lab.try_h2, lab.counts)


def test_a_good_part_of_them_was_forwarded(lab: Lab) -> None:
    assert lab.counts["forwarded, signed"] > lab.counts["requests for AWS"] // 10
