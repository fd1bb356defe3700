"""Tokens in the course of time, for each grant: kept, renewed a minute early, and never used after their end.

The endpoint is real; only the clock is the test's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from presign_proxy.core.credentials import bearer
from presign_proxy.core.grants import GRANTS
from presign_proxy.core.oauth2 import MintedSecret, TokenRequest
from presign_proxy.errors import Denied
from presign_proxy.http.message import Origin
from presign_proxy.signing.secret import Secret
from support.deciding import connection, registry, request, sent, signed
from support.fetching import FetchLab, at_work
from support.private_keys import certificate, pem, rsa_key
from support.token_endpoint import Reply, TokenEndpoint, installation, token

HOUR = 3600
SIGNS = {"private_key": Secret(pem(rsa_key()))}
KINDS: dict[str, dict[str, Any]] = {
    "client_credentials": {"client_secret": Secret("s-0123456789")},
    "refresh_token": {"client_secret": Secret("s-0123456789"), "refresh_token": Secret("r-0123456789")},
    "jwt_bearer": SIGNS,
    "github_app": SIGNS,
    "assertion": SIGNS | {"client_auth": "assertion", "certificate": Secret(certificate(rsa_key()))},
}


class Lab(FetchLab):
    """A fetcher with a clock that stands still, and an endpoint that counts."""

    def __init__(self, kind: str, endpoint: TokenEndpoint) -> None:
        super().__init__()
        self.endpoint = endpoint
        grant: Any = "client_credentials" if kind == "assertion" else kind
        issue = installation if kind == "github_app" else token
        endpoint.reset()
        endpoint.answer = lambda _, number: issue(f"token-number-{number}", HOUR)
        asked = TokenRequest(
            Origin("http", "127.0.0.1", endpoint.port), b"/token", grant, Secret("me"), **KINDS[kind]
        )
        late = MintedSecret(asked, "mark")
        aws = connection(injector=bearer(late), late=(late,))
        self.forward = sent(request(signed()), registry(aws))

    async def token(self) -> str:
        return await self.token_of(self.forward)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[TokenEndpoint]:
    found = TokenEndpoint()
    yield found
    found.stop()


@pytest.fixture(params=KINDS)
def run(request: Any, endpoint: TokenEndpoint) -> Callable[[Callable[[Lab], Awaitable[None]]], None]:
    return lambda work: at_work(lambda: Lab(request.param, endpoint), work)


Run = Callable[[Callable[[Lab], Awaitable[None]]], None]


def test_a_token_is_renewed_from_a_minute_before_its_end_while_the_old_one_serves(run: Run) -> None:
    async def work(lab: Lab) -> None:
        assert await lab.token() == "token-number-1"
        lab.now += HOUR - 62  # an installation's end is in whole seconds of another clock
        assert await lab.token() == "token-number-1"
        await lab.settled()
        assert len(lab.endpoint.asked) == 1
        lab.now += 3
        assert await lab.token() == "token-number-1"
        await lab.settled()
        assert len(lab.endpoint.asked) == 2
        assert await lab.token() == "token-number-2"

    run(work)


def test_a_token_that_is_still_good_serves_to_its_end_while_renewals_fail(run: Run) -> None:
    async def work(lab: Lab) -> None:
        assert await lab.token() == "token-number-1"
        lab.endpoint.answer = lambda *_: Reply(500, b"")
        for left in (59, 40, 5, 2):
            lab.now = 1000.0 + HOUR - left
            assert await lab.token() == "token-number-1"
            await lab.settled()
        lab.now = 1000.0 + HOUR + 120
        with pytest.raises(Denied) as denied:
            await lab.token()
        assert denied.value.code == "upstream"

    run(work)


def test_one_flight_serves_all_that_wait_and_a_failure_is_not_asked_about_again_at_once(run: Run) -> None:
    async def work(lab: Lab) -> None:
        good = lab.endpoint.answer
        found = await asyncio.gather(*[lab.token() for _ in range(20)])
        assert set(found) == {"token-number-1"}
        assert len(lab.endpoint.asked) == 1
        lab.now += 2 * HOUR
        lab.endpoint.answer = lambda *_: Reply(503, b"")
        failed = await asyncio.gather(*[lab.token() for _ in range(20)], return_exceptions=True)
        assert all(isinstance(one, Denied) for one in failed)
        assert len(lab.endpoint.asked) == 2
        with pytest.raises(Denied):
            await lab.token()
        assert len(lab.endpoint.asked) == 2
        lab.endpoint.answer = good
        lab.now += 1.01
        assert await lab.token() == "token-number-3"

    run(work)


def test_every_grant_of_the_table_is_tried_here() -> None:
    assert GRANTS.keys() <= KINDS.keys()
