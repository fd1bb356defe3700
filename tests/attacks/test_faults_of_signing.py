"""Whatever fails while a request is signed or its body is read: nothing is sent, and nothing stays taken."""

from __future__ import annotations

from typing import Any

import pytest

from support.asking import SECRET, Grant, wire
from support.fault_switch import ADDON, FaultSwitch
from support.gateways import MakeGateway
from support.lanes import WAYS
from support.leaks import Traces
from support.proxy import Mitm
from support.puppet import eventually
from support.raw import Hang, send_raw
from support.recorder import Recorder

KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
TARGETS = (
    "SigV4Credential.sign",
    "SigV4Credential.held",
    "SigV4Credential.inject",
    "Forward.leaving",
    "HeldBodies.begin",
    "HeldBody.add",
    "HeldBody.digest",
    "HeldBody.whole",
)
GRANT = Grant("conn_aws")


@pytest.fixture(scope="module", params=("lane", "flows"))
def gateway(
    request: Any, module_gateway: MakeGateway, upstream: Recorder, tmp_path_factory: pytest.TempPathFactory
) -> Mitm:
    switch = FaultSwitch(tmp_path_factory.mktemp("faults"), TARGETS)
    auth = {"type": "aws_sigv4", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": KEY}
    auth |= {"service": "bedrock", "region": "eu-west-1"}
    entry = {"upstream": upstream.url, "auth": auth, "signing_keys": [{"secret": SECRET}]}
    entry["limits"] = [{"concurrency": 1}]
    config = {"gateway": {"hosts": ["presign.local"]}, "connections": {"conn_aws": entry}}
    made = module_gateway(config, *ADDON, *WAYS[request.param], env=switch.env)
    made.switch = switch  # type: ignore[attr-defined]
    return made


def asked(gateway: Mitm) -> bytes:
    raw = wire(GRANT.target("x"), method="POST", body=b"the body")
    try:
        return send_raw(gateway.port, raw, timeout=5)
    except Hang as hang:
        return hang.received


@pytest.mark.parametrize("target", TARGETS)
def test_what_fails_before_a_signature_sends_nothing_and_frees_its_slot(
    gateway: Mitm, upstream: Recorder, target: str
) -> None:
    switch: FaultSwitch = gateway.switch  # type: ignore[attr-defined]
    switch.arm(target)
    answer = asked(gateway)
    switch.disarm()
    assert switch.strikes(target)
    assert not answer or answer.startswith((b"HTTP/1.1 500 ", b"HTTP/1.1 502 "))
    assert not any(seen.complete for seen in upstream.requests)
    assert not Traces([KEY, "EXCEPTION-TEXT"]).found_in(answer + gateway.log().encode())
    assert eventually(lambda: asked(gateway).startswith(b"HTTP/1.1 200 "))
