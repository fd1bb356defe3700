"""A program in the foreground: the terminal and all signals are its own, and its end is waited for."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from .place import Failure

_OWN: Final = (
    "SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGPIPE", "SIGTTIN",
    "SIGTTOU", "SIGWINCH", "SIGURG", "SIGINFO", "SIGCHLD",
)  # fmt: skip
"""The signals that are not passed on: they cannot be held, are faults of this process, or end no process.

Each other one would end this process before it has revoked the keys. A program may send it to its parent.
"""
_KERNEL: Final = 0x80
"""`si_code` of a signal that the kernel sends, as Linux does for Ctrl-C: to the whole foreground group."""
_PR_SET_DUMPABLE: Final = 4
NOT_FOUND: Final = 127
NOT_EXECUTABLE: Final = 126


class NotStarted(Failure):
    """A program that cannot be started. Exit code 126 or 127, as in a shell."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


if sys.platform != "win32":
    _FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP)
    _FORWARDED: Final = {one for one in signal.valid_signals() if getattr(one, "name", "") not in _OWN}
    _WATCHED: Final = {signal.SIGCHLD, *_FORWARDED}

    @contextlib.contextmanager
    def held_signals() -> Iterator[set[int]]:
        """Hold all signals that a program may get, and yield the mask before. `run` passes them on.

        A signal that comes before the program has started reaches the program. One that comes after its end
        waits until the block ends.
        """
        # A signal that would be ignored is not kept by every system while it is held.
        before = {number: signal.signal(number, _wake) for number in (signal.SIGCHLD, signal.SIGCONT)}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        try:
            yield mask
        finally:
            # The program was told of them. Our own work is done, and they must not end it half-way.
            while signal.sigpending() & _WATCHED:
                signal.sigwait(_WATCHED)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(argv: Sequence[str], environ: Mapping[str, str], mask: set[int]) -> int:
        """Run a program to its end and return its exit code, 128 + n if signal n ended it.

        Call it inside `held_signals`, with the mask that this yields. Raises NotStarted.
        """
        _hide()
        try:
            child = _spawned(list(argv), environ, mask)
        except (OSError, ValueError) as error:
            raise _not_started(argv[0], error) from None
        while True:
            number, from_terminal = _next_signal()
            if number == signal.SIGCHLD:
                if (code := _ended(child)) is not None:
                    return code
                continue
            if not from_terminal:
                os.kill(child, number)
            if number == signal.SIGTSTP:
                _stop_with(child, number)

    def _spawned(argv: list[str], environ: Mapping[str, str], mask: set[int]) -> int:
        """Start a program in our process group: a shell stops, continues and interrupts both as one job.

        Raises OSError, ValueError.
        """
        try:
            return os.posix_spawnp(argv[0], argv, environ, setsigmask=mask, setsigdef=[signal.SIGPIPE])
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
        # A script without #!, which POSIX has execvp() give to a shell.
        script = shutil.which(argv[0], path=environ.get("PATH")) or argv[0]
        return _spawned(["/bin/sh", script, *argv[1:]], environ, mask)

    def _hide() -> None:
        """Keep memory and environment of this process from programs of its user, as Linux can (prctl(2))."""
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)

    def _wake(*_: object) -> None:
        """Do nothing: only the arrival of the signal counts."""

    def _next_signal() -> tuple[int, bool]:
        """Wait for a signal. Return it, and whether the terminal has sent it to the program too."""
        if wait := getattr(signal, "sigwaitinfo", None):  # macOS has none
            found = wait(_WATCHED)
            return found.si_signo, found.si_code == _KERNEL and found.si_signo in _FROM_TERMINAL
        number = signal.sigwait(_WATCHED)
        return number, number in _FROM_TERMINAL and _is_foreground()

    def _is_foreground() -> bool:
        """Return whether this is a job in the foreground of a terminal, to which Ctrl-C goes."""
        with contextlib.suppress(OSError), Path(os.ctermid()).open("rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
        return False

    def _ended(child: int) -> int | None:
        """Reap what has ended, as process 1 of a container must. Return the program's exit code, or None.

        If the program has stopped itself, stop too: the shell waits for this process.
        """
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
                if pid == 0:
                    return None
                if pid == child and os.WIFSTOPPED(status):
                    if _has_shell():
                        _stop_with(child, os.WSTOPSIG(status))
                elif pid == child:
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code
        return None

    def _stop_with(child: int, number: int) -> None:
        """Stop as the program has, if the kernel lets a group without a shell do so; then continue it."""
        # One that the terminal has sent as well is pending and becomes one with this: it stops only once.
        os.kill(os.getpid(), number)
        held = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        os.kill(child, signal.SIGCONT)

    def _has_shell() -> bool:
        """Return whether the parent is a shell with job control, which notices a stop and can undo it."""
        try:
            parent = os.getppid()
            return os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp()
        except OSError:
            return False


def check_program(program: str, path: str | None) -> None:
    """Raise NotStarted if there is no such program. `path` is the search path."""
    if shutil.which(program, os.F_OK, path) is None:
        raise _not_started(program, FileNotFoundError())


def _not_started(program: str, error: Exception) -> NotStarted:
    if isinstance(error, FileNotFoundError):
        return NotStarted(f"{program}: there is no such program", NOT_FOUND)
    why = (getattr(error, "strerror", None) or "cannot be started").lower()
    return NotStarted(f"{program}: {why}", NOT_EXECUTABLE)
