"""A store that fails is left alone for a while, and one request tries it again."""

from __future__ import annotations

from presign_proxy.limits.circuit_breaker import PAUSE, THRESHOLD, Breaker


def opened() -> Breaker:
    breaker = Breaker()
    for number in range(THRESHOLD):
        assert breaker.allows(10.0)
        assert breaker.failed(10.0) == (number == THRESHOLD - 1)
    return breaker


def test_a_store_that_fails_again_and_again_is_left_alone_and_one_request_tries() -> None:
    breaker = opened()
    assert not breaker.allows(10.0 + PAUSE - 0.01)
    assert breaker.allows(10.0 + PAUSE)
    assert not breaker.allows(10.0 + PAUSE)  # the others do not wait for what is down
    assert not breaker.failed(11.5)  # told once
    assert not breaker.allows(11.5 + PAUSE - 0.01)
    assert breaker.allows(11.5 + PAUSE)
    breaker.succeeded()
    assert not breaker.is_open
    assert all(breaker.allows(20.0) for _ in range(5))


def test_failures_with_a_success_between_them_open_nothing() -> None:
    breaker = Breaker()
    for _ in range(3 * THRESHOLD):
        for _ in range(THRESHOLD - 1):
            assert not breaker.failed(1.0)
        breaker.succeeded()
    assert breaker.allows(1.0)


def test_clients_that_go_away_open_nothing_and_do_not_keep_it_open() -> None:
    breaker = Breaker()
    for _ in range(100):
        assert breaker.allows(1.0)
        breaker.abandoned()
    assert breaker.allows(1.0)
    breaker = opened()
    assert breaker.allows(10.0 + PAUSE)
    breaker.abandoned()
    assert breaker.allows(10.0 + PAUSE)
