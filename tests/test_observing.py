"""Logs that neither leak, nor stop, nor raise."""

from __future__ import annotations

import json
import logging
import stat
import time
from pathlib import Path

import pytest

from presign_proxy import internals
from presign_proxy.audit import Throttle
from presign_proxy.ledger import Arrival, Ledger
from presign_proxy.redaction import Redaction
from presign_proxy.sinks import AuditSink
from support.deciding import request, sent, signed
from support.puppet import eventually

SIGNATURE = "0123456789abcdef" * 4


@pytest.fixture
def factory():
    before = logging.getLogRecordFactory()
    redaction = Redaction()
    redaction.install()
    yield redaction
    logging.setLogRecordFactory(before)


def test_no_log_record_holds_a_signature(factory: Redaction, caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("somebody")
    log.warning("GET /?X-Presign-Signature=%s HTTP/1.1", SIGNATURE)
    log.warning(ValueError(f"sig={SIGNATURE}"))
    try:
        raise ValueError(f"ps1_abc.{SIGNATURE}")
    except ValueError:
        log.exception("failed")
    assert SIGNATURE not in caplog.text
    assert "failed" in caplog.text
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("before", ["%3D", "%22", "0", "\\x0d"])
def test_a_signature_is_found_next_to_hex_digits(before: str, factory: Redaction) -> None:
    assert SIGNATURE not in factory.redact(f"GET /?u=X-Presign-Signature{before}{SIGNATURE}{before}x")


def test_a_sloppy_log_call_of_somebody_else_does_not_raise(factory: Redaction) -> None:
    assert logging.getLogger("somebody").makeRecord("x", 20, "", 0, "%d", ("x",), None).msg == "%d"


def test_the_audit_log_is_private_and_may_be_rotated(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = AuditSink("audit.jsonl", tmp_path)
    sink.write({"n": 1})
    assert eventually(lambda: path.read_text() != "")
    path.rename(tmp_path / "audit.1")
    sink.write({"n": 2})
    assert eventually(lambda: path.exists() and path.read_text() != "")
    sink.close()
    assert [json.loads(p.read_text())["n"] for p in (tmp_path / "audit.1", path)] == [1, 2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_audit_log_goes_on_when_its_directory_is_back(tmp_path: Path) -> None:
    place = tmp_path / "logs"
    place.mkdir()
    sink = AuditSink("logs/audit.jsonl", tmp_path)
    place.rename(tmp_path / "away")
    sink.write({"n": 1})
    time.sleep(0.5)
    (tmp_path / "away").rename(place)
    sink.write({"n": 2})
    assert eventually(lambda: "2" in (place / "audit.jsonl").read_text())
    sink.close()
    last = json.loads((place / "audit.jsonl").read_text().splitlines()[-1])
    assert last == {"n": 2, "lost_before": 1}


def test_unverified_refusals_cannot_fill_the_disk() -> None:
    throttle = Throttle(limit=3)
    kept = [throttle.admit({"n": n}, verified=False, now=10.0) for n in range(9)]
    assert [record for record in kept if record] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert throttle.admit({"n": 9}, verified=True, now=10.5) == {"n": 9}
    assert throttle.admit({"n": 10}, verified=False, now=11.0) == {"n": 10, "suppressed_before": 6}


def test_the_mitmproxy_that_is_installed_is_known() -> None:
    assert list(internals.unknown()) == []


def test_a_mitmproxy_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mitmproxy.proxy.layers.http import HttpLayer

    monkeypatch.setattr(HttpLayer, "make_stream", lambda self, other: None)
    assert "HttpLayer.make_stream" in next(internals.unknown())


class KeptFlow:
    client_conn = None


def test_a_flow_that_a_ui_keeps_is_not_looked_after_for_ever() -> None:
    ledger, flow = Ledger(), KeptFlow()
    entry = ledger.open(flow, Arrival((), b"", absolute=False, tunnelled=False))
    assert ledger.live() == []
    ledger.grant(entry, sent(request(signed())))
    assert ledger.live() == [entry]
    ledger.retire(entry)
    assert ledger.live() == []
    assert ledger.get(flow) is entry
    assert entry.grant is None
