"""Answers of token endpoints to the byte: such as issue a token, and such as are bent in a part or two."""

# ruff: noqa: E501 - tables of bytes, a row each

import gzip
import itertools
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from support.mutations import Draw, scar

PLACE = b"tok_00000000000000000000_R3AL"
"""Where a token stands that is the answer's own, once its number is filled in."""
TOKENS = (
    b'"%b"' % PLACE, b'""', b'" "', b'"%b x"' % PLACE, b'" %b"' % PLACE, b'"%b\\r\\nX-Injected: 1"' % PLACE, b'"%b\\u0000"' % PLACE, b'"%b\\u00e9"' % PLACE, b'"%b\xc3\xa9"' % PLACE,
    b'"%b\xff"' % PLACE, b'"%b\x00"' % PLACE, b'"%b\r\n"' % PLACE, b'"%b\\t"' % PLACE, b'"%b\\u007f"' % PLACE, b'"\\ud800"', b'"%b\\u0041\\/"' % PLACE, b'"%b,b"' % PLACE, b'"\\"%b\\""' % PLACE,
    b'"%b\\x"' % PLACE, b"'%b'" % PLACE, PLACE, b"7", b"null", b"true", b'["%b"]' % PLACE, b'{"a": "%b"}' % PLACE, b'"%b"' % (PLACE + b"a" * 32_000), b'"%b"' % (b"a" * 32_768),
    b'"%b"' % (b"a" * 32_769), b'"%b"' % (b"a" * 40_000), b'"\\u202e%b"' % PLACE, b'"Bearer %b"' % PLACE,
)  # fmt: skip
TYPES = (
    b'"bearer"', b'"BEARER"', b'"bea\\u0072er"', b'"Bearer "', b'"mac"', b'"DPoP"', b'"N_A"', b'""', b"null", b"7", b"true", b'["Bearer"]', b'{"Bearer": 1}', b'"bearer\\u0000"',
    b'"\xef\xbc\xa2earer"', b'"Bearer, DPoP"',
)  # fmt: skip
SECONDS = (
    b"1", b"0", b"-1", b"-0", b"0.5", b"1.5", b"1e3", b"1e400", b"-1e400", b"1E-400", b'"3600"', b'"1"', b'"0"', b'"-5"', b'"soon"', b'""', b'" 60"', b'"+60"', b'"6_0"', b'"1e3"', b'"60.0"', b'"999999999999"',
    b'"9999999999999"', b'"\xef\xbc\x96\xef\xbc\x90"', b'"\\u0036\\u0030"', b"9" * 100, b"9" * 5000, b"true", b"false", b"null", b"[60]", b'{"s": 60}', b"NaN", b"Infinity", b"-Infinity", b"0x10", b"01", b"1.",
    b".5", b"+1", b"1_000", b"9223372036854775808", b"3600.0000000000000001", b"1e99999999",
)  # fmt: skip
INSTANTS = (
    b'"2099-01-01t00:00:00z"', b'"2001-01-01T00:00:00Z"', b'"2099-01-01 00:00:00Z"', b'"2099-01-01T00:00:00"', b'"2099-01-01T00:00:00+02:00"', b'"2099-01-01T00:00:00-00:00"', b'"2099-01-01T00:00:00+99:99"',
    b'"2099-01-01T00:00:00+24:00"', b'"2099-02-30T00:00:00Z"', b'"9999-12-31T23:59:59-23:59"', b'"2099-01-01T24:00:00Z"', b'"2099-01-01T00:00:60Z"', b'"2099-01-01T00:00:00.123456789Z"',
    b'"2099-01-01T00:00:00.Z"', b'"20990101T000000Z"', b'"2099-W01-1T00:00:00Z"', b'"2099-01-01"', b'"\xef\xbc\x92099-01-01T00:00:00Z"', b'"2099-01-01T00:00:00Z\\n"', b'"0000-01-01T00:00:00Z"',
    b"4070908800", b'"4070908800"', b"null", b'""', b"true", b"1e400", b"NaN",
)  # fmt: skip
MEMBERS = (
    b'"scope": "a b"', b'"x": NaN', b'"x": -Infinity', b'"x": 1, "x": 1', b'"x": {"y": 1, "y": 2}', b'"access_token": "other"', b'"token": "other"', b'"access\\u005ftoken": "other"', b'"Access_Token": "other"',
    b'"token_type": "mac"', b'"expires_in": 0', b'"refresh_token": 7', b'"refresh_token": null', b'"refresh_token": "a b"', b'"refresh_token": "next-0123456789"', b'"error": "invalid_client"', b'"": ""',
    b'"\\ud800": 1', b'"x": "\\q"', b'"x": "\t"', b'"x": ' + b"[" * 900 + b"]" * 900, b'"x": ' + b"[" * 20_000 + b"]" * 20_000, b'"x": "' + b"a" * 70_000 + b'"', b'"x": 1,', b'x: 1', b"/* */ \"x\": 1", b"\"x\": undefined",
    b"\"x\": " + b"9" * 5000, b"\"x\": 1e999999", b"\"x\": 0123",
)  # fmt: skip
TEXTS = (
    "bom",
    "utf-16",
    "cut",
    "twice",
    "list",
    "text",
    "comma",
    "newlines",
    "spaces",
    "behind",
    "gzip",
    "deep",
    "form",
    "none",
)

