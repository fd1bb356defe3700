"""The command `presign` as people run it: in a shell, in a directory of its own, on a terminal or not."""

import os
import pty
import select
import shlex
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import preloaded
from support.preloaded import ADDON
from support.programs import needs

MODULE = (sys.executable, "-m", "presign_proxy")
_LIMIT = 120.0
"""Seconds that a story of many commands may take on a machine that has much else to do."""
# The terminal that a new session has as its standard input becomes the one that Ctrl-C comes from. Where the
# tests run in the background, all that they start would ignore Ctrl-C.
_TAKE_TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


# As pip writes it, both a shell's script and Python's: after #! a path must not hold a blank.
_COMMAND = """#!/bin/sh
'''exec' {command} "$0" "$@"
' '''
from presign_proxy.cli.main import main

main()
"""


@dataclass(frozen=True)
class Done:
    """How a command ended. On a terminal, `out` is all that was to be seen there, and `err` is empty."""

    code: int
    out: str
    err: str = ""

    @property
    def all(self) -> str:
        return self.out + self.err


class Shell:
    """A directory, and what is run in it; of the environment only what is given and what Python needs.

    `presign` stands on the PATH, as an installation would put it there. So does `python3`: there are machines
    that have a Python under another name only.
    """

    def __init__(self, directory: Path, **env: str) -> None:
        self.directory = directory / "here"
        self.directory.mkdir(mode=0o700)
        self.home = directory / "home"
        self.home.mkdir()
        commands = directory / "bin"
        commands.mkdir()
        command = commands / "presign"
        command.write_text(_COMMAND.format(command=shlex.join(preloaded.command())))
        command.chmod(0o755)
        (commands / "python3").symlink_to(sys.executable)
        self.env = {
            "PATH": os.pathsep.join([str(commands), os.environ.get("PATH", "")]),
            "PYTHONPATH": str(ADDON),
            "HOME": str(self.home),
            "BASH_ENV": str(self.home / ".profile"),  # what a story exports there stays
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            **env,
        }

    def presign(self, *arguments: str, stdin: str | bytes = b"", **env: str) -> Done:
        """Run one command, with its standard input given."""
        given = stdin.encode() if isinstance(stdin, str) else stdin
        child = self._popen([*preloaded.command(*MODULE[1:]), *arguments], env)
        out, err = child.communicate(given, _LIMIT)
        return Done(child.returncode, out.decode(), err.decode())

    def start(self, *arguments: str, **env: str) -> "subprocess.Popen[bytes]":
        """Start one command, with pipes for all that it reads and writes."""
        return self._popen([*MODULE, *arguments], env)

    def _popen(self, argv: Sequence[str], env: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.directory,
            env={**self.env, **env},
        )

    def bash(self, script: str, stdin: str = "", **env: str) -> Done:
        """Run a line of shell; what it prints and what it complains of are in `out`, in their order."""
        needs("bash")
        done = subprocess.run(
            ["bash", "-c", script],
            input=stdin.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory,
            env=self.env | env,
            timeout=_LIMIT,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode())

    def terminal(
        self,
        argv: Sequence[str],
        typed: Iterable[str],
        prompted: Callable[[int], None] | None = None,
        **env: str,
    ) -> Done:
        """Run a program on a terminal, and type each text once it stands there and asks.

        Args:
            prompted: is called with the process id at every question, before it is answered.
        """
        with Terminal(argv, self.directory, self.env | env) as terminal:
            for text in typed:
                terminal.wait_for_question()
                if prompted:
                    prompted(terminal.child.pid)
                terminal.type(text)
            return Done(terminal.wait(), terminal.screen)


class Terminal:
    """A program with a terminal of its own, which is also the one that Ctrl-C comes from."""

    def __init__(self, argv: Sequence[str], directory: Path, env: Mapping[str, str]) -> None:
        self._raw = b""
        self._asked_at = 0
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 160))
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, *argv],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=directory,
            env=dict(env),
            start_new_session=True,
        )
        os.close(slave)

    @property
    def screen(self) -> str:
        return self._raw.decode("utf-8", "replace").replace("\r\n", "\n")

    def wait_for_question(self) -> None:
        """Until it has printed something new that ends as a question does, and reads the answer."""
        deadline = time.monotonic() + _LIMIT
        while not (self._raw[self._asked_at :].endswith(b": ") and self._is_waiting()):
            if time.monotonic() > deadline or not (self._read(0.05) or self.child.poll() is None):
                raise AssertionError(f"it asks nothing:\n{self.screen}")
        self._asked_at = len(self._raw)

    def wait_for(self, text: str) -> None:
        """Until it has printed the text."""
        deadline = time.monotonic() + _LIMIT
        while text not in self.screen:
            if time.monotonic() > deadline or not (self._read(0.05) or self.child.poll() is None):
                raise AssertionError(f"it does not say {text!r}:\n{self.screen}")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode() + b"\n")

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.write(self._master, b"\x03")

    def wait(self) -> int:
        """Its exit code, once it has ended; of a signal, a negative one."""
        deadline = time.monotonic() + _LIMIT
        while self._read(0.05) or self.child.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end:\n{self.screen}")
        return self.child.wait()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._master)

    def _read(self, timeout: float) -> bool:
        """Whether there may be more."""
        if not select.select([self._master], [], [], timeout)[0]:
            return False
        try:
            self._raw += (data := os.read(self._master, 65536))
        except OSError:  # Linux says so when the last of its users is gone
            return False
        return bool(data)

    def _is_waiting(self) -> bool:
        """Whether it sleeps, where that can be seen: what is typed ahead of the prompt is flushed away."""
        try:
            state = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        return state == "S"
