"""Every automatable attack of `data/hostile.json`, over every transport that can carry it, against a real
gateway with a recorder behind it.
"""

import os
import re
import time

import pytest

from support.attack import attack
from support.gateways import MakeGateway
from support.hostile import Json, Outcome, Template, acceptable, load
from support.lab import REAL_SECRET, lab_config, lab_dns
from support.places import TESTS
from support.proxy import Mitm
from support.recorder import Recorder
from support.transports import EXPECTED_OVER, NOT_OVER, TRANSPORTS

CASES = load()
AUTOMATABLE = [case for case in CASES if case["automatable"]]

# Where each case that needs more than one request is tested: `file::test`, or the reason why nowhere.
MANUAL = {
    "H02": "config/test_load.py::test_yaml_that_could_mean_two_things_is_refused",
    "H05": "config/test_load.py::test_yaml_that_could_mean_two_things_is_refused",
    "H08": "config/test_load.py::test_a_wrong_connection_is_explained",
    "H11": "config/test_load.py::test_a_wrong_connection_is_explained",
    "H14": "config/registry_file/test_encryption.py::test_no_byte_can_be_cut_off_or_added",
    "H17": "config/registry_file/test_encryption.py::test_a_hundred_thousand_saves_never_share_a_nonce",
    "H20": "attacks/test_fail_closed.py::test_a_deleted_script_refuses_what_is_ours",
    "H23": "attacks/test_other_addons.py::test_map_remote_to_another_host_gets_no_key",
    "H26": "mitm/test_failures.py::test_a_key_log_is_warned_of_and_refused_at_an_egress_gateway",
    "H29": "mitm/test_failures.py::test_an_upstream_whose_certificate_is_wrong_is_sent_nothing",
    "L02": "mitm/test_failures.py::test_clients_that_never_finish_their_heads_are_cut_and_others_served",
    "L05": "mitm/test_failures.py::test_a_gateway_out_of_descriptors_recovers",
}

# Seconds for what the request may still cause after its answer, in a proxy that did not hold it back.
SETTLE = 0.03
LOG_NEVER = (r"REALSECRET", r"\b[0-9a-fA-F]{64}\b", r"Traceback", r"has crashed")


RUNS = [
    (case, transport)
    for case in AUTOMATABLE
    for transport in TRANSPORTS
    if (case["id"], transport) not in NOT_OVER
]


# The gateway of the session has its lane open; without it, all goes the way of flows.
BY_FLOWS = [run for run in RUNS if run[1] == "published" or "PRESIGN_REQUESTS" in os.environ]


@pytest.fixture(scope="module")
def flows(module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    """The same gateway without the lane."""
    config, dns = lab_config(upstream.port), lab_dns(upstream.port)
    return module_gateway(config, "--set", "presign_lane=off", dns=dns)


@pytest.fixture(scope="module")
def reverse(module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    """The same gateway in reverse mode, in front of the recorder."""
    target = f"reverse:http://127.0.0.1:{upstream.port}"
    return module_gateway(lab_config(upstream.port), "--mode", target, dns=lab_dns(upstream.port))


@pytest.mark.parametrize(
    ("case", "transport"), RUNS, ids=[f"{case['id']} {where} {case['name'][:60]}" for case, where in RUNS]
)
def test_attack_ends_as_the_catalogue_says(
    case: Json, transport: str, gateway: Mitm, reverse: Mitm, upstream: Recorder
) -> None:
    judge(case, transport, reverse if transport == "reverse" else gateway, upstream)


@pytest.mark.parametrize(
    ("case", "transport"),
    BY_FLOWS,
    ids=[f"{case['id']} {where} {case['name'][:60]}" for case, where in BY_FLOWS],
)
def test_attack_ends_so_without_the_lane_too(
    case: Json, transport: str, flows: Mitm, reverse: Mitm, upstream: Recorder
) -> None:
    judge(case, transport, reverse if transport == "reverse" else flows, upstream)


def judge(case: Json, transport: str, attacked: Mitm, upstream: Recorder) -> None:
    logged_before = len(attacked.log())
    outcome = attack(case, transport, Template(case["sign"], upstream.port), attacked)
    expect = EXPECTED_OVER.get((case["id"], transport), case["expect"])
    if expect.get("forwarded"):
        upstream.wait_for(1)
    time.sleep(SETTLE)

    assert acceptable(outcome, expect), f"{outcome.result} {outcome.code}: {outcome.received[:500]!r}"
    check_upstream(expect, upstream, lower=transport == "h2")
    check_received(expect, outcome)
    assert outcome.milliseconds <= 10 * expect.get("max_ms", 2000)
    check_log(attacked.log()[logged_before:])


def test_nothing_secret_is_in_the_log_after_all_attacks(gateway: Mitm, reverse: Mitm) -> None:
    check_log(gateway.log() + reverse.log())


def test_every_case_runs_over_every_transport_or_says_why_not() -> None:
    ids = {case["id"] for case in AUTOMATABLE}
    assert (len(CASES), len(ids)) == (246, 234)
    assert {case for case, _ in NOT_OVER} <= ids
    assert {transport for _, transport in NOT_OVER} <= set(TRANSPORTS)
    assert len(RUNS) == len(ids) * len(TRANSPORTS) - len(NOT_OVER)
    assert all(reason for reason in NOT_OVER.values())
    assert set(EXPECTED_OVER) <= {(case["id"], transport) for case, transport in RUNS}


def test_every_manual_case_is_accounted_for() -> None:
    assert sorted(MANUAL) == sorted(case["id"] for case in CASES if not case["automatable"])
    for place in MANUAL.values():
        if "::" in place:
            file, _, test = place.partition("::")
            assert f"def {test}(" in (TESTS / file).read_text("utf-8")


def check_upstream(expect: Json, upstream: Recorder, lower: bool) -> None:
    """`lower`: names of fields that came over HTTP/2, where they are lower-case."""
    requests = upstream.requests
    heads = "".join((request.raw + request.trailers).decode("latin-1") for request in requests)
    if expect.get("forwarded") is False:
        assert not upstream.touched, f"forwarded: {heads!r} {upstream.fragments!r}"
    elif expect.get("forwarded"):
        assert requests
    for pattern in expect.get("upstream_absent", []):
        assert not re.search(pattern, heads), heads
    for pattern in expect.get("upstream_present", []):
        assert re.search(pattern, heads, re.IGNORECASE if lower else 0), heads
    if "upstream_requests" in expect:
        assert len(requests) == expect["upstream_requests"]


def check_received(expect: Json, outcome: Outcome) -> None:
    received = outcome.received.decode("latin-1")
    assert "REALSECRET" not in received
    assert REAL_SECRET.encode().hex() not in received.lower()
    # SPEC §5 puts the request id on every answer; what the catalogue looks for is a presign that leaked.
    received = re.sub(r"(?im)^X-Presign-(Request-Id|Error): [\w-]+\r?$", "", received)
    for pattern in expect.get("client_absent", []):
        assert not re.search(pattern, received), received
    for pattern in expect.get("client_present", []):
        assert re.search(pattern, received, re.IGNORECASE), received


def check_log(text: str) -> None:
    for pattern in LOG_NEVER:
        found = re.search(pattern, text)
        assert not found, text[max(0, found.start() - 300) : found.end() + 100]
