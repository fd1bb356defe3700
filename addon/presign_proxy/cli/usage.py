"""`presign usage`: what is left of each limit and of the uses of each URL, read from the store."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import click

from ..limits.usage import Usage, prefix_of, usage_of
from ..signing import grammar
from ..units import in_words
from .completion import complete_connections
from .hints import command
from .output import Output, light_verb, table
from .place import Failure, Place

if TYPE_CHECKING:
    from ..limits.stores.open import Choice
    from .workspace import Workspace

_SIGNATURE_ID: Final = re.compile(grammar.SIGNATURE_ID)
_SHOWN: Final = 20
"""Most URLs or clients of one limit that are shown: those with the least left."""


@click.command()
@click.argument("connection", required=False, shell_complete=complete_connections)
@click.option("--url", metavar="URL|TOKEN|ID", help="Only this URL, also by signature id; - reads it.")
@click.option("--client", metavar="ADDRESS", help="Only this client.")
@click.option("--all", "whole", is_flag=True, help=f"Every URL and client, not only the first {_SHOWN}.")
@light_verb
def usage(
    place: Place,
    output: Output,
    connection: str | None,
    url: str | None,
    client: str | None,
    *,
    whole: bool,
) -> None:
    """Show what is left of each limit and of the uses of each URL, now.

    Without CONNECTION, it shows all connections. It reads the store of the configuration, and writes nothing.
    """
    from ..limits.stores.counts import counts_of
    from ..limits.stores.store import StoreError
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    names = [workspace.entry(connection).id] if connection is not None else list(workspace.entries)
    choice = _store(workspace)
    wanted = _Wanted(*_signed(url), client, whole=whole)
    found: list[tuple[str, Usage]] = []
    is_cut, counts = False, counts_of(choice, map(prefix_of, names))
    for name in names:
        model = workspace.model(workspace.entry(name))
        limits = [one.limit() for one in model.limits]
        try:
            states, now, cut = next(counts)
        except StoreError as error:
            raise Failure(f"limits.store: {error}") from None
        is_cut |= cut
        usages = usage_of(name, limits, model.max_uses, states, now)
        found += [(name, one) for one in wanted.of(usages)]
    shown, more = wanted.first(found)
    data = [{"connection": name, **one._asdict()} for name, one in shown]
    output.tell(data, *(table(_rows(shown)) if shown else ["No limit counts anything here."]))
    if workspace.config.audit is not None:
        _tell_whose(output, [one.party for _, one in shown if one.per == "url" and one.party])
    if more or is_cut:
        output.note(f"{more or 'Some'} more URLs or clients are not shown{'' if is_cut else ' (--all)'}.")


def _tell_whose(output: Output, urls: list[str]) -> None:
    """Say how a signature id leads to the name under which its URL was signed."""
    if urls:
        whose = command("audit", "--signature", urls[0])
        output.note(
            f"OF is the signature id of a URL. Under which name it was signed, and who used it: {whose}"
        )


def _store(workspace: Workspace) -> Choice:
    """Return the choice of the store. Raises Failure for one that only its own process can read."""
    from ..config.build_credentials import FileSecrets
    from ..config.load import store_choice
    from ..config.strict_yaml import Document
    from ..config_problems import ConfigError

    wanted = workspace.config.limits
    if wanted.store.startswith("memory:"):
        raise Failure(
            "limits.store is memory://: only the running process knows its counts. With sqlite:///presign.db "
            "or redis://… they can be read"
        )
    secrets = FileSecrets(Document(str(workspace.path), None), workspace.base, workspace.environ)
    choice = store_choice(wanted, secrets, workspace.base)
    if secrets.problems:
        raise ConfigError(secrets.problems)
    return choice


def _signed(url: str | None) -> tuple[str | None, int | None]:
    """Return the signature id of a URL, and the uses that it signs. Raises Failure, UsageError."""
    if url is None or _SIGNATURE_ID.fullmatch(url):
        return url, None
    from ..explain.convert import claimed
    from ..explain.input.urls import UnreadableUrl
    from ..signing.keys import signature_id
    from ..signing.presign_scheme import Presign
    from .paste import presented_by

    try:
        claim = claimed(presented_by(url))
    except UnreadableUrl as error:
        raise Failure(str(error)) from None
    written = claim.written if isinstance(claim, Presign) else None
    uses = int(written.max_uses) if written is not None and written.max_uses else None
    return signature_id(claim.signature or ""), uses


class _Wanted:
    """Which counters are wanted."""

    def __init__(self, url: str | None, uses: int | None, client: str | None, *, whole: bool) -> None:
        """
        Args:
            url: a signature id.
            uses: how many uses this URL signs.
        """
        self._url = url
        self._client = client
        self._uses = uses
        self._whole = whole

    def of(self, usages: Iterator[Usage]) -> Iterator[Usage]:
        for one in usages:
            asked = {"url": self._url, "client": self._client}.get(one.per)
            if asked not in (None, one.party):
                continue
            if one.limit == "uses" and self._uses is not None:
                most = min(self._uses, one.most) if one.most is not None else self._uses
                yield one._replace(most=most, left=max(0, most - one.used))
            else:
                yield one

    def first(self, found: list[tuple[str, Usage]]) -> tuple[list[tuple[str, Usage]], int]:
        """Return those to show, the ones with the least left at the front, and how many more there are."""
        kept: list[tuple[str, Usage]] = []
        counts: dict[tuple[str, str], int] = {}
        order = {key: at for at, key in enumerate(dict.fromkeys((name, one.limit) for name, one in found))}
        found = sorted(
            found,
            key=lambda pair: (
                order[pair[0], pair[1].limit],
                pair[1].left if pair[1].left is not None else 0,
                -pair[1].used,
            ),
        )
        for name, one in found:
            counts[name, one.limit] = counts.get((name, one.limit), 0) + 1
            if self._whole or counts[name, one.limit] <= _SHOWN:
                kept.append((name, one))
        return kept, len(found) - len(kept)


def _rows(found: list[tuple[str, Usage]]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("CONNECTION", "LIMIT", "OF", "USED", "LEFT", "ALL BACK")]
    for name, one in found:
        used = str(one.used) if one.most is None else f"{one.used} of {one.most}"
        left = "as signed in the URL" if one.left is None else str(one.left)
        rows.append((name, one.limit, one.party or "-", used, left, _back(one)))
    return rows


def _back(one: Usage) -> str:
    if one.limit == "uses":
        return "never"
    if one.back is None:
        return "as requests end" if one.used else "-"
    return f"in {in_words(one.back)}" if one.back else "-"
