"""Secrets from where they are kept: what a hostile file or a program that hangs, floods or forks can do."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from presign_proxy.config import secret_commands, secret_sources
from presign_proxy.config.secret_commands import CommandError, end_all, output_of
from presign_proxy.config.secret_sources import MAX_BYTES, SecretError, checked, name_of, resolve, text_of
from presign_proxy.config.values import SecretSource
from support.descriptors import descriptors
from support.puppet import eventually

ENVIRON = {"PATH": "/usr/bin:/bin", "TOKEN": "sk-ENV", "EMPTY": ""}


def source(**kind: Any) -> SecretSource:
    return SecretSource(**{"literal": None, "env": None, "file": None, "exec": None} | kind)


def value(base: Path, **kind: Any) -> str:
    return resolve(source(**kind), base, ENVIRON).reveal()


def refusal(base: Path, **kind: Any) -> str:
    with pytest.raises(SecretError) as error:
        resolve(source(**kind), base, ENVIRON)
    return str(error.value)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before, others = descriptors(), children()
    yield
    assert set() == secret_commands._RUNNING
    assert descriptors() == before
    assert children() == others


def children() -> set[int]:
    """The processes that this one has started and not waited for; a gateway of another test may be one."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, after = int(path.parent.name), path.read_text().rpartition(")")[2].split()
            found |= {pid} if int(after[1]) == os.getpid() else set()
    return found


# -- where it is kept ---------------------------------------------------------------------------------


def test_a_secret_is_the_one_that_its_source_holds(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-FILE\n")
    assert value(tmp_path, literal="sk-LITERAL") == "sk-LITERAL"
    assert value(tmp_path, env="TOKEN") == "sk-ENV"
    assert value(tmp_path, file="key") == "sk-FILE"
    assert value(tmp_path, file=str(tmp_path / "key")) == "sk-FILE"
    assert value(tmp_path, exec=("echo", "sk-EXEC")) == "sk-EXEC"


def test_a_source_is_named_without_what_it_holds(tmp_path: Path) -> None:
    assert name_of(source(env="TOKEN")) == "the environment variable TOKEN"
    assert name_of(source(file="a/key")) == "the file a/key"
    assert name_of(source(exec=("/usr/bin/vault", "read", "sk-1"))) == "the program vault"
    assert name_of(source(literal="sk-1")) == "it"
    assert text_of(source(), tmp_path, ENVIRON) == ""
    assert text_of(source(literal="sk-1"), tmp_path, ENVIRON) == "sk-1"


def test_what_is_not_there_is_told_of_by_its_source(tmp_path: Path) -> None:
    assert refusal(tmp_path, env="MISSING") == "the environment variable MISSING is not set or empty"
    assert refusal(tmp_path, env="EMPTY") == "the environment variable EMPTY is not set or empty"
    assert refusal(tmp_path, literal="") == "it is not set or empty"
    assert refusal(tmp_path, exec=("true",)) == "the program true is not set or empty"
    assert refusal(tmp_path, file="no") == f"the file {tmp_path}/no: no such file or directory"
    assert refusal(tmp_path, file="a\0b") == "the path of the file contains a NUL"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"sk\n", "sk"),
        (b"sk\r\n", "sk"),
        (b"sk", "sk"),
        (b" sk ", " sk "),
        ("schlüssel\n".encode(), "schlüssel"),
    ],
)
def test_one_line_break_at_the_end_is_not_part_of_it(tmp_path: Path, written: bytes, read: str) -> None:
    (tmp_path / "key").write_bytes(written)
    assert value(tmp_path, file="key") == read
    assert value(tmp_path, exec=("cat", "key")) == read


@pytest.mark.parametrize(
    "written", [b"sk\n\n", b"a\nb", b"a\rb", b"a\x00b", b"a\x1fb", b"a\x7f", b"sk\n\r\n"]
)
def test_what_would_end_a_header_is_refused(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "key").write_bytes(written)
    assert refusal(tmp_path, file="key") == "the file key holds a line break or another control character"
    with pytest.raises(SecretError, match=r"^it holds a line break"):
        checked(written.decode("latin-1"), "it")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    assert refusal(tmp_path, file="key") == f"the file {tmp_path}/key is not UTF-8"
    assert refusal(tmp_path, exec=("cat", "key")) == "the program cat is not UTF-8"
    assert refusal(tmp_path, literal="\udcff") == "it is not UTF-8"
    assert checked("ü ~\x80", "it").reveal() == "ü ~\x80"


