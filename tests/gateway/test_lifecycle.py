"""What a balancer is told of a gateway, from its start to its end."""

from presign_proxy.gateway.lifecycle import Lifecycle


def test_a_gateway_is_ready_between_its_start_and_its_drain() -> None:
    lifecycle = Lifecycle(lambda: "", lambda: "")
    assert lifecycle.ready() == (False, "starting")
    lifecycle.serve()
    assert lifecycle.ready() == (True, "serving")
    lifecycle.drain()
    assert lifecycle.ready() == (False, "draining")
    lifecycle.serve()
    assert lifecycle.ready() == (False, "draining")


def test_a_gateway_that_refuses_everything_is_not_ready_and_says_why() -> None:
    faults = ["there is no registry"]
    lifecycle = Lifecycle(lambda: faults[0], lambda: "something to mend")
    lifecycle.serve()
    assert lifecycle.ready() == (False, "there is no registry")
    faults[0] = ""
    assert lifecycle.ready() == (True, "something to mend")


def test_a_gateway_that_is_told_to_end_before_it_began_never_serves() -> None:
    lifecycle = Lifecycle(lambda: "", lambda: "")
    lifecycle.drain()
    lifecycle.serve()
    assert lifecycle.draining
