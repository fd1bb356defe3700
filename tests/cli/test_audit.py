"""`presign audit` as an operator calls it: what is shown and followed, and what no terminal obeys."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.config import write_config
from support.places import ROOT
from support.puppet import eventually
from support.shell import Done, Shell

NOW = 1_795_881_540
AT = "2026-11-28T15:59:00Z"


def line(**fields: Any) -> dict[str, Any]:
    return {
        "time": NOW + 0.5,
        "at": "2026-11-28T15:59:00.500Z",
        "request_id": "req_1",
        "decision": "forward",
        "scheme": "presign",
        "carrier": "query",
        "connection": "conn",
        "key": "k1",
        "signature": "0123456789abcdef" * 2,
        "id": None,
        "method": "GET",
        "path": "/v1/models",
        "upstream": "https://api.example.com",
        "client": "203.0.113.9",
        "code": None,
        "detail": None,
        "status": 200,
        "upstream_status": 200,
        "bytes_in": 0,
        "bytes_out": 1229,
        "duration": 0.085,
        "upstream_duration": 0.08,
        **fields,
    }


REFUSED = {"decision": "deny", "code": "expired", "detail": "expired 12 s ago", "status": 403}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    found = Shell(tmp_path, TZ="UTC")
    write_config({"audit": {"file": "audit.jsonl"}}, found.directory)
    return found


@pytest.fixture
def log(shell: Shell) -> Path:
    return shell.directory / "audit.jsonl"


def test_the_lines_of_these_tests_have_the_fields_that_the_gateway_writes() -> None:
    schema = json.loads((ROOT / "docs/audit.schema.json").read_text("utf-8"))
    assert list(line()) == schema["required"]


def put(path: Path, *lines: dict[str, Any] | bytes) -> None:
    with path.open("ab") as file:
        for one in lines:
            file.write((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n")


def ids(done: Done) -> list[str]:
    assert done.code == 0, done.all
    return [json.loads(text)["request_id"] for text in done.out.splitlines()]


def test_a_person_reads_who_asked_for_what_and_why_it_was_refused(shell: Shell, log: Path) -> None:
    put(
        log,
        line(id="nightly"),
        line(**REFUSED, suppressed_before=950),
        line(code="upstream", detail="it broke off", status=None, lost_before=3),
        line(scheme="source", connection="pk_a", path="https://cdn.example.com/a.png", key=None),
    )
    assert shell.presign("audit").out.splitlines() == [
        f"{AT} 203.0.113.9: GET conn/v1/models 200 1.2k 85ms (key k1, id nightly, query, req_1)",
        f"{AT} 203.0.113.9: GET conn/v1/models 403 refused: expired: expired 12 s ago (key k1, query, req_1)"
        " [950 refusals before it are not in the log]",
        f"{AT} 203.0.113.9: GET conn/v1/models - 1.2k 85ms (key k1, query, req_1): upstream: it broke off"
        " [3 lines before it were lost]",
        f"{AT} 203.0.113.9: GET pk_a https://cdn.example.com/a.png 200 1.2k 85ms (query, req_1)",
    ]


@pytest.mark.parametrize("columns", ["80", "120", "400"])
def test_what_went_wrong_is_red_in_every_width(shell: Shell, log: Path, columns: str) -> None:
    put(
        log,
        line(path="/refused:/upstream:"),
        line(**REFUSED),
        line(code="upstream", detail="upstream: it broke off", status=502),
    )
    granted, refused, failed = re.split(
        rf"(?m)^(?={AT[:4]})", shell.presign("audit", CLICOLOR_FORCE="1", COLUMNS=columns).out
    )[1:]
    assert "\x1b" not in granted
    assert re.findall("\x1b\\[31m(.*?)\x1b\\[0m", refused) == ["refused:"]
    assert re.findall("\x1b\\[31m(.*?)\x1b\\[0m", failed) == ["upstream:"]


def test_times_are_those_of_the_machine_and_can_be_given_back(shell: Shell, log: Path) -> None:
    put(log, line(request_id="req_0", time=NOW - 1), line())
    shown = shell.presign("audit", "-n", "1", TZ="Europe/Berlin").out.split()[0]
    assert shown == "2026-11-28T16:59:00+01:00"
    assert ids(shell.presign("audit", "--json", "--since", shown)) == ["req_1"]
    assert ids(shell.presign("audit", "--json", "--until", shown)) == ["req_0"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((), ["req_1", "req_2", "req_3"]),
        (("--connection", "conn"), ["req_1", "req_2"]),
        (("--key", "k1"), ["req_1", "req_3"]),
        (("--key", "other/k1"), ["req_3"]),
        (("--id", "nightly"), ["req_2"]),
        (("--id", "other/nightly"), []),
        (("--signature", "f" * 32), ["req_3"]),
        (("--request", "req_2"), ["req_2"]),
        (("--client", "203.0.113.0/24"), ["req_1", "req_2"]),
        (("--client", "2001:db8::1"), ["req_3"]),
        (("--code", "expired"), ["req_2"]),
        (("--code", "expired", "--code", "upstream"), ["req_2", "req_3"]),
        (("--status", "403"), ["req_2"]),
        (("--status", "4XX", "--status", "2xx"), ["req_1", "req_2"]),
        (("--connection", "conn", "--status", "2xx"), ["req_1"]),
        (("--since", "1h"), ["req_3"]),
        (("--until", "1h"), ["req_1", "req_2"]),
        (("-n", "2"), ["req_2", "req_3"]),
        (("-n", "1", "--connection", "conn"), ["req_2"]),
        (("-n", "0"), []),
    ],
)
def test_filters_are_combined(arguments: tuple[str, ...], found: list[str], shell: Shell, log: Path) -> None:
    put(
        log,
        line(time=time.time() - 7200),
        line(**REFUSED, request_id="req_2", id="nightly", key="k2", time=time.time() - 7000),
        line(
            request_id="req_3",
            connection="other",
            signature="f" * 32,
            client="2001:db8::1",
            code="upstream",
            status=502,
            time=time.time(),
        ),
    )
    assert ids(shell.presign("audit", "--json", *arguments)) == found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--code", "expird"), "did you mean expired?"),
        (("--code", "\x1b[31m"), "they are malformed"),
        (("--status", "forbidden"), "--status needs"),
        (("--client", "203.0.113.1/24"), "--client needs"),
        (("--since", "yesterday"), "--since needs a duration"),
        (("--until", "1"), "--until needs a duration"),
        (("--connection", "a b"), "--connection needs"),
        (("--key", "a/b/c"), "--key needs"),
        (("--request", "1"), "--request needs"),
        (("--signature", "f"), "--signature needs"),
        (("-f", "--until", "1h"), "--follow needs"),
        (("-f", "-"), "--follow needs"),
        (("-n", "-1"), "-1"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[str, ...], said: str, shell: Shell) -> None:
    done = shell.presign("audit", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "\x1b" not in done.all


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\r\n\x7f\ud800é"


@pytest.mark.parametrize("as_json", [False, True])
def test_no_terminal_obeys_what_is_in_a_field(as_json: bool, shell: Shell, log: Path) -> None:
    for name in line():
        if name != "time":
            put(log, line(**{name: HOSTILE}), line(**{name: {"a": [HOSTILE]}}), line(**{name: 10**300}))
            put(log, line(**REFUSED | {name: HOSTILE}))
    done = shell.presign("audit", *(["--json"] if as_json else []))
    assert (done.code, done.err) == (0, "")
    rows = done.out.splitlines()
    assert len(rows) == 4 * (len(line()) - 1)
    assert all(row.isascii() and row.isprintable() for row in rows)


def test_what_is_no_record_is_counted_and_all_else_is_shown(shell: Shell, log: Path) -> None:
    put(log, line(), b'{"time": 1, "half', b"[1]", b'"x"', b"\xff", b"[" * 200_000, b"{}", b'{"time": "x"}')
    put(log, b'{"time": 1e400}', b'{"time": NaN}', b'{"time": true}', b'{"time": 1, "x": Infinity}', b"")
    put(log, b'{"time": 1, "x": ' + b"9" * 5000 + b"}", b"x" * 3_000_000, line(request_id="req_2"))
    with log.open("ab") as file:
        file.write(json.dumps(line(request_id="req_3")).encode())
    done = shell.presign("audit")
    assert (done.code, len(done.out.splitlines())) == (0, 3)
    assert done.err == "13 lines could not be read.\n"
    assert ids(shell.presign("audit", "--json")) == ["req_1", "req_2", "req_3"]
    assert shell.presign("audit", "--json").err == ""


def test_a_file_or_standard_input_needs_no_configuration(shell: Shell, log: Path) -> None:
    put(log, line())
    (shell.directory / "config.yaml").unlink()
    assert ids(shell.presign("audit", "audit.jsonl", "--json")) == ["req_1"]
    assert ids(shell.presign("audit", "-", "--json", stdin=log.read_bytes())) == ["req_1"]
    assert shell.bash("presign audit <(cat audit.jsonl) --json").out.count("req_1") == 1
    assert shell.presign("audit").code == 1


def test_where_there_is_no_log_it_is_said_why(shell: Shell, log: Path) -> None:
    missing = shell.presign("audit")
    assert (missing.code, "no gateway has written an audit log yet" in missing.err) == (1, True)
    directory = shell.presign("audit", ".")
    assert (directory.code, "is not a file" in directory.err) == (1, True)
    assert shell.presign("audit", "/dev/zero").code == 1
    log.touch()
    assert shell.presign("audit") == Done(0, "", "The audit log is empty.\n")
    put(log, line())
    assert shell.presign("audit", "--code", "expired") == Done(
        0, "", "No line of the audit log is of this kind.\n"
    )
    write_config({"audit": {"file": "-"}}, shell.directory)
    assert "standard error: give the FILE" in shell.presign("audit").err
    write_config({}, shell.directory)
    assert json.loads(shell.presign("audit", "--json").out)["error"].startswith("config.yaml names no audit")


def test_a_shell_completes_codes(shell: Shell) -> None:
    words = "presign audit --code ex"
    done = shell.presign(_PRESIGN_COMPLETE="zsh_complete", COMP_WORDS=words, COMP_CWORD="3")
    assert done.out.splitlines()[1] == "expired"


# -- following ------------------------------------------------------------------------------------------


class Followed:
    """`presign audit -f --json`, and the request ids that it has printed."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self._out = shell.directory / "followed"
        with self._out.open("wb") as out:
            self.child = subprocess.Popen(
                ["presign", "audit", "-f", "--json", *arguments],
                env=shell.env,
                cwd=shell.directory,
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            )

    def shows(self, *wanted: str) -> bool:
        return eventually(lambda: self.ids() == list(wanted), 30)  # it has to start first

    def ids(self) -> list[str]:
        text = self._out.read_text()
        return [json.loads(one)["request_id"] for one in text[: text.rfind("\n") + 1].splitlines()]

    def end(self) -> None:
        self.child.kill()
        self.child.wait()


