"""`presign demo`, `completion`, `schema`, `example` and `script-path`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import click

from ..prerequisites import unsupported_mitmproxy
from .output import Output, light_verb
from .place import Failure, Place

_PACKAGE: Final = Path(__file__).parents[1]
SCRIPT: Final = _PACKAGE / "mitm/script/presign_addon.py"
"""The script for `mitmdump -s`, in its own directory, because mitmproxy puts that on sys.path."""
_EXAMPLE: Final = "config.example.yaml"


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: a free one.")
@click.option("--once", is_flag=True, help="Show the requests and stop.")
@light_verb
def demo(_: Place, output: Output, port: int, *, once: bool) -> int:
    """Start a gateway in front of a built-in upstream, show what it does, keep serving."""
    if sys.platform == "win32":
        raise Failure("demo needs the signals of Linux or macOS: on Windows, run it in WSL")
    if why := unsupported_mitmproxy():
        raise Failure(why)
    from .demo import run  # mitmproxy takes a second to import

    return run(port, SCRIPT, once=once, as_json=output.as_json)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@light_verb
def completion(_: Place, output: Output, shell: str) -> None:
    """Print the script for completion in a shell: eval "$(presign completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"{shell} is not known to click")
    command = click.get_current_context().find_root().command
    script = found(command, {}, "presign", "_PRESIGN_COMPLETE").source()
    output.tell({"shell": shell, "script": script}, script)


@click.command()
@light_verb
def schema(_: Place, __: Output) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from ..config.schema.config import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))


@click.command()
@light_verb
def example(_: Place, output: Output) -> None:
    """Print an example configuration, with a comment on each part."""
    # In a wheel the file is in the package, in a checkout beside `addon`.
    for directory in (_PACKAGE, _PACKAGE.parents[1]):
        if (path := directory / _EXAMPLE).is_file():
            text = path.read_text("utf-8")
            output.tell({"example": text}, text.rstrip("\n"))
            return
    raise Failure(f"{_PACKAGE / _EXAMPLE} is missing: install presign-proxy again")


@click.command("script-path")
@light_verb
def script_path(_: Place, output: Output) -> None:
    """Print the path of the script for mitmproxy: mitmdump -s "$(presign script-path)"."""
    output.tell({"path": str(SCRIPT)}, str(SCRIPT))
