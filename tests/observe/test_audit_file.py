"""The audit log on disk: links, pipes, full and stuck disks, records that wait; and what a record says."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.core.decision import Deny
from presign_proxy.observe import audit_file
from presign_proxy.observe.audit_file import AuditSink, LineCounts, LineFile
from presign_proxy.observe.audit_record import Outcome, Throttle, line
from support.audit_log import json_of, write
from support.deciding import NOW, ask, request, sent, signed
from support.descriptors import descriptors
from support.puppet import eventually

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def make_sink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., AuditSink]]:
    """Sinks that write at once, and are closed."""
    made: list[AuditSink] = []
    monkeypatch.setattr(audit_file, "INTERVAL", 0.005)

    def make(file: str = "audit.jsonl", *more: Any) -> AuditSink:
        made.append(AuditSink(file, tmp_path, *more))
        return made[-1]

    yield make
    for sink in made:
        sink.close()


# -- the file -----------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        LineFile(path).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_line_is_written_at_the_end_whoever_wrote_before(path: Path) -> None:
    path.write_bytes(b"before\n")
    file, other = LineFile(path), LineFile(path)
    assert file.append([b"one\n"]) == (1, None)
    assert other.append([b"two\n", b"three\n"]) == (2, None)
    assert file.append([b"four\n"]) == (1, None)
    assert path.read_bytes() == b"before\none\ntwo\nthree\nfour\n"
    file.close()
    other.close()


@pytest.mark.parametrize("kind", ["link", "dangling link"])
def test_a_link_that_comes_after_the_look_is_not_followed(
    kind: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write in the directory of the log would choose the file that is appended to."""
    victim = tmp_path / "victim"
    if kind == "link":
        victim.write_bytes(b"mine")
    check = audit_file._check

    def slow(found: os.stat_result) -> None:
        check(found)
        path.unlink()
        path.symlink_to(victim)

    path.touch()
    monkeypatch.setattr(audit_file, "_check", slow)
    with pytest.raises(OSError, match="symbolic link"):
        LineFile(path)
    assert victim.read_bytes() == b"mine" if kind == "link" else not victim.exists()


