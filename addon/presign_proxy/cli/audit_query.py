"""Which lines of the audit log are wanted, and how a person reads one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

import click

from ..config.values import duration
from ..config.values import instant as parse_instant
from ..errors import STATUS
from ..http.hosts import parse_address
from ..http.networks import parse_network
from ..signing import grammar
from ..similar_names import did_you_mean
from ..units import duration as took
from ..units import local_instant, printable, size

Record = dict[str, Any]
Test = Callable[[Record], bool]

_FORMS: Final = {
    "connection": (grammar.CONNECTION_ID, "the id of a connection"),
    "key": (rf"({grammar.CONNECTION_ID}/)?{grammar.KEY_ID}", "KEY or CONNECTION/KEY"),
    "id": (rf"({grammar.CONNECTION_ID}/)?{grammar.PRESIGN_ID}", "ID or CONNECTION/ID"),
    "signature": (grammar.SIGNATURE_ID, "a signature id: 32 hex digits"),
    "request": (r"req_[A-Za-z0-9_-]+", "the id of a request: req_…"),
}
_STATUS: Final = r"[1-9](?:[0-9]{2}|xx)"


def wanted(options: dict[str, Any]) -> list[Test]:
    """Return the tests that a record has to pass. Raises UsageError."""
    tests = [_same(name, options[name]) for name in _FORMS if options[name] is not None]
    if options["client"] is not None:
        tests.append(_from(options["client"]))
    if options["code"]:
        tests.append(_coded(options["code"]))
    if options["status"]:
        tests.append(_answered(options["status"]))
    if (since := options["since"]) is not None:
        first = _moment("--since", since)
        tests.append(lambda record: record["time"] >= first)
    if (until := options["until"]) is not None:
        last = _moment("--until", until)
        tests.append(lambda record: record["time"] < last)
    return tests


def _same(name: str, text: str) -> Test:
    form, needed = _FORMS[name]
    if not re.fullmatch(form, text):
        raise click.UsageError(f"--{name} needs {needed}")
    connection, _, rest = text.rpartition("/")
    field = "request_id" if name == "request" else name
    return lambda record: (
        record.get(field) == rest and (not connection or record.get("connection") == connection)
    )


def _from(text: str) -> Test:
    network = parse_network(text)
    if network is None:
        raise click.UsageError("--client needs an address or a network, such as 203.0.113.0/24")

    def test(record: Record) -> bool:
        client = record.get("client")
        address = parse_address(client) if isinstance(client, str) else None
        return address is not None and address in network

    return test


def _coded(codes: tuple[str, ...]) -> Test:
    for code in codes:
        if code not in STATUS:
            hint = did_you_mean(code, STATUS) or f"they are {', '.join(STATUS)}"
            raise click.UsageError(f"--code: there is no code {printable(code)}: {hint}")
    return lambda record: record.get("code") in codes


def _answered(texts: tuple[str, ...]) -> Test:
    for text in texts:
        if not re.fullmatch(_STATUS, text.lower()):
            raise click.UsageError("--status needs a status, such as 403, or all of a kind, such as 4xx")
    heads = tuple(text.lower().removesuffix("xx") for text in texts)
    return lambda record: str(_number(record, "status", int)).startswith(heads)


def _moment(option: str, text: str) -> float:
    try:
        return time.time() - duration(text)
    except ValueError:
        pass
    try:
        return parse_instant(text)
    except ValueError:
        raise click.UsageError(
            f"{option} needs a duration, such as 1h, or an instant, such as 2027-01-01T00:00:00Z"
        ) from None


def line_of(record: Record) -> str:
    """Return the line for a person: as mitmdump's output has it, behind the time and the client.

    A terminal obeys nothing of it, whatever is in the record.
    """
    reason = ": ".join(_text(record, name) for name in ("code", "detail") if record.get(name))
    status = _text(record, "status") if record.get("status") else "-"
    known = [
        *(f"{name} {_text(record, name)}" for name in ("key", "id") if record.get(name)),
        *(_text(record, name) for name in ("carrier", "request_id") if record.get(name)),
    ]
    if record.get("decision") == "deny":
        end = f"refused: {reason} ({', '.join(known)})"
    else:
        sizes = f"{size(_number(record, 'bytes_out', int))} {took(_number(record, 'duration', float))}"
        end = f"{sizes} ({', '.join(known)})" + (f": {reason}" if reason else "")
    head = f"{local_instant(record['time'])} {_text(record, 'client')}: {asked(record)}"
    return f"{head} {status} {end}{_missing(record)}"


def asked(record: Record) -> str:
    """Return the method, the connection and the path. A terminal obeys nothing of it."""
    between = " " if record.get("scheme") == "source" else ""
    texts = (_text(record, name) if record.get(name) else "" for name in ("connection", "path"))
    return f"{_text(record, 'method')} {between.join(texts)}".rstrip()


def _missing(record: Record) -> str:
    found = ""
    if record.get("suppressed_before"):
        found += f" [{_text(record, 'suppressed_before')} refusals before it are not in the log]"
    if record.get("lost_before"):
        found += f" [{_text(record, 'lost_before')} lines before it were lost]"
    return found


def _text(record: Record, name: str) -> str:
    found = record.get(name)
    return printable(str(found)) if isinstance(found, (str, int, float)) else "?"


def _number[Kind: (int, float)](record: Record, name: str, kind: type[Kind]) -> Kind:
    found = record.get(name)
    return kind(found) if isinstance(found, (int, float)) and 0 <= found < 1e15 else kind(0)