GOOD = {"oauth2": b"HTTP/1.1 200 OK", "github_app": b"HTTP/1.1 201 Created", "registry": b"HTTP/1.1 200 OK"}
STARTS = (
    b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.0 201 OK", b"HTTP/1.2 200 OK", b"HTTP/1.9 201 OK", b"HTTP/2 200", b"HTTP/2.0 200 OK", b"HTTP/3.1 201 OK", b"HTTP/0.9 200 OK", b"HTTP/1.1  200 OK", b"http/1.1 200 OK",
    b"HTTP/1.1 0200 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 \xd9\xa2\xd9\xa0\xd9\xa0 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 201 Created", b"HTTP/1.1 202 Accepted", b"HTTP/1.1 203 X", b"HTTP/1.1 204 X", b"HTTP/1.1 205 X",
    b"HTTP/1.1 206 X", b"HTTP/1.1 226 X", b"HTTP/1.1 300 X", b"HTTP/1.1 301 X", b"HTTP/1.1 302 X", b"HTTP/1.1 303 X", b"HTTP/1.1 304 X", b"HTTP/1.1 307 X", b"HTTP/1.1 308 X", b"HTTP/1.1 400 X", b"HTTP/1.1 401 X", b"HTTP/1.1 407 X",
    b"HTTP/1.1 429 X", b"HTTP/1.1 500 X", b"HTTP/1.1 503 X", b"HTTP/1.1 999 X", b"HTTP/1.1 000 X", b"HTTP/1.1 100 X", b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 199 X", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 \xff",
    b"ICY 200 OK", b"SSH-2.0-OpenSSH_9.2", b"", b"\r\nHTTP/1.1 200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK", b"HTTP/1.1 200 " + b"a" * 20_000,
)  # fmt: skip
LINES = (
    b"Location: http://evil.test/token", b"Refresh: 0; url=http://evil.test/", b"Content-Type: text/html", b"Content-Type: application/json", b"content-type: application/JSON;charset=utf-8", b"Content-Type: application/json;charset=utf-16",
    b"Content-Type: application/problem+json", b"Content-Type:", b"Content-Type: application/json, text/html", b"Content-Type: application/json\x0b", b"Content_Type: text/html", b"Content-Encoding: gzip", b"Content-Encoding: identity",
    b"Content-Encoding: br", b"Content-Encoding: utf-8, GZIP", b"Content-Encoding: utf-8", b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding:", b"Transfer-Encoding: \x0bchunked", b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: -1", b"Content-Length: 5, 5",
    b"Content-Length: 5, 6", b"Content-Length: 0x5", b"Content-Length: 9999", b"Content-Length: 100000", b"Content-Length: 99999999999999999999999", b"Content-Length : 5", b"Content-Length:", b"Content-Length: 1_0", b"Connection: keep-alive",
    b"Connection: close", b"Connection: upgrade", b"Upgrade: h2c", b"Keep-Alive: timeout=5", b"Set-Cookie: a=b", b"X-A: a\rb", b"X-A: a\x00b", b"X-A: a\x01b", b"X-A : b", b" folded", b"X-A: b\r\n folded", b"X-A: b\r\n\tContent-Length: 0",
    b"X Y: z", b": x", b"X", b"X-A: b\nX-B: c", b"X-\xc3\xa9: a", b"X-A: caf\xc3\xa9", b"Trailer: Content-Type", b"X-Big: " + b"a" * 20_000, b"\r\n".join([b"X-A: b"] * 3000), b"WWW-Authenticate: Bearer", b"Cache-Control: no-store",
    b"Content-Type: application/json\r\nContent-Type: application/json", b"", b"Content-Range: bytes 0-1/9", b"Strict-Transport-Security: max-age=1",
)  # fmt: skip
INTERIM = (
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", b"HTTP/1.1 102 X\r\n\r\n" * 30, b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", b"HTTP/1.1 199 X\r\n\r\n", b"HTTP/1.0 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, b"\r\n", b"\x00", b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
)  # fmt: skip
BEHIND = (
    b"\r\n", b"{}", b"\x00" * 10, b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n", b"a" * 100_000, b"0\r\n\r\n",
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n{"access_token": "second"}',
)  # fmt: skip
FRAMINGS = (
    "length",
    "length",
    "length",
    "chunks",
    "chunks",
    "close",
    "both",
    "short",
    "long",
    "no end",
    "blanks",
    "trailers",
)


