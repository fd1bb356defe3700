"""`presign run`: a program with presigned keys in its environment, revoked when it ends."""

from __future__ import annotations

import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..config_problems import Foreseen
from ..signing.signer import Signed
from ..units import instant
from .completion import PROGRAM, complete_presets, complete_run
from .environment import CA
from .grant_forms import base_option
from .hints import no_preset, quoted
from .output import Output, light_verb
from .place import Failure, Place
from .policy_options import policy_options
from .program_environment import VIA, Use
from .sign import expiry, granted, usual_lifetime
from .signing_key import KnownKey, key_of, lone_key, secret_source_of

if TYPE_CHECKING:
    from ..config.values import SecretSource
    from .workspace import Workspace


class _BeforeProgram(click.Command):
    """A command whose arguments end at `--`. What follows is a program's, and is not parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        if at < len(args):
            ctx.meta[PROGRAM] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- CMD [ARG]..."]


class Job(NamedTuple):
    """A program with the grants for it. `workspace` is None for a holder without a configuration."""

    program: Sequence[str]
    place: Place
    workspace: Workspace | None
    grants: Sequence[Signed]
    uses: Sequence[Use]
    base: str
    secret_env: str | None = None

    @property
    def proxied(self) -> bool:
        return any(use.proxied for use in self.uses)


@click.command(cls=_BeforeProgram)
@click.argument("connections", nargs=-1, metavar="[CONNECTION]...", shell_complete=complete_run)
@click.option("--expires", metavar="1h", help="When the keys end, if the program has not.  [default: 1h]")
@click.option("--methods", multiple=True, metavar="M,…", help="Default: all that the connection allows.")
@click.option("--paths", multiple=True, metavar="P,…", help="Patterns. Default: all that it allows.")
@click.option(
    "--env", multiple=True, metavar="[CONNECTION=]NAME,…", help="The variables that hold the key instead."
)
@click.option(
    "--base-env", multiple=True, metavar="[CONNECTION=]NAME,…", help="The variables that hold the base URL."
)
@click.option(
    "--via",
    type=click.Choice(VIA),
    default="auto",
    show_default=True,
    help="How requests get to the gateway; auto: by base URL where a variable for it is known.",
)
@base_option
@click.option("--ca", default=CA, show_default=True, metavar="PATH", help="The gateway's CA.")
@click.option("--no-check", is_flag=True, help="Start the program even if no gateway answers.")
@click.option("--key", "key_id", metavar="ID", help="Sign with this key instead of the first.")
@click.option("--preset", metavar="NAME", shell_complete=complete_presets, help="With a secret alone.")
@click.option(
    "--secret-env", metavar="NAME", help="Sign without a configuration, with this variable's secret."
)
@click.option("--secret-file", metavar="PATH", help="Sign without a configuration: the secret's file.")
@policy_options
@light_verb
def run(place: Place, output: Output, connections: tuple[str, ...], **options: Any) -> int:
    """Run a program with presigned keys for connections in its environment; revoke them when it ends.

    The program finds the key, and the base URL or the proxy, in the variables of the provider. It gets no
    secret of the gateway. Without CONNECTION, the only one is meant. With a signing secret alone, an API on
    this machine needs --base-env: the program does not use the proxy for this machine.
    """
    if sys.platform == "win32":
        raise Failure("run needs the signals of Linux or macOS: on Windows, run it in WSL")
    program = click.get_current_context().meta.get(PROGRAM)
    if not program:
        raise click.UsageError("put -- before the program: presign run CONNECTION -- python app.py")
    return _run(_prepared(place, output, program, connections, options), options)


def _prepared(
    place: Place, output: Output, program: list[str], connections: tuple[str, ...], options: dict[str, Any]
) -> Job:
    """Sign a grant for each connection. Raises Failure, ConfigError, UsageError."""
    from .program_environment import named, use_of
    from .workspace import Workspace

    source = secret_source_of(options["secret_env"], options["secret_file"])
    if source is None:
        from .configured import need_configuration

        need_configuration(place)
    where = source or Workspace(place.path, place.environ)
    workspace = where if isinstance(where, Workspace) else None
    names = _names(workspace, connections)
    keys = _keys(place, output, where, names, options)
    secret, base = (
        named(f"--{what}", options[what.replace("-", "_")], names) for what in ("env", "base-env")
    )
    uses = []
    for key in keys:
        preset = _preset(options["preset"]) if source and options["preset"] else key.preset
        local = key.view is not None and key.view.local
        own = secret.get(key.id), base.get(key.id)
        use = use_of(program[0], key.id, preset, options["via"], *own, local=local, alone=source is not None)
        uses.append(use._replace(shape=_shape(key, preset)))
    grants = [_grant(output, key, options) for key in keys]
    base_url = keys[0].base(options["base"])
    return Job(program, place, workspace, grants, uses, base_url, options["secret_env"])


def _names(workspace: Workspace | None, connections: tuple[str, ...]) -> list[str]:
    """Return the named connections, each once, or the only one. Raises Failure, UsageError."""
    names = list(dict.fromkeys(connections))
    if workspace is None:
        if len(names) != 1:
            raise click.UsageError("a secret alone is for one connection: name it")
        return names
    if names:
        return names
    every = list(workspace.entries)
    if len(every) != 1:
        what = f"name the connections of the program: {', '.join(every[:8])}{', …' if every[8:] else ''}"
        raise click.UsageError(what if every else f"there is no connection: {quoted('connections', 'add')}")
    return every


def _keys(
    place: Place,
    output: Output,
    where: SecretSource | Workspace,
    names: list[str],
    options: dict[str, Any],
) -> list[KnownKey]:
    """Return the signing key of each connection. Raises Failure, ConfigError, UsageError."""
    from .workspace import Workspace

    if not isinstance(where, Workspace):
        if options["key_id"]:
            raise click.UsageError("--key needs a connection of the configuration: a secret alone is one key")
        return [lone_key(place, output, names[0], where)]
    if options["preset"]:
        raise click.UsageError("--preset needs --secret-env or --secret-file: a connection names its own")
    from .configured import view_in

    views = [view_in(where, name) for name in names]
    for view in views:
        if view.formats is not None:
            raise Failure(f"{view.id} is of scheme source, which has no key: a program gets its URLs")
        if view.revoked or not view.enabled:
            raise Failure(
                f"{view.id} is {'revoked' if view.revoked else 'disabled'}: the gateway would refuse"
            )
    return [key_of(view, options["key_id"]) for view in views]


def _preset(name: str) -> dict[str, Any]:
    from ..config.presets.builtin import providers

    if name not in providers():
        raise Failure(no_preset(name, providers()))
    return providers()[name]


def _shape(key: KnownKey, preset: Mapping[str, Any]) -> str:
    """Return the shape of the key, if tools of the provider refuse keys without one; else nothing."""
    known = preset.get("key_shapes", ())
    listed = known if key.view is None else key.view.shapes
    return next((one for one in known if one in listed), "") if preset.get("sniffed") else ""


def _grant(output: Output, key: KnownKey, options: dict[str, Any]) -> Signed:
    """Sign everything that the options leave, under a name that no other run has."""
    name = f"{options['presign_id'] or 'run'}-{secrets.token_hex(4)}"
    wide = {what: options[what] or ("*",) for what in ("methods", "paths")}
    return granted(
        output,
        key,
        "",
        expiry(options["expires"], usual_lifetime(key)),
        {**options, **wide, "presign_id": name},
    )


def _run(job: Job, options: dict[str, Any]) -> int:
    """Run the program, and revoke its grants when it has ended. Return its exit code."""
    from . import foreground
    from .program_trust import authorities_for

    before = _without_secrets(job)
    foreground.check_program(job.program[0], before.get("PATH"))
    certificates = authorities_for(job.workspace, job.place, job.base, options["ca"], proxied=job.proxied)
    if not options["no_check"]:
        from .gateway_check import check_gateway

        by_name = not all(use.proxied for use in job.uses)
        check_gateway(job.base, "".join(certificates) or None, by_name=by_name)
    # The program may do with the directory what it likes: what is left of it is no failure.
    temporary = tempfile.TemporaryDirectory(prefix="presign-run-", ignore_cleanup_errors=True)
    with foreground.held_signals() as mask, temporary as directory:
        environ = _environment(job, before, certificates, Path(directory))
        code = foreground.run(job.program, environ, mask)
        _revoke(job)
    return code


def _without_secrets(job: Job) -> dict[str, str]:
    """Return the environment of this command without the gateway's secrets."""
    from ..config.strict_yaml import read
    from .program_secrets import values_in, variables_in, without_secrets

    secret, values = {job.secret_env} if job.secret_env else set(), set[str]()
    if job.place.exists:
        data = read(job.place.path).data
        secret.update(variables_in(data))
        values.update(values_in(data.get("connections") if isinstance(data, dict) else None))
    if job.workspace is not None and job.workspace.draft is not None:
        secret.update(variables_in(job.workspace.draft.connections))
        values.update(values_in(job.workspace.draft.connections))
    return without_secrets(job.place.environ, secret, values)


def _environment(
    job: Job, before: dict[str, str], certificates: list[str], directory: Path
) -> dict[str, str]:
    from .program_environment import environment_of
    from .program_trust import trusting

    tokens = {grant.connection_id: grant.token for grant in job.grants}
    local = any(use.local for use in job.uses)
    trust = trusting(before, certificates, directory, job.base, proxied=job.proxied, local=local)
    return environment_of(before, tokens, job.uses, job.base, trust)


def _revoke(job: Job) -> None:
    """Revoke what has not expired; otherwise say until when it can be used."""
    living = [grant for grant in job.grants if int(grant.expires) >= time.time()]
    if not living:
        return
    try:
        if job.workspace is None:
            raise Failure("a secret alone cannot revoke")
        from .grant_revocation import revoke_grants

        revoke_grants(job.workspace, living)
    except (Foreseen, OSError) as error:
        for grant in living:
            until = instant(int(grant.expires))
            name = grant.headers["X-Presign-Id"]
            click.echo(
                f"presign: the key of {grant.connection_id} was not revoked ({error}): it ends at {until}, or"
                f" with `presign revoke --id {grant.connection_id}/{name}` at its owner",
                err=True,
            )