def test_a_file_is_as_large_as_it_may_be_and_no_larger(tmp_path: Path) -> None:
    assert MAX_BYTES == 64 * 1024
    (tmp_path / "key").write_bytes(b"x" * MAX_BYTES)
    assert value(tmp_path, file="key") == "x" * MAX_BYTES
    assert value(tmp_path, exec=("cat", "key")) == "x" * MAX_BYTES
    (tmp_path / "key").write_bytes(b"x" * (MAX_BYTES + 1))
    assert refusal(tmp_path, file="key") == f"the file {tmp_path}/key is larger than {MAX_BYTES} bytes"
    assert refusal(tmp_path, exec=("cat", "key")) == f"the program cat printed more than {MAX_BYTES} bytes"


def test_of_an_endless_file_no_more_than_that_is_read(tmp_path: Path) -> None:
    assert refusal(tmp_path, file="/dev/zero") == f"the file /dev/zero is larger than {MAX_BYTES} bytes"


def test_a_file_that_fails_without_words_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError

    monkeypatch.setattr(secret_sources, "read_at_most", fail)
    assert refusal(tmp_path, file="key") == f"the file {tmp_path}/key: cannot be read"


# -- programs -----------------------------------------------------------------------------------------


def run(base: Path, *argv: str, limit: int = 100) -> bytes:
    return output_of(argv, base, ENVIRON, limit)


def failure(base: Path, *argv: str, limit: int = 100) -> str:
    with pytest.raises(CommandError) as error:
        run(base, *argv, limit=limit)
    return str(error.value)


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret_commands.TIMEOUT == 10.0
    monkeypatch.setattr(secret_commands, "TIMEOUT", 0.3)


def test_a_program_gets_its_arguments_as_they_are_and_no_shell(tmp_path: Path) -> None:
    assert run(tmp_path, "echo", "$HOME", ";", "id") == b"$HOME ; id\n"


def test_a_program_runs_where_it_should_with_the_environment_it_should_have(tmp_path: Path) -> None:
    assert run(tmp_path, "pwd") == f"{tmp_path.resolve()}\n".encode()
    assert b"TOKEN=sk-ENV" in run(tmp_path, "env")
    assert b"LS_COLORS" not in run(tmp_path, "env")
    assert set(run(tmp_path, "env").split()) >= {b"TOKEN=sk-ENV", b"EMPTY="}


def test_a_program_reads_nothing_and_its_errors_go_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What it says there may hold the secret."""
    assert run(tmp_path, "sh", "-c", "cat; echo sk-SECRET >&2; echo done") == b"done\n"
    found = capfd.readouterr()
    assert (found.out, found.err) == ("", "")


def test_a_program_that_does_not_exist_or_may_not_run_is_told_of(tmp_path: Path) -> None:
    assert failure(tmp_path, "no-such-program") == "no such file or directory"
    (tmp_path / "key").touch()
    assert failure(tmp_path, "./key") == "permission denied"
    assert failure(tmp_path, "a\0b") == "cannot be started"
    assert failure(tmp_path / "gone", "true") == "no such file or directory"


@pytest.mark.parametrize("status", [1, 7, 255])
def test_a_program_that_fails_has_printed_no_secret(tmp_path: Path, status: int) -> None:
    said = failure(tmp_path, "sh", "-c", f"echo sk-SECRET; exit {status}")
    assert said == f"ended with exit code {status}; run it by hand to see why"


@pytest.mark.parametrize(("size", "is_taken"), [(99, True), (100, True), (101, False), (10_000, False)])
def test_a_program_prints_so_much_and_no_more(tmp_path: Path, size: int, is_taken: bool) -> None:
    argv = ("head", "-c", str(size), "/dev/zero")
    if is_taken:
        assert run(tmp_path, *argv) == bytes(size)
    else:
        assert failure(tmp_path, *argv) == "printed more than 100 bytes"


def test_a_program_that_prints_for_ever_is_ended(tmp_path: Path) -> None:
    assert failure(tmp_path, "yes") == "printed more than 100 bytes"


def test_a_program_that_prints_a_piece_at_a_time_is_read_to_its_end(tmp_path: Path) -> None:
    assert run(tmp_path, "sh", "-c", "printf a; sleep 0.05; printf b; sleep 0.05; echo c") == b"abc\n"


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize(
    "script", ["sleep 60", "echo sk; sleep 60", "exec >&-; sleep 60", "trap '' TERM; sleep 60"]
)
def test_a_program_that_hangs_is_given_up(tmp_path: Path, script: str) -> None:
    assert failure(tmp_path, "sh", "-c", script) == "did not end within 0 s"


def is_alive(pid: int) -> bool:
    """A zombie that its new parent has not reaped yet is not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text("utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.usefixtures("patience")
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="takes /proc")
def test_what_a_program_has_started_ends_with_it(tmp_path: Path) -> None:
    """Also what would hold its output open for ever."""
    script = "sleep 61 & echo $! > one; (sleep 62 & echo $! > two); wait"
    assert failure(tmp_path, "sh", "-c", script) == "did not end within 0 s"
    pids = [int((tmp_path / name).read_text()) for name in ("one", "two")]
    assert eventually(lambda: not any(map(is_alive, pids)))