@dataclass(frozen=True)
class TokenSample:
    """One draw: the bytes of an answer, in pieces, and how its connection ends."""

    grant: str
    data: bytes
    cuts: tuple[int, ...] = ()
    end: str = "close"
    """`close`, `reset`, or `hold`: it stays open for a moment, as if there were a next request."""
    is_early: bool = False
    """It comes before the request was read."""

    def numbered(self, number: int) -> "TokenSample":
        return replace(self, data=self.data.replace(PLACE, b"tok_%020d_R3AL" % number))

    @property
    def pieces(self) -> list[bytes]:
        edges = [0, *sorted(self.cuts), len(self.data)]
        return [self.data[at:to] for at, to in itertools.pairwise(edges)]


@st.composite
def token_answers(draw: Draw) -> TokenSample:
    """Answers to the grants of `GOOD`, most of them bent."""
    grant = draw(st.sampled_from(("oauth2",) * 6 + ("github_app", "registry")))
    bent = draw(st.sampled_from((0, 0, 1, 1, 1, 2, 2, 3)))
    ways = [
        draw(
            st.sampled_from(
                ("member", "member", "member", "text", "start", "line", "line", "framing", "whole")
            )
        )
        for _ in range(bent)
    ]
    body = b"{%b}" % b", ".join(_members(draw, grant, ways.count("member")))
    for _ in range(ways.count("text")):
        body = _text(draw, body)
    start = draw(st.sampled_from(STARTS)) if "start" in ways else GOOD[grant]
    lines = [b"Content-Type: application/json", b"Cache-Control: no-store"]
    framing, framed = _framed(draw, body, draw(st.sampled_from(FRAMINGS)) if "framing" in ways else "length")
    lines += framing
    for _ in range(ways.count("line")):
        line, at = draw(st.sampled_from(LINES)), draw(st.integers(0, len(lines) - 1))
        lines[at : at + draw(st.sampled_from((0, 0, 1)))] = [line]
    data = b"\r\n".join([start, *lines, b"", b""]) + framed
    if "whole" in ways:
        data = _whole(draw, data, body)
    cuts = draw(st.sampled_from((0, 0, 0, 1, 3)))
    return TokenSample(
        grant,
        data,
        tuple(draw(st.integers(0, len(data))) for _ in range(cuts)),
        draw(st.sampled_from(("close", "close", "close", "close", "hold", "reset"))),
        draw(st.integers(0, 9)) == 0,
    )


