"""The token that an answer issues, read strictly: RFC 9112, RFC 8259 and RFC 6749 once more.

It shares no code with the product. What the RFCs let a reader take in only one way it takes, as single LFs
and folds (RFC 9112, 2.2 and 5.2); where two readers may differ, there is no token.
"""

import contextlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from support.verifier import TOKEN

MOST = 65_536
"""Bytes of a body that the gateway says it reads."""


class Issued(NamedTuple):
    token: str = ""
    why: str = ""
    """Why there is none."""


class NoToken(Exception):
    """The answer issues nothing."""


def issued(grant: str, data: bytes) -> Issued:
    """What an answer issues whose connection was closed behind these bytes."""
    try:
        status, fields, body = _message(data)
        found = _object(status, fields, body, 201 if grant == "github_app" else 200)
        read = {"github_app": _of_app, "registry": _of_registry}.get(grant, _of_client)
        return Issued(read(found))
    except NoToken as why:
        return Issued(why=str(why))


def _require(good: Any, why: str) -> None:
    if not good:
        raise NoToken(why)


# -- HTTP -----------------------------------------------------------------------------------------------


def _line(data: bytes) -> tuple[bytes, bytes]:
    line, end, rest = data.partition(b"\n")
    _require(end, "it ends too early")
    return line.removesuffix(b"\r"), rest


def _message(data: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """The final answer: status, fields, body."""
    while True:
        line, data = _line(data)
        start = re.fullmatch(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [^\x00\r\n]*)?", line)
        _require(start, "no status line")
        assert start
        fields, data = _fields(data)
        status = int(start[2])
        if status >= 200 or status == 101:
            return status, fields, _body(start[1], status, fields, data)


def _fields(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    fields: list[tuple[bytes, bytes]] = []
    while True:
        line, data = _line(data)
        if not line:
            return fields, data
        _require(not re.search(rb"[\x00\r]", line), "a field with what is in none")
        if line[:1] in b" \t":
            _require(fields, "a fold without a field")
            fields[-1] = (fields[-1][0], fields[-1][1] + b" " + line.strip(b" \t"))
            continue
        pair = re.fullmatch(rb"(%s):(.*)" % TOKEN, line)
        _require(pair, "no field")
        assert pair
        fields.append((pair[1].lower(), pair[2].strip(b" \t")))


def _body(minor: bytes, status: int, fields: list[tuple[bytes, bytes]], data: bytes) -> bytes:
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    lengths = [one for name, value in fields if name == b"content-length" for one in value.split(b",")]
    if status in (101, 204, 304):
        return b""
    if codings:
        _require(not lengths and minor != b"0", "two framings")
        _require(codings == [b"chunked"], "a coding that nobody asked for")
        return _chunks(data)
    if lengths:
        same = {one.strip(b" \t") for one in lengths}
        _require(len(same) == 1 and re.fullmatch(rb"[0-9]+", min(same)), "no length")
        size = min(same).lstrip(b"0") or b"0"
        _require(len(size) < 10 and len(data) >= int(size), "it is cut off")
        return data[: int(size)]
    return data


def _chunks(data: bytes) -> bytes:
    body = b""
    while True:
        line, data = _line(data)
        size = re.fullmatch(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\x00\r]*)?", line)
        _require(size, "no chunk")
        assert size
        count = int(size[1], 16)
        if not count:
            _fields(data)
            return body
        _require(data[count : count + 2] == b"\r\n", "a chunk without its end")
        body, data = body + data[:count], data[count + 2 :]


# -- JSON -----------------------------------------------------------------------------------------------


def _object(status: int, fields: list[tuple[bytes, bytes]], body: bytes, wanted: int) -> dict[str, Any]:
    _require(status == wanted, "another status")
    types = [
        value.partition(b";")[0].strip(b" \t").lower() for name, value in fields if name == b"content-type"
    ]
    _require(types == [b"application/json"], "another media type, or two")
    encodings = [value.lower() for name, value in fields if name == b"content-encoding"]
    _require(
        not re.search(rb"gzip|deflate|compress|br|zstd", b",".join(encodings)), "a coding of the content"
    )
    _require(len(body) <= MOST, "too large")
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise NoToken("no JSON") from None
    _require(isinstance(found, dict), "no object")
    members: dict[str, Any] = found
    return members


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len({name for name, _ in pairs}) == len(pairs), "a member twice")
    return dict(pairs)


def _no_number(name: str) -> None:
    raise NoToken(f"{name} is no JSON")


def _of_client(found: dict[str, Any]) -> str:
    kind = found.get("token_type", "bearer")
    _require(isinstance(kind, str) and re.fullmatch("(?i:bearer)", kind, re.ASCII), "another type of token")
    _lifetime(found)
    following = found.get("refresh_token")
    _require(following is None or _is_token(following), "an odd refresh token")
    return _token(found.get("access_token"))


def _lifetime(found: dict[str, Any]) -> timedelta:
    """At most a day, and a minute where none is told."""
    seconds = found.get("expires_in")
    if isinstance(seconds, str) and re.fullmatch("[0-9]{1,12}", seconds):
        seconds = int(seconds)
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    _require(seconds is None or (is_number and seconds >= 1), "no lifetime")
    return timedelta(seconds=60 if seconds is None else min(seconds, 86_400))


def _of_app(found: dict[str, Any]) -> str:
    _require(_instant(found.get("expires_at")) > datetime.now(UTC), "it is past")
    return _token(found.get("token"))


def _of_registry(found: dict[str, Any]) -> str:
    tokens = [found[name] for name in ("token", "access_token") if found.get(name) is not None]
    _require(tokens and tokens[0] == tokens[-1], "no token, or two")
    left = _lifetime(found)
    if found.get("issued_at") is not None:
        _require(_instant(found["issued_at"]) > datetime.now(UTC) - left, "it is past")
    return _token(tokens[0])


def _instant(text: Any) -> datetime:
    form = r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d{1,9})?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))"
    parts = re.fullmatch(form, text, re.ASCII | re.IGNORECASE) if isinstance(text, str) else None
    _require(parts, "no instant")
    assert parts
    with contextlib.suppress(ValueError, OverflowError):
        at = datetime.strptime(parts[1].upper(), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        offset = timedelta(hours=int(parts[3] or 0), minutes=int(parts[4] or 0))
        return at + (offset if parts[2] == "-" else -offset)
    raise NoToken("no instant")


def _is_token(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 32_768 and all("!" <= char <= "~" for char in value)


def _token(value: Any) -> str:
    _require(_is_token(value), "no token that a header can carry")
    return str(value)
