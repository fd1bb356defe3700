"""What a balancer is told of a gateway, from its start to its end."""

from presign_proxy.gateway.lifecycle import Lifecycle


def test_a_gateway_serves_between_its_start_and_its_drain() -> None:
    lifecycle = Lifecycle()
    assert lifecycle.stage == "starting"
    lifecycle.serve()
    assert lifecycle.stage == "serving"
    lifecycle.drain()
    assert lifecycle.stage == "draining"
    lifecycle.serve()
    assert lifecycle.stage == "draining"


def test_a_gateway_that_is_told_to_end_before_it_began_never_serves() -> None:
    lifecycle = Lifecycle()
    lifecycle.drain()
    lifecycle.serve()
    assert lifecycle.draining
