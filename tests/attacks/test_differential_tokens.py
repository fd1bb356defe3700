"""An API is asked only with the very token that an endpoint has issued, in a good answer.

Each first request of a connection needs a token, and gets an answer of a token endpoint, mostly a bent one.
An independent reader says whether the answer issues a token. A few run with the other tests; many more with

    make hostile
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from support.asking import SECRET, Grant, ask, code
from support.gateways import MakeGateway
from support.hunting import LONG, REQUESTS, hunt, rounds
from support.lab import REAL_SECRET, bearer_connection
from support.lanes import WAYS
from support.leaks import Traces
from support.private_keys import pem, rsa_key
from support.proxy import Mitm
from support.raw import Response
from support.raw_endpoint import RawEndpoint
from support.recorder import Recorder
from support.token_answers import TokenSample, token_answers
from support.token_reader import issued

CLIENT_SECRET = "cl1ent-s3cret-R3AL-0123456789"
SHARE = len(WAYS) * 40
"""Of forty requests of `make hostile`, one needs a token."""
SIZE = max(40, REQUESTS // SHARE)
MINTS = {"oauth2": min(SIZE, 250), "github_app": min(SIZE, 250) // 5, "registry": min(SIZE, 250) // 5}
"""Connections of one gateway, by grant; each has one answer. After them there is another gateway."""


class Lab:
    """A token endpoint, an API, the gateway between them, and the judge of what passes."""

    def __init__(self, make: MakeGateway, options: tuple[str, ...], api: Recorder) -> None:
        self.endpoint, self.api = RawEndpoint(), api
        self.counts: Counter[str] = Counter()
        self._make, self._options = make, options
        self._gateway: Mitm | None = None
        self._fresh: dict[str, Iterator[int]] = {}
        self._number = 0

    def _connections(self) -> dict[str, Any]:
        types: dict[str, dict[str, str]] = {
            "oauth2": {"type": "oauth2", "client_secret": CLIENT_SECRET},
            "github_app": {"type": "oauth2", "grant": "github_app", "private_key": pem(rsa_key())},
            "registry": {"type": "registry_token", "username": "user", "password": CLIENT_SECRET},
        }
        found: dict[str, Any] = {"conn_plain": bearer_connection(self.api.url, SECRET)}
        for grant, auth in types.items():
            known_as = "service" if grant == "registry" else "client_id"
            for number in range(MINTS[grant]):
                own = auth | {"token_url": self.endpoint.url, known_as: f"client-{number}"}
                entry = {"upstream": self.api.url, "auth": own, "signing_keys": [{"secret": SECRET}]}
                found[f"conn_{grant}_{number}"] = entry
        return found

    def _fresh_connection(self, grant: str) -> tuple[Mitm, str]:
        """One whose token nobody has asked for yet."""
        number = next(self._fresh.get(grant, iter(())), None)
        if self._gateway is None or number is None:
            self.stop_gateway()
            config = {"gateway": {"hosts": ["presign.local"]}, "connections": self._connections()}
            dns = {"evil.test": [f"127.0.0.1#{self.api.port}"]}
            self._gateway = self._make(config, *self._options, dns=dns)
            self._fresh = {one: iter(range(count)) for one, count in MINTS.items()}
            number = next(self._fresh[grant])
        return self._gateway, f"conn_{grant}_{number}"

    def stop_gateway(self) -> None:
        """Stop it, and look through its log: also the answers that were good are in none."""
        if self._gateway is None:
            return
        self._gateway.stop()
        log = self._gateway.log()
        assert not TRACES.found_in(log.encode())
        for never in ("_R3AL", "X-Injected", "PRIVATE KEY", "Traceback", "has crashed"):
            assert never not in log, log

    def try_answer(self, drawn: TokenSample) -> None:
        """Have an endpoint answer with one sample, and judge what came of it."""
        self._number += 1
        sample = drawn.numbered(self._number)
        gateway, name = self._fresh_connection(sample.grant)
        self.endpoint.answer = sample
        answer = ask(gateway.port, Grant(name).target("v2/x/blobs/y"))
        token, why = issued(sample.grant, sample.data)
        (requests, fragments), asked = self.api.take(), self.endpoint.take()
        assert not fragments, fragments
        self.counts["mints"] += 1
        if requests:
            assert token, f"a token where there is none ({why}): {requests}"
            (seen,) = requests
            assert seen.all("authorization") == [f"Bearer {token}"], seen
            assert answer.status == 200, answer
            self.counts["minted"] += 1
        else:
            refused = (403,) if sample.grant == "registry" else ()
            assert code(answer) in [(status, "upstream") for status in (502, 504, *refused)], answer
            self.counts["good answers, not taken" if token else f"not minted: {why}"] += 1
        self._check_said(answer, token)
        self._check_asked(sample, int(name.rpartition("_")[2]), asked)
        assert ask(gateway.port, Grant("conn_plain").target("next")).status == 200
        ((seen,), _) = self.api.take()
        assert seen.all("authorization") == [f"Bearer {REAL_SECRET}"]

    def _check_said(self, answer: Response, token: str) -> None:
        whole = answer.body + str(answer.headers).encode()
        assert not TRACES.found_in(whole), whole
        assert not token or token.encode() not in whole, whole
        assert b"_R3AL" not in whole, whole

    def _check_asked(self, sample: TokenSample, number: int, connections: list[bytes]) -> None:
        """Nobody was asked twice: neither another place, nor the same one on the same connection."""
        (asked,) = connections
        if sample.is_early:  # it may have closed before all of the request was there
            return
        target = b"POST /token"
        if sample.grant == "registry":
            target = b"GET /token?service=client-%d&scope=repository%%3Ax%%3Apull%%2Cpush" % number
        assert asked.startswith(target + b" HTTP/1.1\r\n"), asked
        assert asked.count(b" HTTP/1.1\r\n") == 1, asked
        pair = re.findall(rb"(?i)\r\nauthorization: Basic ([^\r]+)\r\n", asked)
        if sample.grant != "github_app":
            assert [base64.b64decode(one).partition(b":")[2] for one in pair] == [CLIENT_SECRET.encode()]


TRACES = Traces([CLIENT_SECRET, REAL_SECRET, SECRET])


@pytest.fixture(scope="module", params=list(WAYS))
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway, upstream: Recorder) -> Iterator[Lab]:
    lab = Lab(module_gateway, WAYS[request.param], upstream)
    yield lab
    lab.endpoint.stop()
    lab.stop_gateway()
    if LONG:
        print("\n" + json.dumps(lab.counts), flush=True)


@pytest.mark.parametrize(("number", "size"), rounds(SIZE))
def test_an_api_is_asked_only_with_a_token_that_was_issued(number: int, size: int, lab: Lab) -> None:
    hunt(number, size, token_answers(), lab.try_answer, lab.counts)


def test_a_good_part_of_them_was_minted(lab: Lab) -> None:
    assert lab.counts["minted"] > lab.counts["mints"] // 10
    # A reset may come first, and a head may be larger than that of any endpoint.
    assert lab.counts["good answers, not taken"] < max(8, lab.counts["mints"] // 8)
