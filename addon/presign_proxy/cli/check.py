"""`presign check`: errors and warnings about configuration, registry, permissions and secrets."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from ..config.load import Loaded, load
from ..config.secret_sources import SecretError, resolve
from ..config.values import SecretSource
from ..config_problems import ConfigError, Problem
from ..core.connection import Connection
from ..core.credentials import slips
from ..http.networks import parse_network
from ..signing.grammar import ANY
from .colours import styled
from .output import DONE, REFUSED, Output, counted, verb
from .progress import working
from .serve import directory, listen_option
from .width import columns, hanging
from .workspace import Workspace

_SOON: Final = 14 * 86_400


class Advice(NamedTuple):
    """A warning about something that works. `about` is a connection, or a key of the file."""

    about: str
    text: str


@click.command()
@click.option("--strict", is_flag=True, help="Exit with 1 also for warnings.")
@click.option("--exec", "run", is_flag=True, help="Also run the programs that print credentials.")
@listen_option("An address for `presign serve`: warn if it could not listen there.")
@click.option(
    "--confdir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The --confdir of `presign serve`: fail if it could not create its certificate authority there.",
)
@verb
def check(
    workspace: Workspace,
    output: Output,
    strict: bool,
    run: bool,
    addresses: tuple[tuple[str, int], ...],
    confdir: Path | None,
) -> int:
    """Check everything that a gateway reads or opens at its start.

    For CI: exit code 1 if the gateway would not start. Run it as the gateway's user.
    """
    from . import check_startup  # importing the server takes a while

    if not workspace.exists:
        _ = workspace.config  # raises an error that says what to do
    try:
        with working("checking the configuration and all connections"):
            loaded = load(workspace.path, workspace.environ)
    except ConfigError as error:
        return _refused(output, error)
    known = loaded.registry.connections
    errors = list(check_startup.errors(loaded, directory(confdir) if confdir else None))
    errors += _unfetched(workspace, known) if run else []
    advice = [
        *_of_all(workspace, known),
        *(one for each in known.values() for one in _of_one(each, time.time())),
    ]
    warnings = [str(warning) for warning in loaded.warnings] + [f"{one.about}: {one.text}" for one in advice]
    warnings += [_unmarked(path) for path, form in loaded.record.forms.items() if form.ending != "marked"]
    warnings += check_startup.warnings(loaded, addresses)
    lines = [*_shown("error", errors), *_shown("warning", warnings)]
    counts = {"connection": len(known), "error": len(errors), "warning": len(warnings)}
    summary = ", ".join(counted(number, what) for what, number in counts.items())
    way = _way(loaded)
    ok = not errors and not (strict and warnings)
    found = {"ok": ok, "errors": errors, "warnings": warnings} | ({"way_out": way} if way else {})
    closing = [f"upstreams are reached {way}", summary] if way else [summary]
    output.tell(found, *lines, *([""] if lines else []), *closing)
    return DONE if ok else REFUSED


def _way(loaded: Loaded) -> str:
    """Return how upstreams are reached, if a proxy is configured."""
    if loaded.config.gateway.upstream_proxy is None:
        return ""
    direct = sum(one.direct for one in loaded.registry.connections.values())
    past = f"; {counted(direct, 'connection')} directly" if direct else ""
    return f"{loaded.registry.destinations.way_out}{past}"


def _refused(output: Output, error: ConfigError) -> int:
    """Print why the configuration does not load, in the order of its lines."""
    in_order = sorted(error.problems, key=lambda problem: (problem.file, problem.line, problem.column))
    problems = [str(problem) for problem in in_order]
    found = {"ok": False, "errors": problems, "warnings": []}
    output.tell(found, *_shown("error", problems), "", counted(len(problems), "error"))
    return REFUSED


def _shown(kind: str, lines: Iterable[str]) -> list[str]:
    """Return the lines for a person, each behind its kind: `error` or `warning`."""
    mark = kind.ljust(9)
    fitting = hanging((mark + line for line in lines), columns())
    return [styled(kind, kind) + one[len(kind) :] if one.startswith(mark) else one for one in fitting]


def _unmarked(path: Path) -> str:
    why = "has no end mark: write `...` as its last line, so that a copy that was cut off is never used"
    return str(Problem(str(path), 0, 0, "", why))


def _unfetched(workspace: Workspace, known: dict[str, Connection]) -> Iterator[str]:
    for connection in known.values():
        for late in [need for one in connection.late for need in one.needs]:
            try:
                resolve(SecretSource(exec=late.argv), workspace.base, workspace.environ)
            except SecretError as error:
                yield f"{connection.id}: {error}"


def _of_all(workspace: Workspace, known: dict[str, Connection]) -> Iterator[Advice]:
    config = workspace.config
    trusted = config.gateway.trusted_proxies
    if config.gateway.unsigned == "pass" and "unsigned" in config.gateway.model_fields_set:
        text = "pass: fine on a laptop; `presign serve` refuses to start with it without --unsigned pass"
        yield Advice("gateway.unsigned", text)
    if any(network is not None and network.prefixlen == 0 for network in map(parse_network, trusted)):
        yield Advice("gateway.trusted_proxies", "trusts every peer: any client can choose its own address")
    if config.audit is None:
        yield Advice("audit", "is not set: there will be no record of who used what")
    enabled = [connection for connection in known.values() if connection.enabled]
    upstreams = Counter(one.url for c in enabled for one in c.destinations)
    for where, count in upstreams.items():
        if count > 1:
            yield Advice(where, f"has {count} connections: requests to the upstream's own URL must name one")


def _of_one(connection: Connection, now: float) -> Iterator[Advice]:
    if not connection.enabled:
        return
    ceiling = connection.ceiling
    live = [key for key in connection.keys.keys if key.is_live(int(now)) and not key.revoked]
    if connection.upstream:
        if ceiling.max_lifetime is None and ceiling.allow_no_expiry:
            yield Advice(connection.id, "has no max_lifetime: a URL can be signed without expiry")
        if ceiling.methods == ANY and "*" in [pattern.text for pattern in ceiling.paths]:
            yield Advice(connection.id, "has no allow: signed URLs can do everything that its key allows")
    if not connection.late:  # no program was run, so its output is unknown
        yield from (Advice(connection.id, text) for text in slips(connection.injector))
    if connection.keys.keys and not live:
        yield Advice(connection.id, "has no valid signing key: nothing can be signed or verified")
    ends = [key for key in live if key.not_after is not None and key.not_after - now < _SOON]
    for key in ends:
        yield Advice(connection.id, f"the key {key.id} ends within two weeks")
