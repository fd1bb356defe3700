"""The command `presign`."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from .program import Program

_VERBS: Final = {
    "init": "starting:init",
    "connections": "connecting:connections",
    "presets": "presetting:presets",
    "sign": "signing:sign",
    "convert": "explaining:convert",
    "verify": "explaining:verify",
    "explain": "explaining:explain",
    "check": "checking:check",
    "revoke": "revoking:revoke",
    "rekey": "vaulting:rekey",
    "encrypt": "vaulting:encrypt",
    "decrypt": "vaulting:decrypt",
    "serve": "serving:serve",
    "demo": "showing:demo",
    "completion": "showing:completion",
    "schema": "showing:schema",
    "example": "showing:example",
    "script-path": "showing:script_path",
}


class Verbs(Program):
    """Imports a verb when it is used: mitmproxy and pydantic take a second, `--help` need not wait."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        where = _VERBS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        found: click.Command = getattr(import_module(f".{module}", __name__), name)
        return found


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="presign-proxy", message="%(version)s")
def main() -> None:
    """Presigned URLs for any HTTP API: who holds a signing secret mints them, the gateway puts the key on.

    Exit codes: 0 done or granted, 1 refused or invalid, 2 usage.
    """
