"""Logs that neither leak, nor stop, nor raise."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from presign_proxy.config.schema.config import AuditConfig
from presign_proxy.mitm import self_test
from presign_proxy.mitm.client_state import ClientStates
from presign_proxy.mitm.flow.arrival import Arrival
from presign_proxy.mitm.flow.state import FlowStates
from presign_proxy.observe import audit_file
from presign_proxy.observe.audit_file import KEPT_FOR_PERMITS, MAX_QUEUED, AuditSink, LineFile
from presign_proxy.observe.audit_log import AuditLog
from presign_proxy.observe.audit_record import Outcome
from presign_proxy.observe.log_redaction import Redaction
from support.audit_log import write
from support.deciding import request, sent, signed
from support.keeping import asked
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
    write(sink, {"n": 1})
    assert eventually(lambda: path.read_text() != "")
    path.rename(tmp_path / "audit.1")
    write(sink, {"n": 2})
    assert eventually(lambda: path.exists() and path.read_text() != "")
    sink.close()
    assert [json.loads(p.read_text())["n"] for p in (tmp_path / "audit.1", path)] == [1, 2]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_audit_log_goes_on_when_its_directory_is_back(tmp_path: Path) -> None:
    place = tmp_path / "logs"
    place.mkdir()
    sink = AuditSink("logs/audit.jsonl", tmp_path)
    place.rename(tmp_path / "away")
    write(sink, {"n": 1})
    assert eventually(lambda: sink.trouble == "no such file or directory")
    (tmp_path / "away").rename(place)
    write(sink, {"n": 2})
    assert eventually(lambda: "2" in (place / "audit.jsonl").read_text())
    sink.close()
    assert numbers(place / "audit.jsonl") == [1, 2]
    assert (sink.trouble, sink.lines.written, sink.lines.dropped) == ("", 2, 0)


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["n"] for line in path.read_text("utf-8").splitlines()]


def lines(*numbers: int) -> list[bytes]:
    return [b'{"n":%d}\n' % number for number in numbers]


class FullDisk:
    """A disk with so much room left, for whoever writes to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room = 10**9
        self._write = os.write
        monkeypatch.setattr(audit_file.os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = self._write(descriptor, bytes(data[: self.room]))
        self.room -= count
        return count


@pytest.mark.parametrize("room", range(25))
def test_a_line_that_a_full_disk_cut_off_is_ended_when_there_is_room(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, path = FullDisk(monkeypatch), tmp_path / "audit.jsonl"
    file = LineFile(path)
    disk.room = room
    done, error = file.append(lines(1, 2, 3))
    assert (done, error is None) == (room // 8, room >= 24)
    again = file.append(lines(1, 2, 3)[done:])
    assert again[0] == 0 if done < 3 else not again[1]
    disk.room = 10**9
    assert file.append(lines(1, 2, 3)[done:]) == (3 - done, None)
    assert numbers(path) == [1, 2, 3]


def test_a_line_that_was_cut_off_is_written_anew_where_another_worker_wrote_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, path = FullDisk(monkeypatch), tmp_path / "audit.jsonl"
    mine, other = LineFile(path), LineFile(path)
    disk.room = 12
    assert mine.append(lines(1, 2))[0] == 1
    disk.room = 10**9
    assert other.append(lines(7)) == (1, None)
    assert mine.append(lines(2)) == (1, None)
    assert path.read_bytes() == b'{"n":1}\n{"n"{"n":7}\n\n{"n":2}\n'


@pytest.mark.parametrize("how", ["rename", "truncate", "remove"])
def test_a_line_that_was_cut_off_is_whole_in_the_file_after_a_rotation(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, path = FullDisk(monkeypatch), tmp_path / "audit.jsonl"
    file = LineFile(path)
    disk.room = 12
    assert file.append(lines(1, 2))[0] == 1
    if how == "rename":
        path.rename(tmp_path / "audit.1")
    elif how == "remove":
        path.unlink()
    else:
        path.write_bytes(b"")
    disk.room = 10**9
    assert file.append(lines(2)) == (1, None)
    assert numbers(path) == [2]


def test_workers_that_share_an_audit_log_do_not_mix_their_lines(tmp_path: Path) -> None:
    sinks_of = [AuditSink("audit.jsonl", tmp_path) for _ in range(4)]
    for number in range(2000):
        write(sinks_of[number % 4], {"n": number, "padding": "x" * (number % 400)})
    for sink in sinks_of:
        sink.close()
    assert sorted(numbers(tmp_path / "audit.jsonl")) == list(range(2000))


@pytest.mark.parametrize("kind", ["fifo", "directory", "link", "dangling link", "device"])
def test_an_audit_log_is_a_file(kind: str, tmp_path: Path) -> None:
    """A FIFO would be waited for; a link leads where somebody else wants it."""
    path, other = tmp_path / "audit.jsonl", tmp_path / "other"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        other.touch()
        path.symlink_to(other)
    elif kind == "dangling link":
        path.symlink_to(other)
    else:
        path = Path("/dev/null")
    with pytest.raises(OSError, match="is a "):
        LineFile(path)
    assert not other.exists() or other.read_bytes() == b""


def test_an_audit_log_that_is_replaced_by_a_fifo_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = AuditSink("audit.jsonl", tmp_path)
    path.unlink()
    os.mkfifo(path)
    write(sink, {"n": 1})
    assert eventually(lambda: "a pipe" in sink.trouble)
    path.unlink()
    assert eventually(lambda: path.exists() and numbers(path) == [1])
    sink.close()


def test_refusals_do_not_take_the_places_of_what_was_forwarded(tmp_path: Path) -> None:
    sink = AuditSink("audit.jsonl", tmp_path)
    sink.close()  # nobody writes any more
    refused, granted = {"decision": "deny"}, {"decision": "forward"}
    for _ in range(MAX_QUEUED):
        write(sink, refused)
    assert sink.trouble == "too many lines wait"
    assert sink.queued == MAX_QUEUED - KEPT_FOR_PERMITS
    for _ in range(MAX_QUEUED):
        write(sink, granted)
    assert sink.queued == MAX_QUEUED
    assert sink.lines.dropped == MAX_QUEUED


def test_a_disk_that_does_not_come_back_holds_up_nobody_but_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering, audit_log = threading.Event(), AuditLog()
    monkeypatch.setattr(audit_file, "STUCK", 0.1)
    monkeypatch.setattr(LineFile, "append", lambda self, lines: (answering.wait(5), len(lines), None)[1:])
    audit_log.use(audit_log.opened(AuditConfig(file="audit.jsonl", required=True), tmp_path / "config.yaml"))
    assert audit_log.obstacle == ""
    begun = time.monotonic()
    audit_log.write(sent(request(signed())), Outcome(200))
    assert eventually(
        lambda: audit_log.obstacle == "the audit log cannot be written: no answer from the disk"
    )
    audit_log.use(audit_log.opened(AuditConfig(file="other.jsonl", required=True), tmp_path / "config.yaml"))
    assert audit_log.obstacle == ""
    audit_log.use(audit_log.opened(None, tmp_path / "config.yaml"))
    assert time.monotonic() - begun < 3
    answering.set()


def test_only_a_required_audit_log_refuses_requests(tmp_path: Path) -> None:
    audit_log, path = AuditLog(), tmp_path / "config.yaml"
    (tmp_path / "logs").mkdir()
    audit_log.use(audit_log.opened(AuditConfig(file="logs/audit.jsonl"), path))
    (tmp_path / "logs").rename(tmp_path / "away")
    audit_log.write(sent(request(signed())), Outcome(200))
    assert eventually(lambda: audit_log.figures()["presign_audit_up"] == [[[], 0]])
    assert audit_log.obstacle == ""
    audit_log.use(audit_log.opened(AuditConfig(file="logs/audit.jsonl", required=True), path))
    assert audit_log.obstacle == "the audit log cannot be written: no such file or directory"
    (tmp_path / "away").rename(tmp_path / "logs")
    assert eventually(lambda: audit_log.obstacle == "")
    audit_log.close()


def test_the_mitmproxy_that_is_installed_is_known() -> None:
    assert list(self_test.unknown()) == []


def test_a_mitmproxy_that_has_changed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mitmproxy.proxy.layers.http import HttpLayer

    monkeypatch.setattr(HttpLayer, "make_stream", lambda self, other: None)
    assert "HttpLayer.make_stream" in next(self_test.unknown())


class KeptFlow:
    client_conn = None


def test_a_flow_that_a_ui_keeps_is_not_looked_after_for_ever() -> None:
    states, flow = FlowStates(asked(lambda forward, _: forward), ClientStates()), KeptFlow()
    flow_state = states.open(flow, Arrival((), b"", absolute=False, tunnelled=False))
    assert states.live() == []
    states.grant(flow_state, sent(request(signed())), ())
    assert states.live() == [flow_state]
    states.retire(flow_state)
    assert states.live() == []
    assert states.get(flow) is flow_state
    assert flow_state.grant is None
