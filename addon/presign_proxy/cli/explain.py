"""`presign explain` and `verify`: the gateway's decision on a URL, token, headers or curl command line.

Without a configuration, they say what a holder can know (`explained_to_holder`). `explain req_…` explains a
line of the audit log (`explained_request`).
"""

from __future__ import annotations

import time
from typing import Any, Final

import click

from ..config.values import instant
from ..explain.explanation import Explanation, headline, render
from ..explain.input import lenient
from ..http.hosts import parse_address
from ..http.message import Request
from .explanation_lines import lines_of
from .output import DONE, REFUSED, Output, light_verb, noted
from .paste import Pasted, presented_by
from .place import Place

_MEANING: Final = {
    "forward": "granted",
    "good": "granted",
    "pass": "warning",
    "unknown": "warning",
    "deny": "refused",
}


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
    place: Place, output: Output, given: str, at: str | None, asked: dict[str, str | None]
) -> tuple[Explanation, dict[str, Any], list[str]]:
    """Return the explanation, more of it for JSON, and more lines for people."""
    now = _at(at)
    secret = asked.pop("secret_env"), asked.pop("secret_file"), asked.pop("connection")
    if any(secret) or not place.is_configured:
        from .explained_to_holder import judged

        return judged(place, output, given, now, *secret, wanted=asked)
    return _by_configuration(place, given, now, asked)


def _by_configuration(
    place: Place, given: str, now: int, wanted: dict[str, str | None]
) -> tuple[Explanation, dict[str, Any], list[str]]:
    from ..explain.explain import explain as explained
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    # A text without a host is read as a request to the gateway, under one of its names.
    host = min(workspace.hosts(), default=None)
    presented = presented_by(given, **wanted, gateway=f"http://{host}" if host else None)
    registry, left_out = workspace.registry(named(presented.request))
    assumed = [*presented.assumed, *left_out]
    return explained(registry, presented.request, now), {"assumed": assumed}, noted("Assumed:", assumed)


def _from_the_log(
    place: Place, output: Output, request_id: str, log: str | None, asked: dict[str, str | None]
) -> int:
    from .explained_request import REQUEST_ID, explain_request

    if any(asked.values()):
        raise click.UsageError("a request id stands for itself: only --log can be given with it")
    if not REQUEST_ID.fullmatch(request_id):
        raise click.UsageError("a request id is req_ and letters, digits, _ or -")
    explain_request(place, output, request_id, log)
    return DONE


def named(request: Request) -> frozenset[str]:
    """Return the ids of connections that a request may name, in any place."""
    loose = lenient.read(request)
    segments = request.path.decode("utf-8", "replace").split("/")[1:5]
    return frozenset(filter(None, (loose.first("connection_id"), *segments)))


_METHOD = click.option("--method", metavar="M", help="The method, if the text names none.")
_PATH = click.option("--path", metavar="PATH", help="The path below the connection, for tokens and headers.")
_TO = click.option(
    "--to", "url", metavar="URL", help="The URL to which headers are sent, if not the gateway."
)
_FROM = click.option("--from", "client", metavar="ADDRESS", callback=_address, help="The client's address.")
_AT = click.option("--at", metavar="INSTANT", help="Decide as at this time, such as 2027-01-01T00:00:00Z.")
_SECRET_ENV = click.option(
    "--secret-env", metavar="NAME", help="Without the configuration: this variable has the signing secret."
)
_SECRET_FILE = click.option(
    "--secret-file", metavar="PATH", help="Without the configuration: this file has the signing secret."
)
_CONNECTION = click.option(
    "--connection", metavar="ID", help="Without the configuration: the connection, if the text names none."
)


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|curl …|req_…|-")
@click.option("--log", metavar="FILE", help="For req_…: the audit log, if not that of the configuration.")
@_METHOD
@_PATH
@_TO
@_FROM
@_AT
@_SECRET_ENV
@_SECRET_FILE
@_CONNECTION
@light_verb
def explain(
    place: Place, output: Output, what: str, at: str | None, log: str | None, **asked: str | None
) -> int:
    """Say step by step what the gateway would do with a request, and why; point out common mistakes.

    Offline, with the local configuration; without one, what a URL says and what is wrong with it as far as it
    shows. Exit code 0 if the request would be granted. For the request id of an answer (req_…), explain what
    the audit log has about it.
    """
    if what.strip().startswith("req_"):
        return _from_the_log(place, output, what.strip(), log, {"at": at, **asked})
    if log is not None:
        raise click.UsageError("--log needs a request id, req_…")
    explanation, more, tail = _judged(place, output, what, at, asked)
    lines = lines_of([*render(explanation), *tail], _MEANING[explanation.verdict.decision])
    output.tell(explanation.to_json() | more, *lines)
    return DONE if explanation.verdict.granted else REFUSED


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|curl …|-")
@_METHOD
@_PATH
@_TO
@_FROM
@_AT
@_SECRET_ENV
@_SECRET_FILE
@_CONNECTION
@light_verb
def verify(place: Place, output: Output, what: str, at: str | None, **asked: str | None) -> int:
    """Say whether the gateway would grant a request. Exit code 0 if it would.

    Without a configuration it needs the signing secret, and says whether the signature is right and covers
    the request.
    """
    explanation, _, _ = _judged(place, output, what, at, asked)
    data = {**explanation.verdict._asdict(), "claimed": explanation.claimed._asdict()}
    output.tell(data, *lines_of([headline(explanation.verdict)], _MEANING[explanation.verdict.decision]))
    return DONE if explanation.verdict.granted else REFUSED
