"""`presign init`: create everything that a gateway needs, except its first connection."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Final

import click

from ..config.path import DEFAULT_PATH
from ..config.permissions import quoted as quoted_path
from ..config.permissions import tightened, writable_by_others
from ..config.registry_file.edit import Draft, naming
from ..config.registry_file.encryption import Opener, Passphrase, new_key, parse_key
from ..config.registry_file.storage import lock, write_private
from ..signing.secret import Secret
from . import prompts
from .hints import command, quoted
from .output import Output, verb
from .workspace import Failure, Workspace

MIN_PASSPHRASE: Final = 12
_REGISTRY: Final = "connections.enc"
_KEY: Final = "presign.key"
_CONFIG: Final = """\
# The configuration of presign-proxy. `presign example` prints one with every section, `presign schema` prints
# the JSON Schema of all keys, and `presign check{named}` reports errors in this file.

gateway:
  hosts: [presign.local]     # names that address the gateway itself; they need not resolve
  # Requests without a presign: mitmdump on a laptop passes them, `presign serve` denies them.
  # unsigned: deny           # both deny them

registry:
  file: connections.enc      # managed by `presign connections`
  key: {key}

audit: {{file: {audit}}}   # one JSON line per decision; "-" is standard error
"""
_END: Final = """\
...   # the end of the file: no gateway uses a copy that was cut off before this line
"""
_OF_A_SERVICE: Final = """\
limits: {{store: {store}}}
admin: {{listen: 127.0.0.1:9464}}   # /livez, /readyz and /metrics
"""


@click.command()
@click.option("--key-env", metavar="NAME", help="Print the registry key for this variable; do not write it.")
@click.option(
    "--passphrase", "env", metavar="NAME", help="Ask for a passphrase, which this variable will hold."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="For a service: put audit log and counters into this directory, and add an admin listener.",
)
@verb
def init(
    workspace: Workspace, output: Output, key_env: str | None, env: str | None, state: Path | None
) -> None:
    """Write a configuration, a new registry key and an encrypted registry."""
    if key_env and env:
        raise click.UsageError("--key-env and --passphrase exclude each other")
    if not workspace.base.is_dir():
        raise Failure(f"{workspace.base}: there is no such directory")
    if tightened(workspace.base):
        output.note(
            f"Only you can write to {workspace.base} now: chmod go-w {quoted_path(workspace.base)}", ""
        )
    if problems := [
        problem for problem in writable_by_others(workspace.path) if problem.file != str(workspace.path)
    ]:
        raise Failure(str(problems[0]))
    registry, key_file = workspace.base / _REGISTRY, workspace.base / _KEY
    wanted = [workspace.path, registry] + ([] if key_env or env else [key_file])
    _are_free(wanted)
    opener, text, key = _key(key_env, env)
    with naming(workspace.path), lock(workspace.path):
        _are_free(wanted)  # again, under the lock: another `init` may have been faster
        if text is not None and key_env is None:
            with naming(key_file):
                write_private(key_file, f"{text}\n".encode())
        Draft(registry, [opener], {}).write()
        # The configuration is written last, so that an interrupted `init` does not look complete.
        write_private(workspace.path, _configuration(workspace.path, key, state).encode())
    Path(workspace.base, f".{workspace.path.name}.lock").unlink(missing_ok=True)
    _say(workspace, output, wanted, text if key_env else None, key_env or env)


def _configuration(path: Path, key: str, state: Path | None) -> str:
    """Return the text of the configuration.

    Args:
        state: the directory that a service may write to, which may differ from its configuration's.
    """
    directory = state.absolute() if state is not None else None
    audit = "audit.jsonl" if directory is None else json.dumps(f"{directory}/audit.jsonl")
    text = _CONFIG.format(named=_named(path), key=key, audit=audit)
    if directory is not None:
        text += _OF_A_SERVICE.format(store=json.dumps(f"sqlite:///{directory}/presign.db"))
    return text + _END


def _named(path: Path) -> str:
    """Return the option that makes a command use this configuration, when run in its directory."""
    # An unprintable name could end the comment that it is written into.
    usual = path.name == DEFAULT_PATH or not path.name.isprintable()
    return "" if usual else f" --config {shlex.quote(path.name)}"


def _are_free(wanted: list[Path]) -> None:
    for path in wanted:
        if path.exists() or path.is_symlink():
            raise Failure(f"{path} exists already; nothing was changed")


def _key(key_env: str | None, env: str | None) -> tuple[Opener, str | None, str]:
    """Return the key, its text if it is new, and its reference for the configuration."""
    if env:
        phrase = prompts.secret("passphrase of the registry")
        if len(phrase) < MIN_PASSPHRASE:
            raise Failure(f"a passphrase needs at least {MIN_PASSPHRASE} characters")
        if prompts.is_terminal() and prompts.secret("the same passphrase again") != phrase:
            raise Failure("the two passphrases differ; nothing was changed")
        return Passphrase(Secret(phrase)), None, f"{{passphrase: {{env: {env}}}}}"
    fresh = new_key()
    text = fresh.reveal()
    return parse_key(fresh), text, f"{{env: {key_env}}}" if key_env else f"{{file: {_KEY}}}"


def _say(
    workspace: Workspace,
    output: Output,
    written: list[Path],
    text: str | None,
    env: str | None,
) -> None:
    names = [path.name for path in written]
    lines = [f"Wrote {', '.join(names)} in {workspace.base}."]
    if text:
        lines += ["", "The registry key, shown only once; without it the registry cannot be opened:", ""]
        lines += [f"  export {env}={text}"]
    elif env:
        lines += [f"Set {env} to the passphrase wherever the registry is opened."]
    else:
        lines += [f"Keep a copy of {_KEY}, and do not commit it: it opens the registry."]
    output.tell({"wrote": [str(path) for path in written], "key": text}, *lines)
    output.note("", "Next:", *_next())


def _next() -> list[str]:
    """Return shell lines for the first connection, the gateway, and the first URL."""
    add = command("connections", "add", "--preset", "openai")
    sign = command("sign", "conn_openai", "v1/models")
    serve = command("serve")
    width = max(len(add), len(sign), len(serve))
    return [
        f"  {add:<{width}}  # asks for the API key; {quoted('presets')} lists other providers",
        f"  {serve:<{width}}  # runs the gateway; use a second terminal",
        f"  {sign:<{width}}  # prints a URL, valid for an hour",
    ]
