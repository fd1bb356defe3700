"""The command `presign`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

from .quick_click import import_click

import_click()

import click  # noqa: E402 - as it was just imported

from ..version import VERSION  # noqa: E402 - behind click
from .program import Program  # noqa: E402 - behind click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Verb(NamedTuple):
    """A verb: the module that holds it under its own name, and its help in one sentence.

    A test holds the sentence against the verb's docstring.
    """

    module: str
    help: str


VERBS: Final = {
    "init": Verb("init", "Write a configuration, a fresh registry key and an encrypted registry."),
    "connections": Verb("connections", "Add, show and change what is in the registry file."),
    "presets": Verb("presets", "The providers that `connections add --preset` knows, or one of them."),
    "sign": Verb(
        "sign",
        "Sign a grant for PATH, relative to the connection: a URL, or one of the other forms (--as).",
    ),
    "convert": Verb(
        "convert", "Carry the same grant another way, without the secret: URL, token, headers, …"
    ),
    "verify": Verb("explain", "Say whether the gateway would grant a request."),
    "explain": Verb(
        "explain",
        "Say step by step what the gateway would do with a request, and why; name the usual mistakes.",
    ),
    "check": Verb("check", "Look at everything a gateway would read or open at its start."),
    "revoke": Verb(
        "revoke",
        "Revoke a URL, token or signature id (URL; - reads standard input), or what the options say.",
    ),
    "rekey": Verb(
        "registry_file",
        "Encrypt the registry anew: with a fresh key where the key is in a file, else with the first key.",
    ),
    "encrypt": Verb(
        "registry_file",
        "Make a plain registry (JSON or YAML; - reads JSON from standard input) the encrypted one.",
    ),
    "decrypt": Verb("registry_file", "Print the registry as JSON, all its secrets included."),
    "serve": Verb("serve", "Run the gateway: several workers on one port, without a script, without a UI."),
    "demo": Verb("show", "Start a gateway in front of a built-in upstream, show what it does, keep serving."),
    "completion": Verb(
        "show",
        "Print what makes a shell complete verbs, options and connections:"
        ' eval "$(presign completion bash)".',
    ),
    "schema": Verb("show", "Print the JSON Schema of the configuration, for editors."),
    "example": Verb("show", "Print a configuration to start from, with a remark to each of its parts."),
    "script-path": Verb(
        "show", 'Print the path of the script for mitmproxy: mitmdump -s "$(presign script-path)".'
    ),
}


class Verbs(Program):
    """Imports a verb when it is used. To list verbs, for `--help` or for a shell, imports none."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        found: click.Command = getattr(
            import_module(f".{verb.module}", __package__), cmd_name.replace("-", "_")
        )
        return found

    def _listed(self, ctx: click.Context) -> dict[str, click.Command]:
        """Each verb as a command that knows its help and nothing else."""
        return {name: click.Command(name, help=VERBS[name].help) for name in self.list_commands(ctx)}

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _Listing(commands=self._listed(ctx)).format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=command.get_short_help_str())
            for name, command in self._listed(ctx).items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


class _Listing(click.Group):
    """Commands in their own order; click sorts them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(version)s")
def main() -> None:
    """Presigned URLs for any HTTP API: who holds a signing secret mints them, the gateway puts the key on.

    Exit codes: 0 done or granted, 1 refused or invalid, 2 usage.
    """
