"""The command as a whole: its name in usage texts, its standard streams, and failures outside its verbs."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from .. import invocation
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
            _let_go_of_output()  # the reader has enough
            sys.exit(1)
        except OSError as error:
            _let_go_of_output()
            where = f"{error.filename}: " if error.filename else ""
            sys.exit(f"presign: {where}{(error.strerror or 'failed').lower()}")


def _prepare_streams() -> None:
    """Make sure that there are three, and that none of them fails at a character that it has not."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Closed: the next file or socket would get this number, and be taken for a standard stream.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _let_go_of_output() -> None:
    with contextlib.suppress(OSError, AttributeError):
        sys.stdout.close()