def test_a_program_has_a_session_of_its_own(tmp_path: Path) -> None:
    """So that Ctrl-C at the gateway, and its own end, are the gateway's to give."""
    printed = run(
        tmp_path, "sh", "-c", "ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat; echo $$"
    )
    session, pid = printed.split()
    assert session == pid


@pytest.mark.usefixtures("patience")
def test_its_time_is_that_of_printing_and_ending_together(tmp_path: Path) -> None:
    began = time.monotonic()
    script = "sleep 0.2; echo sk; exec >&-; sleep 60"
    assert failure(tmp_path, "sh", "-c", script) == "did not end within 0 s"
    assert time.monotonic() - began < 30, "and not the time of each piece anew"


def test_more_descriptors_than_select_takes_are_no_obstacle(tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1200:
        pytest.skip("takes 1,200 descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        assert run(tmp_path, "echo", "sk") == b"sk\n"
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_left_of_its_time_is_waited_for_in_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    sizes: list[int] = []
    poll, read = secret_commands.select.poll, os.read

    class Counted:
        def __init__(self) -> None:
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, wait: float) -> Any:
            waits.append(wait)
            return self._poll.poll(wait)

    def counted(descriptor: int, size: int) -> bytes:
        if size < 200:  # others read larger pieces
            sizes.append(size)
        return read(descriptor, size)

    monkeypatch.setattr(secret_commands.select, "poll", Counted)
    monkeypatch.setattr(os, "read", counted)
    monkeypatch.setattr(secret_commands, "time", SimpleNamespace(monotonic=lambda: 50.0))
    assert run(tmp_path, "sh", "-c", "printf abc; sleep 0.1; printf def") == b"abcdef"
    assert set(waits) == {10_000.0}
    assert sizes[0] == 101, "one byte more than is allowed, to see that there is one"
    assert sizes == sorted(sizes, reverse=True)
    assert min(sizes) == 95


def test_the_pipe_of_a_program_is_closed_at_once_and_not_when_memory_is_collected(tmp_path: Path) -> None:
    kept: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def keeping(*arguments: Any, **more: Any) -> Any:
        kept.append(popen(*arguments, **more))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(secret_commands.subprocess, "Popen", keeping)
        run(tmp_path, "echo", "sk")
    assert kept[0].stdout is not None
    assert kept[0].stdout.closed


def begun(base: Path, *argv: str) -> tuple[threading.Thread, list[str]]:
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(failure(base, *argv)))
    thread.start()
    assert eventually(lambda: secret_commands._RUNNING)
    return thread, said


def test_a_gateway_that_ends_ends_the_programs_it_waits_for(tmp_path: Path) -> None:
    thread, said = begun(tmp_path, "sh", "-c", "echo $$ > pid; sleep 60")
    assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    end_all()
    thread.join(20)
    assert said == [f"ended with exit code -{int(signal.SIGKILL)}; run it by hand to see why"]


def test_a_program_that_has_ended_is_not_signalled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be somebody else's by then."""
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda pid, _: signalled.append(pid))
    assert run(tmp_path, "echo", "sk") == b"sk\n"
    child = subprocess.Popen(["true"])
    child.wait()
    secret_commands._RUNNING.add(child)  # type: ignore[arg-type]
    end_all()
    secret_commands._RUNNING.discard(child)  # type: ignore[arg-type]
    assert signalled == []


def test_a_group_that_is_gone_already_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.killpg

    def gone(pid: int, number: int) -> None:
        kill(pid, number)
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(os, "killpg", gone)
    monkeypatch.setattr(secret_commands, "TIMEOUT", 0.2)
    assert failure(tmp_path, "sleep", "60") == "did not end within 0 s"
    thread, said = begun(tmp_path, "sleep", "60")
    end_all()
    thread.join(20)
    assert len(said) == 1


def test_a_program_is_run_only_for_what_it_alone_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_: list[Sequence[str]] = []
    output: Callable[..., bytes] = secret_commands.output_of

    def counted(argv: Sequence[str], *more: Any) -> bytes:
        run_.append(argv)
        return output(argv, *more)

    monkeypatch.setattr(secret_commands, "output_of", counted)
    (tmp_path / "key").write_text("sk")
    value(tmp_path, literal="sk"), value(tmp_path, env="TOKEN"), value(tmp_path, file="key")
    assert run_ == []
    value(tmp_path, exec=("echo", "sk"))
    assert run_ == [("echo", "sk")]
    assert secret_sources.MAX_BYTES == MAX_BYTES
