"""The command `presign`."""

from __future__ import annotations

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="presign-proxy", message="%(version)s")
def main() -> None:
    """Presigned URLs for any HTTP API."""


@main.command(hidden=True)
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    import json

    from ..schema import Config

    click.echo(json.dumps(Config.model_json_schema(), indent=2))


@main.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 picks one.")
@click.option("--once", is_flag=True, help="Show the requests and stop.")
def demo(port: int, *, once: bool) -> None:
    """Start a gateway in front of a built-in upstream, show what it does, keep serving."""
    from .demo import run  # mitmproxy takes a second to import; --help need not wait for it

    raise SystemExit(run(port, once=once))
