"""The whole command: its name in usage texts, its standard streams, and failures outside its verbs."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

import click

from ..config import pasteable_command
from ..prerequisites import missing

_COMPLETION: Final = "_PRESIGN_COMPLETE"
"""The variable with which a shell requests completions. click would derive one from the program's name."""


class Program(click.Group):
    """A group of verbs. If the machine is at fault, it ends with one sentence, never with a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        _prepare_streams()
        _prepare_signals()
        try:
            name = prog_name or pasteable_command.presign()
            try:
                return super().main(args, name, complete_var or _COMPLETION, standalone_mode, **extra)
            finally:
                if sys.stdout is not None and not sys.stdout.closed:
                    sys.stdout.flush()  # at the interpreter's exit, a failure would be a traceback
        except ModuleNotFoundError as error:
            sys.exit(missing(error))
        except BrokenPipeError:
            _end_unread()
        except OSError as error:
            _close_output()
            where = f"{error.filename}: " if error.filename else ""
            sys.exit(f"presign: {where}{(error.strerror or 'failed').lower()}")

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Make the context. This prints help and version too, so a closed pipe can fail here."""
        with _for_a_reader():
            return super().make_context(info_name, args, parent, **extra)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            from ..similar_names import did_you_mean

            if hint := did_you_mean(name, self.list_commands(ctx)):
                ctx.fail(f"No such command {name!r}: {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _for_a_reader():
            return super().invoke(ctx)


@contextlib.contextmanager
def _for_a_reader() -> Iterator[None]:
    """Catch a closed pipe before click does, which would turn it into exit code 1."""
    try:
        yield
    except BrokenPipeError:
        _end_unread()


def _prepare_signals() -> None:
    """Handle SIGTERM as process 1 of a container, to which Linux delivers only signals that it handles.

    SIGTERM then ends the command, as it ends any other process, until `serve` installs its own handler.
    """
    if os.getpid() == 1:
        import signal  # seldom needed, and slow to import

        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def _prepare_streams() -> None:
    """Ensure that all three streams exist, and that none fails at a character that its encoding lacks."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It is closed: the next file or socket would get this number, and be used as a standard stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python uses None for a stream that was closed from the start, which not every library expects.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def _end_unread() -> NoReturn:
    """End by SIGPIPE, as other programs do when their reader has gone. Python ignores SIGPIPE by default."""
    _close_output()
    if sys.platform != "win32":
        import signal

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(1)


def _close_output() -> None:
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.close()
