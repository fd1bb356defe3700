"""Tokens of a registry in the course of time: one for each scope, a bounded number, one pause for failures.

The token service is real; only the clock is the test's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from presign_proxy.core.credentials import bearer
from presign_proxy.core.decision import Forward
from presign_proxy.core.oauth2 import MintedSecret
from presign_proxy.core.registry_token import RegistryTokenRequest
from presign_proxy.errors import Denied
from presign_proxy.gateway.credential_fetch import MAX_SCOPES
from presign_proxy.signing.secret import Secret
from presign_proxy.signing.source_url import parse_url
from support.container_registry import PASSWORD, SERVICE, USER, Registry, Reply, running
from support.deciding import NOW, connection, registry, request, sent, signed
from support.fetching import FetchLab, at_work


class Lab(FetchLab):
    """A fetcher with a clock that stands still."""

    def __init__(self, there: Registry) -> None:
        super().__init__()
        self.there = there
        there.reset()

    def granted(self, name: str, holder: int = 0) -> Forward:
        """Args: holder: each has a presign of their own."""
        url = parse_url(f"{self.there.service.url}/token")
        asked = RegistryTokenRequest(url.origin, url.target, SERVICE, Secret(USER), Secret(PASSWORD))
        late = MintedSecret(asked, "mark")
        known = connection(injector=bearer(late), late=(late,))
        return sent(
            request(signed(f"v2/{name}/manifests/1", paths="*", expires=NOW + holder)), registry(known)
        )

    async def token(self, name: str, holder: int = 0) -> str:
        return await self.token_of(self.granted(name, holder))

    async def status(self, name: str, holder: int = 0) -> int | None:
        with pytest.raises(Denied) as denied:
            await self.token(name, holder)
        assert denied.value.code == "upstream"
        return denied.value.status

    @property
    def count(self) -> int:
        return len(self.there.service.asked)


@pytest.fixture(scope="module")
def there() -> Iterator[Registry]:
    with running() as found:
        yield found


@pytest.fixture
def run(there: Registry) -> Callable[[Callable[[Lab], Awaitable[None]]], None]:
    return lambda work: at_work(lambda: Lab(there), work)


Run = Callable[[Callable[[Lab], Awaitable[None]]], None]


def refusing(lab: Lab, status: int, *names: str) -> None:
    """Have the service refuse these repositories, or all of them."""
    usual = lab.there._service

    def answer(asked: object, body: bytes) -> Reply:
        refused = not names or any(f":{name}:" in asked.query["scope"][0] for name in names)  # type: ignore[attr-defined]
        return Reply(status) if refused else usual(asked, body)  # type: ignore[arg-type]

    lab.there.service.answer = answer


def test_each_repository_has_a_token_of_its_own_that_is_renewed_early(run: Run) -> None:
    async def work(lab: Lab) -> None:
        lab.there.lifetime = 300
        one, other = await lab.token("a"), await lab.token("b")
        assert one != other
        lab.now += 200
        assert [await lab.token("a"), await lab.token("b")] == [one, other]
        assert lab.count == 2
        lab.now += 60  # less than a minute is left
        assert await lab.token("a") == one
        await lab.settled()
        assert lab.count == 3
        assert await lab.token("a") not in (one, other)
        assert lab.there.tokens[await lab.token("b")][0] == {"repository:b:pull"}

    run(work)


def test_a_holder_who_asks_for_any_number_of_repositories_fills_no_memory(run: Run) -> None:
    async def work(lab: Lab) -> None:
        kept = await lab.token("kept")
        for number in range(MAX_SCOPES + 20):
            await lab.token(f"r{number}")
            assert await lab.token("kept") == kept  # what is in use stays
        assert len(lab.fetcher._kept) <= MAX_SCOPES + 1
        assert len(lab.fetcher._scopes["registry_token", "mark"]) == MAX_SCOPES
        before = lab.count
        await lab.token("r0")
        assert lab.count == before + 1

    run(work)


def test_names_that_the_service_refuses_fill_no_memory_either(run: Run) -> None:
    async def work(lab: Lab) -> None:
        refusing(lab, 403)
        for number in range(MAX_SCOPES + 20):
            assert await lab.status(f"r{number}") == 403
        assert len(lab.fetcher._kept) <= MAX_SCOPES + 1

    run(work)


@pytest.mark.parametrize(("status", "told"), [(400, None), (401, None), (403, 403), (404, 403)])
def test_what_is_refused_for_one_repository_holds_for_no_other(
    run: Run, status: int, told: int | None
) -> None:
    async def work(lab: Lab) -> None:
        refusing(lab, status, "theirs")
        for _ in range(3):
            assert await lab.status("theirs") == told
            await lab.token("mine")
        assert lab.count == 2
        lab.now += 1.01
        assert await lab.status("theirs") == told
        assert lab.count == 3
        refusing(lab, status, "nobodys")
        lab.now += 2.01
        await lab.token("theirs")

    run(work)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_service_that_is_down_is_asked_for_one_repository_at_a_time(run: Run, status: int) -> None:
    async def work(lab: Lab) -> None:
        good = await lab.token("known")
        refusing(lab, status)
        for name in ("a", "b", "c"):
            assert await lab.status(name) is None
        assert lab.count == 2
        assert await lab.token("known") == good  # what is still good serves
        lab.now += 1.01
        assert await lab.status("b") is None
        assert lab.count == 3
        lab.there.service.answer = lab.there._service
        lab.now += 2.01
        await lab.token("c")
        await lab.token("a")
        refusing(lab, status)
        assert await lab.status("d") is None
        lab.now += 1.01  # the pauses begin anew
        lab.there.service.answer = lab.there._service
        await lab.token("d")

    run(work)


def test_a_holder_whose_names_the_service_fails_at_makes_no_other_holder_wait(run: Run) -> None:
    async def work(lab: Lab) -> None:
        refusing(lab, 500, *[f"odd{number}" for number in range(200)])
        for number in range(100):
            assert await lab.status(f"odd{number}", holder=1) is None
            if number % 10 == 0:
                await lab.token(f"mine{number}", holder=2)
            lab.now += 0.5
        odd = [one for one in lab.there.scopes if ":odd" in one]
        assert len(odd) == 6  # after 1, 2, 4, 8 and 16 seconds, whatever others have succeeded with meanwhile
        lab.now += 60
        await lab.token("mine", holder=1)
        assert await lab.status("odd150", holder=1) is None

    run(work)


def test_a_service_that_fails_for_many_holders_is_asked_by_few_of_them(run: Run) -> None:
    async def work(lab: Lab) -> None:
        refusing(lab, 503)
        for holder in range(400):
            assert await lab.status("a", holder) is None
        assert lab.count == 8
        lab.now += 1.01
        for holder in range(400):
            assert await lab.status(f"b{holder}", holder) is None
        assert lab.count == 8 + 9  # the eight again, and one more
        lab.there.service.answer = lab.there._service
        lab.now += 2.01
        for holder in range(400):
            await lab.token("c", holder)
        assert len(lab.fetcher._kept["registry_token", "mark"].blamed) <= 8

    run(work)


def test_a_token_without_a_lifetime_is_used_for_a_minute(run: Run) -> None:
    async def work(lab: Lab) -> None:
        lab.there.service.answer = lambda asked, body: lab.there.issued(f"t{lab.count}", expires_in=None)
        assert await lab.token("a") == "t1"
        lab.now += 61
        assert await lab.token("a") == "t2"

    run(work)


def test_a_reload_forgets_all_tokens(run: Run) -> None:
    async def work(lab: Lab) -> None:
        one = await lab.token("a")
        lab.fetcher.forget(Path())
        assert not lab.fetcher._scopes
        assert await lab.token("a") != one

    run(work)
