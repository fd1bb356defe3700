"""`presign explain req_…`: the line of the audit log about one request, in words."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any, Final

from ..errors import MESSAGE
from ..explain.advice import advice_on
from ..observe.rotated_files import Unreadable, files_of, records_with
from ..units import duration as took
from ..units import in_words, local_instant, printable, size_in_words
from .audit_query import Record
from .explanation_lines import lines_of
from .output import Output
from .place import Failure, Place

REQUEST_ID: Final = re.compile(r"req_[A-Za-z0-9_-]+")
_WIDTH: Final = 11
_CARRIERS: Final = {
    "query": "in the query",
    "header": "in the header",
    "path": "as a token in the path",
    "key": "as a token in place of the API key",
}


def explain_request(place: Place, output: Output, request_id: str, log: str | None) -> None:
    """Print what the audit log has about a request. Raises Failure if it has nothing."""
    path = Path(log) if log is not None else _configured(place)
    record, file = _found(output, path, request_id)
    code = record.get("code")
    advice = advice_on(code, _text(record, "detail")) if isinstance(code, str) else None
    data = {"request": record, "file": str(file), "why": _why(record), "advice": advice}
    lines = [_headline(record), "", *(f"  {name.ljust(_WIDTH)}{text}" for name, text in _facts(record))]
    lines += ["", f"Why: {_why(record)}"] if code else []
    lines += [f"What to do: {advice}"] if advice else []
    meaning = "refused" if record.get("decision") == "deny" else "warning" if code else "granted"
    output.tell(data, *lines_of(lines, meaning))


def _configured(place: Place) -> Path:
    from .workspace import Workspace

    if not place.is_configured:
        raise Failure("a request id is looked up in the audit log: give --log FILE, or a configuration")
    settings = Workspace(place.path, place.environ).config.audit
    if settings is None or settings.file == "-":
        where = "goes to standard error" if settings else "is not configured (`audit: {file: audit.jsonl}`)"
        raise Failure(f"the audit log {where}: give --log FILE")
    return place.base / settings.file


def _found(output: Output, path: Path, request_id: str) -> tuple[Record, Path]:
    """Search the log and its rotated files, the newest first."""
    files = files_of(path)
    if not files:
        raise Failure(f"{path}: there is no audit log")
    for file in files:
        try:
            for record in records_with(file, request_id.encode()):
                if record.get("request_id") == request_id:
                    return record, file
        except Unreadable as error:
            if file == path:
                raise
            output.note(f"{file} could not be read to its end: {type(error).__name__}")
    names = ", ".join(file.name for file in files[:8]) + (", …" if len(files) > 8 else "")
    raise Failure(
        f"there is no request {request_id} in {names}. Its line may be on the machine of another gateway, "
        "or in a file that was moved away (--log FILE). Of refusals before a valid signature, at most 50 a "
        "second get a line."
    )


def _headline(record: Record) -> str:
    status, code = _text(record, "status"), _text(record, "code")
    if record.get("decision") == "deny":
        return f"Refused: {status} {code}."
    if record.get("code"):
        return f"Granted, but it failed: {code}; the client got {status or 'no answer'}."
    return f"Granted: the client got {status or 'no answer'}."


def _why(record: Record) -> str:
    """Return the sentence of the code, and the exact reason."""
    code, detail = record.get("code"), _text(record, "detail")
    sentence = MESSAGE.get(code, "") if isinstance(code, str) and record.get("decision") == "deny" else ""
    named = ":" in detail.partition(" ")[0]  # it begins with a host, which is shown as it is
    exact = f"{detail if named else detail[:1].upper() + detail[1:]}." if detail else ""
    return " ".join(filter(None, (sentence, exact)))


def _facts(record: Record) -> list[tuple[str, str]]:
    """Return the rows of a table."""
    found = [("when", _when(record)), ("request", _request(record)), ("presign", _presign(record))]
    sizes = ", ".join(
        f"{size_in_words(int(count))} {name}"
        for name, key in (("received", "bytes_in"), ("sent", "bytes_out"))
        if (count := _number(record, key))
    )
    lasted = f"after {took(_number(record, 'duration'))}{': ' if sizes else ''}{sizes}"
    found.append(("answer", f"{_text(record, 'status') or 'none'}, {lasted}"))
    if record.get("upstream_status"):
        waited = took(_number(record, "upstream_duration"))
        found.append(("upstream", f"{_text(record, 'upstream_status')}, after {waited}"))
    elif record.get("decision") == "deny":
        found.append(("upstream", "was not asked"))
    return [(name, text) for name, text in found if text]


def _when(record: Record) -> str:
    moment = int(_number(record, "time"))
    ago = int(time.time()) - moment
    at = local_instant(moment)
    return f"{at} ({in_words(ago)} ago)" if ago >= 0 else at


def _request(record: Record) -> str:
    method, path, client = (_text(record, name) for name in ("method", "path", "client"))
    unknown = (
        "its path was refused" if record.get("key") else "its path is not logged before a valid signature"
    )
    asked = f"{method} {path}" if path else f"{method}, {unknown}"
    connection = f" of {_text(record, 'connection')}" if record.get("connection") else ""
    return f"{asked}{connection}{f', from {client}' if client else ''}"


def _presign(record: Record) -> str:
    carrier, key, name, signature = (_text(record, one) for one in ("carrier", "key", "id", "signature"))
    if not carrier:
        return "none that can be read"
    parts = [_CARRIERS.get(carrier, carrier), f"signed with key {key}" if key else "no valid signature"]
    parts += [f"named {name}"] if name else []
    parts += [f"signature id {signature}"] if signature else []
    return ", ".join(parts)


def _text(record: Record, name: str) -> str:
    found = record.get(name)
    return printable(str(found)) if isinstance(found, (str, int, float)) else ""


def _number(record: dict[str, Any], name: str) -> float:
    found = record.get(name)
    return float(found) if isinstance(found, (int, float)) and 0 <= found < 1e15 else 0.0
