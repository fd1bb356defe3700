"""`presign explain` and `verify`: the gateway's decision on a URL, token, headers or curl command line."""

from __future__ import annotations

import time
from typing import Final

import click

from ..config.values import instant
from ..explain.explain import explain as explained
from ..explain.explanation import Explanation, headline, render
from ..explain.input import lenient
from ..http.hosts import parse_address
from ..http.message import Request
from .colours import styled
from .output import DONE, REFUSED, Output, verb
from .paste import Pasted, presented_by
from .workspace import Workspace

_MEANING: Final = {"forward": "granted", "pass": "warning", "deny": "refused"}


def _at(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return instant(text)
    except ValueError as error:
        raise click.UsageError(f"--at {error}") from None


def _address(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    if text is not None and parse_address(text) is None:
        raise click.UsageError("--from needs an IP address")
    return text


def _judged(
    workspace: Workspace, given: str, at: str | None, **wanted: str | None
) -> tuple[Explanation, list[str]]:
    """Return the explanation, and the assumptions behind it."""
    # A text without a host is read as a request to the gateway, under one of its names.
    host = min(workspace.hosts(), default=None)
    presented = presented_by(given, **wanted, gateway=f"http://{host}" if host else None)
    registry, left_out = workspace.registry(named(presented.request))
    explanation = explained(registry, presented.request, _at(at))
    return explanation, [*presented.assumed, *left_out]


def named(request: Request) -> frozenset[str]:
    """Return the ids of connections that a request may name, in any place."""
    loose = lenient.read(request)
    segments = request.path.decode("utf-8", "replace").split("/")[1:5]
    return frozenset(filter(None, (loose.first("connection_id"), *segments)))


_METHOD = click.option("--method", metavar="M", help="The method, if the text names none.")
_PATH = click.option("--path", metavar="PATH", help="The path below the connection, for tokens and headers.")
_TO = click.option("--to", metavar="URL", help="The URL to which headers are sent, if not the gateway.")
_FROM = click.option("--from", "client", metavar="ADDRESS", callback=_address, help="The client's address.")
_AT = click.option("--at", metavar="INSTANT", help="Decide as at this time, such as 2027-01-01T00:00:00Z.")


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|curl …|-")
@_METHOD
@_PATH
@_TO
@_FROM
@_AT
@verb
def explain(
    workspace: Workspace,
    output: Output,
    what: str,
    to: str | None,
    at: str | None,
    **asked: str | None,
) -> int:
    """Say step by step what the gateway would do with a request, and why; point out common mistakes.

    Offline, with the local configuration. Exit code 0 if the request would be granted.
    """
    explanation, assumed = _judged(workspace, what, at, **asked, url=to)
    tail = ["", "Assumed:", *(f"  -  {one}" for one in assumed)] if assumed else []
    first, *rest = render(explanation)
    first = styled(first, _MEANING[explanation.verdict.decision])
    output.tell(explanation.to_json() | {"assumed": assumed}, first, *rest, *tail)
    return DONE if explanation.verdict.decision == "forward" else REFUSED


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|curl …|-")
@_METHOD
@_PATH
@_TO
@_FROM
@_AT
@verb
def verify(
    workspace: Workspace,
    output: Output,
    what: str,
    to: str | None,
    at: str | None,
    **asked: str | None,
) -> int:
    """Say whether the gateway would grant a request. Exit code 0 if it would."""
    explanation, _ = _judged(workspace, what, at, **asked, url=to)
    data = {**explanation.verdict._asdict(), "claimed": explanation.claimed._asdict()}
    output.tell(data, styled(headline(explanation.verdict), _MEANING[explanation.verdict.decision]))
    return DONE if explanation.verdict.decision == "forward" else REFUSED
