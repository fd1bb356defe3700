"""The command `presign` of presign-signer.

Where presign-proxy is installed too, its command runs: both distributions bring a `presign`, and it must not
matter which of them was installed last.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final

import click

from .cli.main import VERBS, Presign
from .version import VERSION

HERE: Final = ("sign", "convert", "completion")


class SignerVerbs(Presign):
    """The verbs that need neither a configuration nor a gateway; the others say where they are."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(HERE)

    def helps(self, ctx: click.Context) -> dict[str, str]:  # noqa: ARG002 - as the class above has it
        return {name: VERBS[name].help for name in HERE}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in VERBS and cmd_name not in HERE:
            return _elsewhere(cmd_name)
        return super().get_command(ctx, cmd_name)


def _elsewhere(name: str) -> click.Command:
    """Takes any arguments, `--help` too, so that the one sentence is always the answer."""

    def say(**_: object) -> None:
        raise click.UsageError(
            f"this is presign-signer, which has no `presign {name}`: `pip install presign-proxy` has it"
        )

    anything = {"ignore_unknown_options": True, "help_option_names": []}
    rest = click.Argument(["rest"], nargs=-1, type=click.UNPROCESSED)
    return click.Command(name, callback=say, params=[rest], context_settings=anything)


@click.group(cls=SignerVerbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(version)s")
def signer() -> None:
    """Presigned URLs for any HTTP API: sign with a connection's signing secret, offline.

    This is presign-signer; the whole command comes with `pip install presign-proxy`. Exit codes: 0 done,
    1 refused or invalid, 2 usage.
    """


def main() -> None:
    if find_spec("presign_proxy") is None:
        signer()
        return
    from presign_proxy.__main__ import main as whole

    whole()
