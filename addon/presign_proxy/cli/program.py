"""The whole command: its name in usage texts, its standard streams, and failures outside its verbs."""

from __future__ import annotations

import codecs
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
from .colours import wanted

_COMPLETION: Final = "_PRESIGN_COMPLETE"
"""The variable with which a shell requests completions. click would derive one from the program's name."""


_WHOLE: Final = 1000
"""More characters than any sentence of help."""
_IN_ASCII: Final = "presign-in-ascii"
_PLAIN: Final = {"…": "...", "→": "->", "²": "2", "³": "3", "×": "x", "–": "-", "—": "-"}
"""Characters of our own texts that some encodings lack, and what stands for them there."""


class Context(click.Context):
    """The context of a verb: its help has examples, and fits into the terminal."""

    def get_help(self) -> str:
        from .help_text import help_of  # here, because few starts print help

        return help_of(self)


class Verbs(click.Group):
    """A group of verbs, whose help shows them by job."""

    context_class = Context

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)

    def helps(self, ctx: click.Context) -> dict[str, str]:
        """Return the help of each verb in one sentence, without cutting it off."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        return {name: verb.get_short_help_str(_WHOLE) for name, verb in found.items() if verb}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from .help_text import write_verbs

        write_verbs(self.helps(ctx), formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            from .usage_error import verb_meant

            if hint := verb_meant(self, ctx, args):
                ctx.fail(f"No such command {name!r}: {hint}")
        found = super().resolve_command(ctx, args)
        if found[1] is not None:
            found[1].context_class = Context
        return found


class Program(Verbs):
    """The whole command. If the machine is at fault, it ends with one sentence, never with a traceback."""

    _as_json = False

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
        self._as_json = "--json" in (sys.argv[1:] if args is None else args)
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
        with self._told():
            return super().make_context(info_name, args, parent, color=wanted(os.environ), **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with self._told():
            return super().invoke(ctx)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Print usage errors. Catch a closed pipe before click does, which would turn it into exit code 1."""
        try:
            yield
        except BrokenPipeError:
            _end_unread()
        except click.ClickException as error:
            from .usage_error import tell  # here, because few starts have an error

            raise SystemExit(tell(error, as_json=self._as_json)) from None


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
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_IN_ASCII)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return text in place of characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(char, "?") for char in error.object[error.start : error.end]), error.end


codecs.register_error(_IN_ASCII, _in_ascii)


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
