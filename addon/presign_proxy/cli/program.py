"""The command as a whole: its name in usage texts, its standard streams, and failures outside its verbs."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO

import click

from ..config import invocation
from ..prerequisites import missing

_COMPLETION: Final = "_PRESIGN_COMPLETE"
"""The variable by which `presign completion` has a shell ask; click would make it of the name."""


class Program(click.Group):
    """A group of verbs that ends in one sentence, never in a traceback, where the machine is at fault."""

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
            name = prog_name or invocation.presign()
            try:
                return super().main(args, name, complete_var or _COMPLETION, standalone_mode, **extra)
            finally:
                if sys.stdout is not None and not sys.stdout.closed:
                    sys.stdout.flush()  # at the end of the interpreter it would be a traceback
        except ModuleNotFoundError as error:
            sys.exit(missing(error))
        except BrokenPipeError:
            _end_unread()
        except OSError as error:
            _let_go_of_output()
            where = f"{error.filename}: " if error.filename else ""
            sys.exit(f"presign: {where}{(error.strerror or 'failed').lower()}")

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Also prints: help and version."""
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
    """Before click, which would make exit code 1 of it."""
    try:
        yield
    except BrokenPipeError:
        _end_unread()


def _prepare_signals() -> None:
    """As the first process of a container: Linux delivers to it only those signals that it handles.

    From now on SIGTERM ends it, as it ends any other process, until `serve` has a better answer.
    """
    if os.getpid() == 1:
        import signal  # seldom needed, and slow to import

        signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))


def _prepare_streams() -> None:
    """Make sure that there are three, and that none of them fails at a character that it has not."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed: the next file or socket would get this number, and be taken for a standard stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Of one that was closed from the start, Python makes None, which not every library expects.
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")


def _end_unread() -> NoReturn:
    """The reader has enough: end as every other program then does, by SIGPIPE, which Python ignores."""
    _let_go_of_output()
    if sys.platform != "win32":
        import signal

        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(1)


def _let_go_of_output() -> None:
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.close()
