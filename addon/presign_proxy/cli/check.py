"""`presign check`: what is wrong with configuration, registry, permissions and secrets, or merely unwise."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from ..config.load import load
from ..config.secret_sources import SecretError, resolve
from ..config.values import SecretSource
from ..config_problems import ConfigError, Problem
from ..core.connection import Connection
from ..core.credentials import slips
from ..http.networks import parse_network
from ..signing.grammar import ANY
from .output import DONE, REFUSED, Output, counted, verb
from .serve import directory, listen_option
from .workspace import Workspace

_SOON: Final = 14 * 86_400


class Advice(NamedTuple):
    """Something that works and should be looked at. `about` is a connection, or a key of the file."""

    about: str
    text: str


@click.command()
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option("--exec", "run", is_flag=True, help="Run the programs that print credentials, too.")
@listen_option("Where `presign serve` is to listen: warn where it could not.")
@click.option(
    "--confdir",
    type=click.Path(file_okay=False, path_type=Path),
    help="What `presign serve` is given: fail where it could not make its certificate authority there.",
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
    """Look at everything a gateway would read or open at its start.

    For CI: exit code 1 where it would not start. Run it as the user that the gateway runs as.
    """
    from . import check_startup  # what serves takes a while to import

    if not workspace.exists:
        _ = workspace.config  # says what to do
    try:
        loaded = load(workspace.path, workspace.environ)
    except ConfigError as error:
        in_order = sorted(error.problems, key=lambda problem: (problem.file, problem.line, problem.column))
        problems = [str(problem) for problem in in_order]
        found = {"ok": False, "errors": problems, "warnings": []}
        output.tell(found, *(f"error    {line}" for line in problems), "", counted(len(problems), "error"))
        return REFUSED
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
    lines = [f"error    {line}" for line in errors] + [f"warning  {line}" for line in warnings]
    counts = {"connection": len(known), "error": len(errors), "warning": len(warnings)}
    summary = ", ".join(counted(number, what) for what, number in counts.items())
    ok = not errors and not (strict and warnings)
    output.tell({"ok": ok, "errors": errors, "warnings": warnings}, *lines, *([""] if lines else []), summary)
    return DONE if ok else REFUSED


def _unmarked(path: Path) -> str:
    why = "has no end mark: write `...` as its last line, so that no copy that is cut off comes into force"
    return str(Problem(str(path), 0, 0, "", why))


def _unfetched(workspace: Workspace, known: dict[str, Connection]) -> Iterator[str]:
    for connection in known.values():
        for late in connection.late:
            try:
                resolve(SecretSource(exec=late.argv), workspace.base, workspace.environ)
            except SecretError as error:
                yield f"{connection.id}: {error}"


def _of_all(workspace: Workspace, known: dict[str, Connection]) -> Iterator[Advice]:
    config = workspace.config
    trusted = config.gateway.trusted_proxies
    if config.gateway.unsigned == "pass" and "unsigned" in config.gateway.model_fields_set:
        text = "pass: fine on a laptop; `presign serve` refuses to start with it, unless told --unsigned pass"
        yield Advice("gateway.unsigned", text)
    if any(network is not None and network.prefixlen == 0 for network in map(parse_network, trusted)):
        yield Advice("gateway.trusted_proxies", "trusts everybody: whoever asks may choose his address")
    if config.audit is None:
        yield Advice("audit", "is not set: nobody will know who used what")
    upstreams = Counter(c.upstream for c in known.values() if c.upstream and c.enabled)
    for upstream, count in upstreams.items():
        if count > 1:
            where = f"{upstream.origin}{upstream.base.decode()}"
            yield Advice(where, f"has {count} connections: requests to its own URL have to name theirs")


def _of_one(connection: Connection, now: float) -> Iterator[Advice]:
    if not connection.enabled:
        return
    ceiling = connection.ceiling
    live = [key for key in connection.keys.keys if key.is_live(int(now)) and not key.revoked]
    if connection.upstream:
        if ceiling.max_lifetime is None and ceiling.allow_no_expiry:
            yield Advice(connection.id, "has no max_lifetime: a URL may be signed to live for ever")
        if ceiling.methods == ANY and [pattern.text for pattern in ceiling.paths] == ["*"]:
            yield Advice(connection.id, "has no allow: whoever signs may do all that its key may do")
    if not connection.late:  # what programs print was not asked for
        yield from (Advice(connection.id, text) for text in slips(connection.injector))
    if connection.keys.keys and not live:
        yield Advice(connection.id, "has no signing key in force: nothing can be signed or verified")
    ends = [key for key in live if key.not_after is not None and key.not_after - now < _SOON]
    for key in ends:
        yield Advice(connection.id, f"the key {key.id} ends within two weeks")