def test_a_pipe_that_comes_after_the_look_is_neither_waited_for_nor_written_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = audit_file._check
    looked: list[int] = []

    def slow(found: os.stat_result) -> None:
        check(found)
        looked.append(found.st_ino)
        path.unlink()
        os.mkfifo(path)
        monkeypatch.setattr(audit_file, "_check", check)

    path.touch()
    monkeypatch.setattr(audit_file, "_check", slow)
    before = descriptors()
    with pytest.raises(OSError, match="No such device or address"):
        LineFile(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(OSError, match="a pipe, not a file"):
        LineFile(path)
    os.close(reader)
    assert descriptors() == before


def test_a_pipe_that_somebody_reads_is_not_written_to_either(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened is judged again: the look before was at something else."""
    check = audit_file._check

    def slow(found: os.stat_result) -> None:
        check(found)
        path.unlink()
        os.mkfifo(path)
        readers.append(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        monkeypatch.setattr(audit_file, "_check", check)

    readers: list[int] = []
    path.touch()
    before = descriptors()
    monkeypatch.setattr(audit_file, "_check", slow)
    with pytest.raises(OSError, match="a pipe, not a file") as error:
        LineFile(path)
    assert error.value.errno == errno.EINVAL
    os.close(readers[0])
    assert descriptors() == before


def test_a_link_is_told_of_as_one(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="is a symbolic link: name the file itself") as error:
        LineFile(path)
    assert error.value.errno == errno.ELOOP


@pytest.mark.parametrize("how", ["rename", "remove", "replace"])
def test_a_file_that_is_rotated_is_left_and_its_descriptor_closed(
    how: str, path: Path, tmp_path: Path
) -> None:
    file = LineFile(path)
    file.append([b"1\n"])
    before = descriptors()
    if how == "rename":
        path.rename(tmp_path / "audit.1")
    elif how == "remove":
        path.unlink()
    else:
        (tmp_path / "new").write_bytes(b"")
        (tmp_path / "new").replace(path)
    assert file.append([b"2\n"]) == (1, None)
    assert path.read_bytes() == b"2\n"
    assert len(descriptors()) == len(before)
    file.close()
    assert len(descriptors()) == len(before) - 1


def test_a_file_that_is_where_it_was_is_not_opened_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LineFile(path)
    opened: list[Path] = []
    monkeypatch.setattr(audit_file, "_opened", opened.append)
    assert file.append([b"1\n"]) == (1, None)
    assert opened == []
    file.close()


def test_standard_error_is_written_to_and_never_followed(capfd: pytest.CaptureFixture[str]) -> None:
    file = LineFile(None)
    assert file.append([b'{"n":1}\n', b'{"n":2}\n']) == (2, None)
    file.close()
    os.write(2, b"still open\n")
    assert capfd.readouterr().err == '{"n":1}\n{"n":2}\nstill open\n'


class Disk:
    """What `os.write` takes at a time, until it fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.takes = [10**9]
        self._write = os.write
        monkeypatch.setattr(audit_file.os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        most = self.takes.pop(0) if len(self.takes) > 1 else self.takes[0]
        if not most:
            raise FULL
        return self._write(descriptor, bytes(data[:most]))


def test_a_disk_that_takes_a_few_bytes_at_a_time_gets_all_lines(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, disk = LineFile(path), Disk(monkeypatch)
    disk.takes = [3]
    assert file.append([b"one\n", b"two\n", b"three\n"]) == (3, None)
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    file.close()


@pytest.mark.parametrize("taken", range(1, 9))
def test_a_line_cut_off_twice_is_written_once(
    taken: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, disk, line = LineFile(path), Disk(monkeypatch), b'{"n":12}\n'
    disk.takes = [taken, 0]
    assert file.append([line]) == (0, FULL)
    disk.takes = [0]
    assert file.append([line]) == (0, FULL)
    disk.takes = [1, 0]
    done, error = file.append([line])
    assert (done, error) == ((1, None) if taken == 8 else (0, FULL))
    disk.takes = [10**9]
    assert file.append([line][done:]) == (1 - done, None)
    assert path.read_bytes() == line
    assert file.append([b"next\n"]) == (1, None)
    assert path.read_bytes() == line + b"next\n"
    file.close()


def test_a_line_cut_off_in_a_file_that_is_emptied_is_written_from_its_beginning(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, disk = LineFile(path), Disk(monkeypatch)
    disk.takes = [4, 0]
    assert file.append([b"one\n", b"two\n", b"three\n"])[0] == 1
    disk.takes = [2, 0]
    assert file.append([b"two\n", b"three\n"])[0] == 0
    path.write_bytes(b"")
    disk.takes = [10**9]
    assert file.append([b"two\n"]) == (1, None)
    assert path.read_bytes() == b"two\n"
    file.close()


def test_a_line_cut_off_in_a_file_that_has_moved_is_written_whole_in_the_new_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, disk = LineFile(path), Disk(monkeypatch)
    disk.takes = [2, 0]
    file.append([b"one\n"])
    path.rename(tmp_path / "audit.1")
    path.write_bytes(b"xx")  # as long as what there was of the line
    disk.takes = [10**9]
    assert file.append([b"one\n"]) == (1, None)
    assert path.read_bytes() == b"xx\none\n"
    file.close()


def test_nothing_is_said_to_be_written_where_the_file_cannot_be_found(path: Path) -> None:
    path.parent.joinpath("logs").mkdir()
    file = LineFile(path.parent / "logs" / "a")
    (path.parent / "logs").rename(path.parent / "away")
    done, error = file.append([b"1\n"])
    assert (done, type(error)) == (0, FileNotFoundError)
    (path.parent / "away").rename(path.parent / "logs")
    assert file.append([b"1\n"]) == (1, None)
    file.close()


# -- the sink -----------------------------------------------------------------------------------------


def numbers(path: Path) -> list[Any]:
    return [json.loads(line)["n"] for line in path.read_bytes().splitlines()]


def test_records_are_written_in_order_one_a_line(path: Path, make_sink: Callable[..., AuditSink]) -> None:
    sink = make_sink()
    for number in range(2500):
        write(sink, {"n": number, "text": "é\n"})
    assert eventually(lambda: sink.queued == 0)
    sink.close()
    assert numbers(path) == list(range(2500))
    assert path.read_bytes().startswith(b'{"n":0,"text":"\\u00e9\\n"}\n')
    assert (sink.lines.written, sink.lines.dropped, sink.trouble) == (2500, 0, "")


def test_what_is_queued_when_it_is_closed_is_written(
    path: Path, make_sink: Callable[..., AuditSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "INTERVAL", 30)
    sink = make_sink()
    before = len(descriptors())
    for number in range(1500):
        write(sink, {"n": number})
    sink.close()
    assert numbers(path) == list(range(1500))
    assert not sink._thread.is_alive()
    assert len(descriptors()) == before - 1


def test_a_sink_goes_on_counting_where_another_ended(make_sink: Callable[..., AuditSink]) -> None:
    lines = LineCounts(written=5, dropped=2)
    sink = make_sink("audit.jsonl", lines)
    write(sink, {"n": 1})
    sink.close()
    assert sink.lines is lines
    assert (lines.written, lines.dropped) == (6, 2)


def test_a_gateway_that_ends_waits_for_no_disk(make_sink: Callable[..., AuditSink]) -> None:
    assert make_sink()._thread.daemon
    assert make_sink()._thread.name == "presign-audit"


def test_a_dash_is_standard_error(make_sink: Callable[..., AuditSink], capfd: Any, tmp_path: Path) -> None:
    sink = make_sink("-")
    write(sink, {"n": 1})
    sink.close()
    assert capfd.readouterr().err == '{"n":1}\n'
    assert not (tmp_path / "-").exists()


class Stuck:
    """`LineFile.append`, which waits or fails as it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.given: list[int] = []
        self.fails: OSError | None = None
        self.takes = 10**9
        monkeypatch.setattr(LineFile, "append", lambda _, lines: self.append(lines))

    def append(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        assert self.go_on.wait(20)
        self.given.append(len(lines))
        return (0, self.fails) if self.fails else (min(self.takes, len(lines)), None)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stuck]:
    found = Stuck(monkeypatch)
    yield found
    found.go_on.set()
    found.fails = None


def test_of_many_records_a_thousand_are_written_at_a_time(
    disk: Stuck, make_sink: Callable[..., AuditSink]
) -> None:
    sink = make_sink()
    for number in range(2500):
        write(sink, {"n": number})
    assert eventually(lambda: len(sink._unwritten) > 0)
    assert sink.queued == 2500
    disk.go_on.set()
    assert eventually(lambda: sink.queued == 0)
    sink.close()
    assert max(disk.given) == 1000
    assert sum(disk.given) == 2500


def test_a_disk_that_takes_some_lines_gets_the_others_next(
    disk: Stuck, make_sink: Callable[..., AuditSink]
) -> None:
    disk.takes = 2
    sink = make_sink()
    for number in range(5):
        write(sink, {"n": number})
    disk.go_on.set()
    assert eventually(lambda: sink.lines.written == 5)
    assert sink.queued == 0


def test_a_disk_that_gives_no_answer_is_trouble_after_two_seconds(
    disk: Stuck, make_sink: Callable[..., AuditSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    sink = make_sink()
    monkeypatch.setattr(audit_file.time, "monotonic", lambda: now[0])
    write(sink, {"n": 1})
    monkeypatch.undo()
    assert audit_file.STUCK == 2.0
    sink._since = 1000.0
    for at, trouble in ((1001.9, ""), (1002.0, ""), (1002.1, "no answer from the disk")):
        with monkeypatch.context() as patched:
            patched.setattr(audit_file.time, "monotonic", lambda at=at: at)
            assert sink.trouble == trouble
    sink._since = 0.0


def test_a_write_that_came_back_is_no_trouble(make_sink: Callable[..., AuditSink]) -> None:
    sink = make_sink()
    write(sink, {"n": 1})
    assert eventually(lambda: sink.lines.written == 1 and sink._since == 0.0)
    write(sink, {"n": 2})
    assert eventually(lambda: sink.lines.written == 2)
    assert sink.trouble == ""


def test_a_write_under_way_is_timed_from_its_beginning(
    disk: Stuck, make_sink: Callable[..., AuditSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "STUCK", 0.01)
    sink = make_sink()
    write(sink, {"n": 1})
    assert eventually(lambda: sink.trouble == "no answer from the disk")
    disk.go_on.set()
    assert eventually(lambda: sink.trouble == "")


def test_a_disk_that_fails_is_told_of_once_and_so_is_its_end(
    disk: Stuck, make_sink: Callable[..., AuditSink], caplog: pytest.LogCaptureFixture
) -> None:
    disk.fails = OSError(errno.ENOSPC, "No space left on device")
    disk.go_on.set()
    sink = make_sink()
    with caplog.at_level(logging.WARNING):
        write(sink, {"n": 1})
        assert eventually(lambda: len(disk.given) > 4)
        assert sink.trouble == "no space left on device"
        assert (sink.queued, sink.lines.written) == (1, 0)
        disk.fails = None
        assert eventually(lambda: sink.lines.written == 1)
        assert eventually(lambda: sink.trouble == "")
        sink.close()
    assert [one.message for one in caplog.records] == [
        "presign: the audit log cannot be written (no space left on device)",
        "presign: the audit log can be written again",
    ]


def test_a_disk_that_works_is_not_told_of(
    make_sink: Callable[..., AuditSink], caplog: pytest.LogCaptureFixture
) -> None:
    sink = make_sink()
    for number in (1, 2):
        write(sink, {"n": number})
        assert eventually(lambda number=number: sink.lines.written == number)
    sink.close()
    assert caplog.records == []


def test_a_disk_that_fails_without_words_is_told_of_too(
    disk: Stuck, make_sink: Callable[..., AuditSink]
) -> None:
    disk.fails = OSError()
    disk.go_on.set()
    sink = make_sink()
    write(sink, {"n": 1})
    assert eventually(lambda: sink.trouble == "it cannot be written")


def test_a_disk_that_fails_is_left_alone_until_the_next_time(
    disk: Stuck, make_sink: Callable[..., AuditSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_file, "INTERVAL", 0.2)
    disk.fails = OSError(errno.EIO, "Input/output error")
    disk.go_on.set()
    sink = make_sink()
    write(sink, {"n": 1})
    assert eventually(lambda: disk.given)
    tries = len(disk.given)
    assert tries < 3


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, make_sink: Callable[..., AuditSink]) -> AuditSink:
    """A sink that nobody empties any more, for ten records, four of them of refusals."""
    monkeypatch.setattr(audit_file, "MAX_QUEUED", 10)
    monkeypatch.setattr(audit_file, "KEPT_FOR_PERMITS", 6)
    sink = make_sink()
    sink.close()
    return sink


def test_what_does_not_fit_is_counted_and_the_next_line_says_so(full: AuditSink) -> None:
    for _ in range(12):
        write(full, {"decision": "forward"})
    assert (full.queued, full.lines.dropped) == (10, 2)
    full._queue.popleft()
    write(full, {"decision": "forward"})
    full._queue.popleft()
    write(full, {"decision": "forward"})
    told = [json.loads(line) for line in full._queue]
    assert [one.get("lost_before") for one in told] == [None] * 8 + [2, None]
    assert full.lines.dropped == 2


def test_refusals_leave_places_free_for_what_was_forwarded(full: AuditSink) -> None:
    for _ in range(3):
        write(full, {"decision": "deny"})
    assert (full.queued, full.trouble) == (3, "")
    write(full, {"decision": "deny"})
    assert (full.queued, full.trouble) == (4, "too many lines wait")
    write(full, {"decision": "deny"})
    assert (full.queued, full.lines.dropped) == (4, 1)
    for _ in range(7):
        write(full, {"decision": "forward"})
    assert (full.queued, full.lines.dropped) == (10, 2)


def test_ten_thousand_records_wait_and_half_of_them_may_be_refusals() -> None:
    assert (audit_file.MAX_QUEUED, audit_file.KEPT_FOR_PERMITS) == (10_000, 5_000)
    assert audit_file.INTERVAL == 0.2


def test_what_is_lost_at_the_end_is_counted(disk: Stuck, make_sink: Callable[..., AuditSink]) -> None:
    disk.fails = OSError(errno.ENOSPC, "No space left on device")
    disk.go_on.set()
    sink = make_sink()
    for number in range(3):
        write(sink, {"n": number})
    sink.close()
    assert (sink.lines.written, sink.lines.dropped) == (0, 3)


def test_stopping_does_not_wait_for_a_disk(disk: Stuck, make_sink: Callable[..., AuditSink]) -> None:
    sink = make_sink()
    write(sink, {"n": 1})
    sink.stop()
    assert sink._thread.is_alive()
    disk.go_on.set()
    assert eventually(lambda: not sink._thread.is_alive())
    assert sink.lines.written == 1


def test_closing_waits_for_a_stuck_disk_but_not_for_ever(
    disk: Stuck, make_sink: Callable[..., AuditSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float | None] = []
    sink = make_sink()
    monkeypatch.setattr(sink._thread, "join", lambda timeout=None: waited.append(timeout))
    sink.close()
    assert waited == [5]
    monkeypatch.undo()


# -- what a record says -------------------------------------------------------------------------------

OUTCOME = Outcome(200, 201, 3, 4, 0.123456, "upstream", "it failed", 0.056789)


def test_the_record_of_a_grant_says_who_asked_for_what_and_how_it_ended() -> None:
    forward = sent(request(signed()))
    found = json_of(forward, OUTCOME, NOW + 0.12345)
    assert found == {
        "time": NOW + 0.123,
        "at": datetime.fromtimestamp(NOW, UTC).strftime("%Y-%m-%dT%H:%M:%S.123Z"),
        "request_id": "req_test",
        "decision": "forward",
        "scheme": "presign",
        "carrier": "query",
        "connection": "conn",
        "key": "k1",
        "signature": forward.facts.signature,
        "id": None,
        "method": "GET",
        "path": forward.facts.path,
        "upstream": "https://api.example.com",
        "client": found["client"],
        "code": "upstream",
        "detail": "it failed",
        "status": 200,
        "upstream_status": 201,
        "bytes_in": 3,
        "bytes_out": 4,
        "duration": 0.1235,
        "upstream_duration": 0.0568,
    }
    assert forward.facts.path
    assert list(found)[:3] == ["time", "at", "request_id"]


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (1_764_345_600, "2025-11-28T16:00:00.000Z"),
        (1_764_345_600.0004, "2025-11-28T16:00:00.000Z"),
        (1_764_345_600.1239, "2025-11-28T16:00:00.124Z"),
        (1_764_345_599.9996, "2025-11-28T16:00:00.000Z"),
        (0, "1970-01-01T00:00:00.000Z"),
    ],
)
def test_both_times_of_a_record_are_the_same_instant(now: float, text: str) -> None:
    found = json_of(sent(request(signed())), Outcome(), now)
    assert found["at"] == text
    assert datetime.fromisoformat(text).timestamp() == found["time"]


def test_the_record_of_a_refusal_has_its_own_code_and_detail() -> None:
    deny = ask(request(signed(paths="v2/*")))
    assert isinstance(deny, Deny)
    found = json_of(deny, OUTCOME, NOW)
    assert (found["decision"], found["code"], found["detail"]) == ("deny", "path_not_allowed", deny.detail)
    assert found["upstream"] is None
    assert found["path"] == deny.facts.path
    assert "v1/models" in found["path"]


def test_without_a_good_signature_no_path_is_recorded() -> None:
    deny = ask(request(signed()[:-1] + "x"))
    assert isinstance(deny, Deny)
    deny.facts.path = "/private"
    assert json_of(deny, Outcome(), NOW)["path"] is None
    deny.facts.scheme = "source"
    assert json_of(deny, Outcome(), NOW)["path"] == "/private"


def test_where_nothing_came_back_nothing_is_said() -> None:
    found = json_of(sent(request(signed())), Outcome(), NOW)
    said = [found[name] for name in ("status", "upstream_status", "code", "detail", "upstream_duration")]
    assert said == [None] * 5
    assert [found[name] for name in ("bytes_in", "bytes_out", "duration")] == [0, 0, 0]


HOSTILE = '"},"x":1,\n\r\t\\u0022\\\x00\x1b[2J\x7f\x9f\u2028\ud800é😀'


@pytest.mark.parametrize("name", ["id", "method", "path", "client", "key", "carrier"])
def test_no_text_of_a_client_adds_a_field_or_a_line(name: str) -> None:
    forward = sent(request(signed()))
    plain = json_of(forward, OUTCOME, NOW)
    setattr(forward.facts, name, HOSTILE)
    text = line(forward, OUTCOME, NOW)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text) == plain | {name: HOSTILE}


def test_no_text_of_a_failure_adds_a_field_or_a_line() -> None:
    outcome = OUTCOME._replace(code=HOSTILE, error=HOSTILE)
    text = line(sent(request(signed())), outcome, NOW)
    assert text.isprintable()
    assert json.loads(text) == json_of(sent(request(signed())), OUTCOME, NOW) | {
        "code": HOSTILE,
        "detail": HOSTILE,
        "signature": json.loads(text)["signature"],
    }


def test_refusals_that_got_no_line_are_told_by_the_next_line() -> None:
    deny = ask(request(signed()[:-1] + "x"))
    assert isinstance(deny, Deny)
    assert json_of(deny, OUTCOME, NOW, 7) == json_of(deny, OUTCOME, NOW) | {"suppressed_before": 7}


def test_of_unverified_refusals_so_many_a_second_are_told() -> None:
    throttle = Throttle(limit=3)

    def admit(now: float, *, verified: bool = False) -> int | None:
        return throttle.admit(verified=verified, now=now)

    assert [admit(10.0), admit(10.5), admit(10.9)] == [0] * 3
    assert [admit(10.95), admit(10.99)] == [None] * 2
    assert admit(10.99, verified=True) == 0
    assert admit(11.0) == 2
    assert [admit(11.1), admit(11.2), admit(11.3)] == [0, 0, None]
    assert admit(9.0) == 1, "a clock that was set back"


def test_fifty_a_second_unless_it_is_said() -> None:
    throttle = Throttle()
    kept = [throttle.admit(verified=False, now=0.5) for _ in range(60)]
    assert sum(one is not None for one in kept) == 50
    assert throttle.admit(verified=False, now=time.time()) == 10