def _members(draw: Draw, grant: str, bends: int) -> list[bytes]:
    if grant == "oauth2":
        names = {b'"access_token"': TOKENS, b'"token_type"': TYPES, b'"expires_in"': SECONDS}
        found = [b'"access_token": ' + TOKENS[0], b'"token_type": "Bearer"', b'"expires_in": 3600']
    elif grant == "registry":
        names = {b'"token"': TOKENS, b'"expires_in"': SECONDS, b'"issued_at"': INSTANTS}
        found = [
            b'"token": ' + TOKENS[0],
            b'"expires_in": 3600',
            b'"issued_at": "2099-01-01T00:00:00Z"',
            b'"access_token": ' + TOKENS[0],
        ]
        found = found[: draw(st.integers(1, 4))]
    else:
        names = {b'"token"': TOKENS, b'"expires_at"': INSTANTS}
        found = [b'"token": ' + TOKENS[0], b'"expires_at": "2099-01-01T00:00:00Z"']
    for _ in range(bends):
        how = draw(st.sampled_from(("value", "value", "value", "insert", "drop", "double")))
        at = draw(st.integers(0, len(found) - 1)) if found else 0
        if how == "insert" or not found:
            found.insert(at, draw(st.sampled_from(MEMBERS)))
        elif how == "drop":
            found.pop(at)
        elif how == "double":
            found.append(found[at])
        else:
            name = found[at].partition(b":")[0]
            found[at] = name + b": " + draw(st.sampled_from(names.get(name, SECONDS)))
    return found


def _text(draw: Draw, body: bytes) -> bytes:
    how = draw(st.sampled_from(TEXTS))
    made = {
        "bom": b"\xef\xbb\xbf" + body,
        "utf-16": body.decode("latin-1").encode("utf-16"),
        "cut": body[: draw(st.integers(0, len(body)))],
        "twice": body + body,
        "list": b"[%b]" % body,
        "text": b'"%b"' % PLACE,
        "comma": body[:-1] + b",}",
        "newlines": body.replace(b", ", b"\r\n,\t"),
        "spaces": b" " * 70_000 + body,
        "behind": body + draw(st.sampled_from((b"\n", b"\x00", b";", b"\x0c", b"{}", b"\xc2\xa0"))),
        "gzip": gzip.compress(body, mtime=0),
        "deep": b"[" * 30_000 + body + b"]" * 30_000,
        "form": b"access_token=%b&token_type=bearer" % PLACE,
        "none": b"",
    }
    return made[how]


def _framed(draw: Draw, body: bytes, how: str) -> tuple[list[bytes], bytes]:
    """The lines that frame a body, and the body as it is sent."""
    length, coding = b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"
    at = draw(st.integers(0, len(body))) if how in ("chunks", "both", "no end", "blanks", "trailers") else 0
    halves = [half for half in (body[:at], body[at:]) if half]
    blank = (
        draw(st.sampled_from((b" ", b";x=1", b" ;x", b"\t", b";" + b"x" * 5000))) if how == "blanks" else b""
    )
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(half), blank, half) for half in halves)
    trailer = draw(
        st.sampled_from((b"X-A: b\r\n", b"Content-Type: text/html\r\n", b"X\r\n", b"X-A: a\x00\r\n"))
    )
    return {
        "length": ([length], body),
        "chunks": ([coding], chunks + b"0\r\n\r\n"),
        "close": ([], body),
        "both": ([length, coding], chunks + b"0\r\n\r\n"),
        "short": ([b"Content-Length: %d" % (len(body) - 1)], body),
        "long": ([b"Content-Length: %d" % (len(body) + 1)], body),
        "no end": ([coding], chunks),
        "blanks": ([coding], chunks + b"0\r\n\r\n"),
        "trailers": ([coding], chunks + b"0\r\n" + trailer + b"\r\n"),
    }[how]


def _whole(draw: Draw, data: bytes, body: bytes) -> bytes:
    how = draw(
        st.sampled_from(
            ("interim", "interim", "behind", "scar", "scar", "scar", "cut", "lines", "no head", "nothing")
        )
    )
    if how == "interim":
        return draw(st.sampled_from(INTERIM)) + data
    if how == "behind":
        return data + draw(st.sampled_from(BEHIND))
    if how == "scar":
        return scar(draw, data)
    if how == "cut":
        return data[: draw(st.integers(0, len(data)))]
    if how == "lines":
        return data.replace(b"\r\n", draw(st.sampled_from((b"\n", b"\r", b"\r\r\n", b"\n\r"))))
    return body if how == "no head" else b""
