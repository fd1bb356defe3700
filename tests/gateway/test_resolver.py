"""The resolver itself: how many threads it takes, whom they count for, and what it makes of an answer."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import uvloop

from presign_proxy.config.threads import Threads
from presign_proxy.gateway import resolver
from presign_proxy.gateway.outward import Outward, announce
from presign_proxy.gateway.resolver import (
    MAX_KEPT,
    MAX_WAITING,
    SOURCES,
    SOURCES_OF_CLIENT,
    SOURCES_OF_CONNECTION,
    Resolver,
    TooManyLookups,
)
from support.byhand import ByHand

RUNNERS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class Names:
    """`socket.getaddrinfo`, in which a name below `hang` blocks its thread until it is released."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()
        self.answers: dict[str, list[str]] = {}

    def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked.append(host)
        if host.endswith(".hang"):
            assert self.released.wait(30)
        if host.endswith(".none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (address, port)) for address in self.answers.get(host, ["93.184.216.34"])]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    found = Names()
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.released.set()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def waiting(known: Resolver, host: str, connection: str, client: str) -> asyncio.Task[Any]:
    return asyncio.ensure_future(known.source(host, 443, connection, client))


async def settle(known: Resolver, under_way: int) -> None:
    while known.figures()["presign_source_lookups"] != [[[], under_way]]:  # noqa: ASYNC110 - a thread ends it
        await asyncio.sleep(0.001)


def test_two_hundred_requests_for_one_name_take_one_thread(names: Names) -> None:
    async def work() -> None:
        known = Resolver()
        tasks = [waiting(known, "a.hang", f"pk_{n}", f"client {n}") for n in range(200)]
        await asyncio.sleep(0)
        names.released.set()
        assert set(await asyncio.gather(*tasks)) == {(("93.184.216.34", 443),)}
        assert names.asked == ["a.hang"]

    asyncio.run(work())


def test_a_client_that_hangs_up_and_comes_again_gets_no_further_threads(names: Names) -> None:
    async def work() -> None:
        known = Resolver()
        for number in range(SOURCES_OF_CLIENT):
            task = waiting(known, f"{number}.hang", f"pk_{number}", "greedy")
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(TooManyLookups):
            await known.source("one-more.hang", 443, "pk_other", "greedy")
        assert await known.source("good.test", 443, "pk_0", "another")
        names.released.set()
        await settle(known, 0)
        assert await known.source("good.example", 443, "pk_0", "greedy")

    asyncio.run(work())


def test_as_many_threads_as_there_may_be_and_no_more(names: Names) -> None:
    async def work() -> None:
        known, before = Resolver(), threading.active_count()
        tasks = [
            waiting(known, f"{number}.hang", f"pk_{number // SOURCES_OF_CONNECTION}", f"client {number}")
            for number in range(SOURCES + 50)
        ]
        await settle(known, SOURCES)
        assert threading.active_count() - before == SOURCES
        refused = [task for task in tasks if task.done()]
        assert len(refused) == 50
        assert all(isinstance(task.exception(), TooManyLookups) for task in refused)
        assert known.figures()["presign_source_lookups_refused_total"] == [[[], 50]]
        # Nor do they stand in the way of other kinds of names.
        assert await known.configured("api.test", 443)
        assert await known.unsigned("www.test", 443)
        names.released.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        await settle(known, 0)
        known.close()

    asyncio.run(work())


def test_a_name_whose_thread_hangs_beyond_the_deadline_is_refused_at_once(names: Names) -> None:
    async def work() -> None:
        clock = Clock()
        known = Resolver(clock)
        first = waiting(known, "a.hang", "pk", "client")
        await settle(known, 1)
        clock.now += resolver.RESOLVE_TIMEOUT
        with pytest.raises(TimeoutError):
            await known.source("a.hang", 443, "pk", "client")
        names.released.set()
        assert await first
        assert await known.source("a.hang", 443, "pk", "client")
        assert names.asked == ["a.hang"]

    asyncio.run(work())


@pytest.mark.parametrize("host", ["a.none", "a.test"])
def test_an_answer_is_kept_for_two_seconds(names: Names, host: str) -> None:
    async def work() -> None:
        clock = Clock()
        known = Resolver(clock)

        async def ask() -> str:
            try:
                return (await known.source(host, 80, "pk", "client"))[0][0]
            except socket.gaierror as error:
                return str(error.strerror)

        first = await ask()
        names.answers[host] = ["127.0.0.1"]
        clock.now += resolver.KEEP - 0.1
        assert await ask() == first
        assert len(names.asked) == 1
        clock.now += 0.1
        assert await ask() == (first if host == "a.none" else "127.0.0.1")
        assert len(names.asked) == 2

    asyncio.run(work())


def test_answers_for_ever_new_names_do_not_pile_up(names: Names) -> None:
    async def work() -> None:
        known = Resolver()
        for number in range(MAX_KEPT + 10):
            await known.source(f"{number}.test", 80, "pk", "client")
        assert len(known._sources._kept) == MAX_KEPT
        assert not known._sources._flights
        assert not known._shares

    asyncio.run(work())


def test_unsigned_names_that_wait_for_a_thread_do_not_pile_up(names: Names) -> None:
    async def work() -> None:
        known, before = Resolver(), threading.active_count()
        tasks = [asyncio.ensure_future(known.unsigned(f"{n}.hang", 80)) for n in range(MAX_WAITING + 5)]
        await asyncio.sleep(0.1)
        assert threading.active_count() - before == resolver.OTHERS
        assert [isinstance(task.exception(), TooManyLookups) for task in tasks if task.done()] == [True] * 5
        names.released.set()
        assert len(await asyncio.gather(*tasks, return_exceptions=True)) == MAX_WAITING + 5

    asyncio.run(work())


def test_a_name_that_no_resolver_takes_is_an_error_like_others(names: Names, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise UnicodeError("label too long")

    async def work() -> None:
        with pytest.raises(OSError):
            await Resolver().unsigned("a" * 70, 80)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    asyncio.run(work())


def test_without_a_thread_to_be_had_a_request_fails_and_the_next_is_served(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        known = Resolver()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_left)
            with pytest.raises(OSError):
                await known.source("a.test", 80, "pk", "client")
        assert not known._shares
        assert await known.source("a.test", 80, "pk", "client")

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asyncio.run(work())


# -- dialling -----------------------------------------------------------------------------------------


def with_upstream(run: Callable[[Any], Any], work: Callable[[ByHand], Awaitable[None]]) -> None:
    hand = ByHand()
    try:
        run(work(hand))
    finally:
        hand.stop()


@RUNNERS
def test_all_that_an_event_loop_connects_to_is_looked_up_here(names: Names, run: Any) -> None:
    """Its own executor is full of something that hangs; what is dialled first refuses."""
    names.answers["api.test"] = ["127.0.0.2", "127.0.0.1"]

    async def work(hand: ByHand) -> None:
        loop, known = asyncio.get_running_loop(), Resolver()
        loop.set_default_executor(full := ThreadPoolExecutor(1))
        full.submit(names.released.wait, 30)
        known.take_over(loop)
        _, writer = await asyncio.open_connection("api.test", hand.port)
        assert writer.get_extra_info("peername") == ("127.0.0.1", hand.port)
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("api.none", hand.port)
        names.released.set()

    with_upstream(run, work)
    assert names.asked == ["api.test", "api.none"]


@RUNNERS
@pytest.mark.parametrize("error", [RuntimeError("odd"), ValueError("odd"), MemoryError()])
def test_whatever_fails_while_a_connection_is_made_is_an_error_that_mitmproxy_hears_of(
    names: Names, run: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It hears of an OSError alone: at any other its client waited for ever."""

    def fail(host: str) -> bool:
        raise error

    async def work(hand: ByHand) -> None:
        Resolver().take_over(asyncio.get_running_loop())
        monkeypatch.setattr(resolver, "_is_address", fail)
        with pytest.raises(OSError, match=type(error).__name__):
            await asyncio.open_connection("127.0.0.1", hand.port)

    with_upstream(run, work)


@RUNNERS
def test_a_name_that_an_unsigned_request_has_chosen_is_not_among_the_configured(
    names: Names, run: Any
) -> None:
    names.answers["api.test"] = ["127.0.0.1"]

    async def work(hand: ByHand) -> None:
        known = Resolver()
        known.take_over(asyncio.get_running_loop())
        announce(Outward("1.hang", 80, unsigned=True))
        connecting = asyncio.ensure_future(asyncio.open_connection("1.hang", 80))
        await asyncio.sleep(0.05)
        assert (len(known._unsigned), len(known._configured)) == (1, 0)
        connecting.cancel()
        _, writer = await asyncio.open_connection("api.test", hand.port)
        writer.close()
        names.released.set()

    with_upstream(run, work)


@pytest.mark.parametrize("named", [None, "other.test"])
def test_the_certificate_is_held_against_the_name_that_was_asked_for(
    names: Names, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not against the address that was found, nor instead of a name that was given."""
    names.answers["api.test"] = ["127.0.0.1"]
    asked: list[tuple[Any, ...]] = []

    async def work() -> None:
        loop, known = asyncio.get_running_loop(), Resolver()

        async def connect(_: Any, host: Any, port: Any, **more: Any) -> Any:
            asked.append((host, port, more.get("server_hostname")))

        monkeypatch.setattr(loop, "create_connection", connect)
        known.take_over(loop)
        given = {"server_hostname": named} if named else {}
        await loop.create_connection(asyncio.Protocol, "api.test", 443, ssl=True, **given)
        await loop.create_connection(asyncio.Protocol, "api.test", 80)
        known.close()

    asyncio.run(work())
    assert asked == [("127.0.0.1", 443, named or "api.test"), ("127.0.0.1", 80, None)]


def test_what_is_no_name_and_port_is_left_to_the_loop(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, Any]] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()

        async def connect(_: Any, host: Any, port: Any, **more: Any) -> Any:
            asked.append((host, port))

        monkeypatch.setattr(loop, "create_connection", connect)
        Resolver().take_over(loop)
        for host, port in ((None, None), (None, 80), ("api.test", None), ("api.test", "http"), (b"x", 80)):
            await loop.create_connection(asyncio.Protocol, host, port)
        await loop.create_connection(asyncio.Protocol, "127.0.0.1", 80)

    asyncio.run(work())
    assert asked == [
        (None, None),
        (None, 80),
        ("api.test", None),
        ("api.test", "http"),
        (b"x", 80),
        ("127.0.0.1", 80),
    ]
    assert names.asked == []


@pytest.mark.parametrize("kind", ["configured", "unsigned"])
def test_all_who_wait_for_a_configured_name_wait_for_one_look_up(names: Names, kind: str) -> None:
    async def work() -> None:
        known = Resolver()
        tasks = [asyncio.ensure_future(getattr(known, kind)("a.hang", 80)) for _ in range(20)]
        await asyncio.sleep(0.01)
        names.released.set()
        assert len(set(await asyncio.gather(*tasks))) == 1
        known.close()

    asyncio.run(work())
    assert names.asked == ["a.hang"]


@pytest.mark.parametrize("late", [0.0, 0.001])
def test_at_its_deadline_a_name_that_hangs_is_not_waited_for_again(names: Names, late: float) -> None:
    async def work() -> None:
        clock = Clock()
        known = Resolver(clock)
        first = waiting(known, "a.hang", "pk", "client")
        await settle(known, 1)
        clock.now += resolver.RESOLVE_TIMEOUT + late
        with pytest.raises(TimeoutError, match="not found in time"):
            await known.source("a.hang", 443, "pk", "client")
        clock.now -= late + 0.5
        second = waiting(known, "a.hang", "pk", "client")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not second.done(), "half a second is left"
        names.released.set()
        assert await first == await second
        known.close()

    asyncio.run(work())


def test_a_resolver_that_is_closed_ends_all_waiting_and_its_threads(names: Names) -> None:
    async def work() -> None:
        known = Resolver()
        tasks = [
            waiting(known, "a.hang", "pk", "client"),
            asyncio.ensure_future(known.configured("b.hang", 80)),
            asyncio.ensure_future(known.unsigned("c.hang", 80)),
        ]
        await settle(known, 1)
        known.close()
        await asyncio.wait(tasks, timeout=10)
        assert [task.cancelled() for task in tasks] == [True] * 3
        names.released.set()

    before = set(threading.enumerate())
    asyncio.run(work())
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_what_was_found_last_is_kept_longest(names: Names) -> None:
    async def work() -> None:
        clock = Clock()
        known = Resolver(clock)
        await known.source("first.test", 80, "pk", "client")
        for number in range(MAX_KEPT - 1):
            await known.source(f"{number}.test", 80, "pk", "client")
        clock.now += resolver.KEEP
        await known.source("first.test", 80, "pk", "client")
        await known.source("new.test", 80, "pk", "client")
        asked = len(names.asked)
        await known.source("first.test", 80, "pk", "client")
        assert len(names.asked) == asked
        known.close()

    asyncio.run(work())


def test_so_many_names_and_threads_and_no_other_number() -> None:
    """Documented, and what a machine has to be able to bear."""
    assert (resolver.SOURCES, resolver.OTHERS, resolver.MAX_WAITING, resolver.MAX_KEPT) == (
        128,
        32,
        1024,
        1024,
    )
    assert (SOURCES_OF_CONNECTION, SOURCES_OF_CLIENT) == (32, 16)
    assert (resolver.RESOLVE_TIMEOUT, resolver.KEEP) == (5.0, 2.0)


# -- threads ------------------------------------------------------------------------------------------


def test_a_thread_that_is_free_is_used_again() -> None:
    threads = Threads(3, "test")
    idents = set()
    for _ in range(5):
        idents.add(threads.run(threading.get_ident).result(10))
        time.sleep(0.05)  # it says that it is free after it has answered
    assert len(idents) == 1
    threads.close()


def test_so_many_threads_are_started_and_no_more() -> None:
    threads, release = Threads(2, "counted"), threading.Event()
    running = [threads.run(release.wait, 30) for _ in range(5)]
    named = [one for one in threading.enumerate() if one.name.startswith("counted-")]
    assert sorted(one.name for one in named) == ["counted-0", "counted-1"]
    assert all(one.daemon for one in named), "the end of the process waits for none of them"
    release.set()
    assert [one.result(10) for one in running] == [True] * 5
    threads.close()


def test_threads_end_when_they_are_closed() -> None:
    threads, release = Threads(2, "closing"), threading.Event()
    running = [threads.run(release.wait, 30) for _ in range(4)]
    threads.close()
    release.set()
    assert [one.result(10) for one in running] == [True] * 4
    named = [one for one in threading.enumerate() if one.name.startswith("closing-")]
    for one in named:
        one.join(10)
    assert not any(one.is_alive() for one in named)
