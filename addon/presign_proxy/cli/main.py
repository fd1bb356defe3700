"""The `presign` command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

from .quick_click import import_click

import_click()

import click  # noqa: E402 - import_click() has just imported it

from ..version import VERSION  # noqa: E402 - after click
from .program import Program  # noqa: E402 - after click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Verb(NamedTuple):
    """A verb: its module, which defines it under the verb's name, and its help in one sentence.

    A test compares the sentence with the verb's docstring.
    """

    module: str
    help: str


VERBS: Final = {
    "init": Verb("init", "Write a configuration, a new registry key and an encrypted registry."),
    "connections": Verb("connections", "Add, show and change the connections in the registry file."),
    "presets": Verb("presets", "List the providers for `connections add --preset`, or show one of them."),
    "sign": Verb(
        "sign",
        "Sign a grant for PATH, relative to the connection: a URL, or one of the other forms (--as).",
    ),
    "run": Verb(
        "run",
        "Run a program with presigned keys for connections in its environment; revoke them when it ends.",
    ),
    "convert": Verb("convert", "Convert a grant to another form, without the secret: URL, token, headers, …"),
    "verify": Verb("explain", "Say whether the gateway would grant a request."),
    "explain": Verb(
        "explain",
        "Say step by step what the gateway would do with a request, and why; point out common mistakes.",
    ),
    "check": Verb("check", "Check everything that a gateway reads or opens at its start."),
    "revoke": Verb(
        "revoke",
        "Revoke a URL, a token or a signature id, or what the options name.",
    ),
    "audit": Verb("audit", "Show what the gateway decided: the lines of the audit log, or of another FILE."),
    "status": Verb(
        "status", "Show what runs: since when, configuration in force, requests under way, limits, audit log."
    ),
    "usage": Verb(
        "usage",
        "Show what is left of each limit and of the uses of each URL, now.",
    ),
    "rekey": Verb(
        "registry_file",
        "Encrypt the registry again: with a new key if the key is in a file, else with the first key.",
    ),
    "encrypt": Verb(
        "registry_file",
        "Encrypt a plain registry (JSON or YAML) into the registry file.",
    ),
    "decrypt": Verb("registry_file", "Print the registry as JSON, including all secrets."),
    "serve": Verb("serve", "Run the gateway: several workers on one port, without a script, without a UI."),
    "ca": Verb("ca", "Print the gateway's authorities, which its clients have to trust."),
    "demo": Verb("show", "Start a gateway in front of a built-in upstream, show what it does, keep serving."),
    "completion": Verb(
        "show",
        'Print the script for completion in a shell: eval "$(presign completion bash)".',
    ),
    "schema": Verb("show", "Print the JSON Schema of the configuration, for editors."),
    "example": Verb("show", "Print an example configuration, with a comment on each part."),
    "script-path": Verb(
        "show", 'Print the path of the script for mitmproxy: mitmdump -s "$(presign script-path)".'
    ),
}


class Presign(Program):
    """The verbs of the command, each imported when it is used. Listing them (for `--help`) imports none."""

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

    def helps(self, ctx: click.Context) -> dict[str, str]:  # noqa: ARG002 - as the class above has it
        return {name: verb.help for name, verb in VERBS.items()}

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        helps = self.helps(ctx)
        found = [CompletionItem(name, help=helps[name]) for name in helps if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=Presign, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(version)s")
def main() -> None:
    """Presigned URLs for any HTTP API: a signing secret mints them, and the gateway adds the API key.

    Exit codes: 0 done or granted, 1 refused or invalid, 2 usage.
    """