@pytest.fixture
def follow(shell: Shell) -> Iterator[Callable[..., Followed]]:
    made: list[Followed] = []

    def make(*arguments: str) -> Followed:
        made.append(Followed(shell, *arguments))
        return made[-1]

    yield make
    for one in made:
        one.end()


def numbered(number: int, **fields: Any) -> dict[str, Any]:
    return line(request_id=f"req_{number}", **fields)


def test_a_followed_log_is_followed_through_each_kind_of_rotation(
    log: Path, follow: Callable[..., Followed]
) -> None:
    put(log, numbered(1), numbered(2))
    followed = follow("-n", "1")
    assert followed.shows("req_2")
    log.rename(log.with_suffix(".1"))
    put(log.with_suffix(".1"), numbered(3))
    put(log, numbered(4))
    assert followed.shows("req_2", "req_3", "req_4")
    log.unlink()
    put(log, numbered(5), numbered(6))
    assert followed.shows("req_2", "req_3", "req_4", "req_5", "req_6")
    os.truncate(log, 0)
    put(log, numbered(7))
    assert followed.shows("req_2", "req_3", "req_4", "req_5", "req_6", "req_7")
    followed.child.send_signal(signal.SIGINT)
    assert followed.child.wait(30) == 0


def test_a_line_that_is_written_in_two_pieces_is_shown_once_whole(
    log: Path, follow: Callable[..., Followed]
) -> None:
    put(log, *map(numbered, range(20)))
    followed = follow("--code", "expired", "--code", "upstream")
    text = json.dumps(numbered(21, code="expired")).encode()
    with log.open("ab", buffering=0) as file:
        file.write(text[:50])
        time.sleep(1)
        file.write(text[50:] + b"\n")
    put(log, numbered(22), numbered(23, code="upstream"))
    assert followed.shows("req_21", "req_23")


def test_who_follows_sees_the_last_ten_lines_first(log: Path, follow: Callable[..., Followed]) -> None:
    put(log, *map(numbered, range(20)))
    assert follow().shows(*(f"req_{number}" for number in range(10, 20)))


MEASURED = """
import resource, subprocess, sys
subprocess.run(["presign", "audit", *sys.argv[1:]], stdout=-3, stderr=-3, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.parametrize("arguments", [(), ("-n", "3")])
def test_a_large_log_takes_no_more_memory_than_a_small_one(
    arguments: tuple[str, ...], shell: Shell, log: Path
) -> None:
    put(log, line())
    small = _peak(shell, *arguments)
    with log.open("ab") as file:
        file.write((json.dumps(line()).encode() + b"\n") * 100_000 + b"x" * 30_000_000 + b"\n")
    assert _peak(shell, *arguments) < small + 10 * 1024


def _peak(shell: Shell, *arguments: str) -> int:
    """KiB."""
    (shell.directory / "measure.py").write_text(MEASURED)
    return int(shell.bash(f"python3 measure.py {' '.join(arguments)}").out)
