"""Requests that two HTTP parsers would cut or read differently, as raw bytes to a real gateway."""

import re
import time
from typing import Any

import pytest
import yaml

from support import thirdparty
from support.asking import SECRET, Grant
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.proxy import Mitm
from support.raw import Hang, Response, parse_response, send_raw
from support.recorder import Recorder
from support.seen import Seen

# Seconds for what a request may still cause after its answer.
SETTLE = 0.03
GRANT = Grant("conn")
HONEST = 1000
"""The largest body that is really sent: a request that promises more must not be sent on for it."""
_HEAD = re.compile(
    rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ /[\x21-\x7e]* HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\x20-\x7e\x80-\xff\t]*\r\n)+\r\n"
)
_FRAMING = re.compile(r"(?i)(?:content|transfer)[^0-9A-Za-z]*(?:length|encoding)")


@pytest.fixture(scope="module")
def egress(module_gateway: MakeGateway, upstream: Recorder) -> Mitm:
    """A gateway that forwards nothing but what is signed for the recorder."""
    config = {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": {"conn": bearer_connection(upstream.url, SECRET)},
    }
    return module_gateway(config)


def raw(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    """A request with a good presign in its header; `line` and `fields` stand in it as they are."""
    given = (b"Host: presign.local", *(f"{name}: {value}".encode() for name, value in GRANT.headers.items()))
    return b"\r\n".join((line, *given, *fields, b"", body))


def send(gateway: Mitm, data: bytes, timeout: float = 10.0) -> Response | None:
    """The answer, None where there was none."""
    try:
        return parse_response(send_raw(gateway.port, data, timeout=timeout), data.startswith(b"HEAD "))
    except (ValueError, Hang):
        return None


TARGET = b"/api/proxy/conn/v1/models"
REFUSED = {
    "HTTP/0.9 loses the Host on its way": raw(b"GET %b HTTP/0.9" % TARGET),
    "HTTP/2.0 in a line of HTTP/1": raw(b"GET %b HTTP/2.0" % TARGET),
    "HTTP/3.0 in a line of HTTP/1": raw(b"GET %b HTTP/3.0" % TARGET),
    "an absolute URL under HTTP/2.0": raw(b"GET http://presign.local%b HTTP/2.0" % TARGET),
    "2^63": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: 9223372036854775808", body=b"a"),
    "2^64": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: 18446744073709551616", body=b"a"),
    "2^64 + 1": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: 18446744073709551617", body=b"a"),
    "a thousand digits": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: 1" + b"0" * 999, body=b"a"),
    "a sign": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: +1", body=b"a"),
    "hexadecimal": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: 0x1", body=b"a"),
    "leading zero": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: 01", body=b"a"),
    "underscored digits": raw(b"POST %b HTTP/1.1" % TARGET, b"Content-Length: 1_0", body=b"a" * 10),
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_request_that_two_parsers_frame_differently_is_refused(
    how: str, egress: Mitm, upstream: Recorder
) -> None:
    response = send(egress, REFUSED[how], timeout=2)
    time.sleep(SETTLE)
    assert not upstream.touched, (upstream.requests, upstream.fragments)
    assert response is not None
    assert response.status == 400


@pytest.mark.parametrize(
    "name", ["Transfer---Encoding", "Transfer_-_Encoding", "Content--Length", "Transfer..Encoding"]
)
def test_a_framing_header_in_another_spelling_does_not_reach_the_upstream(
    name: str, egress: Mitm, upstream: Recorder
) -> None:
    response = send(egress, raw(b"POST %b HTTP/1.1" % TARGET, name.encode() + b": chunked"))
    assert response is not None
    (request,) = upstream.wait_for(1)
    assert not [header for header, _ in request.headers if _FRAMING.fullmatch(header)], request.raw


# -- aws/http-desync-guardian ---------------------------------------------------------------------------

Case = dict[str, Any]

# Of what the guardian calls Compliant or Acceptable, what SPEC has refused all the same, and why.
STRICTER = {
    "a control character in a name or value": re.compile(r"\\x01|non-printable|non-compliant"),
    "a control character in the path": re.compile(r"%0[9AD] in URI"),
    "a transfer coding besides chunked": re.compile(
        r"identity and chunked|Multiple transfer encoding|TE with custom|Different Transfer|with a param"
        r"|Correct TE OK"
    ),
    "HTTP/0.9": re.compile(r"0\.9"),
    "a target with white space, a backslash or none": re.compile(r"\[space\] in URI|Compliant URL|Empty URI"),
}


def cases() -> list[Case]:
    folder = thirdparty.folder("http-desync-guardian", "tests")
    return [case for path in sorted(folder.glob("*.yaml")) for case in yaml.safe_load(path.read_bytes())]


def _bytes(value: Any) -> bytes:
    """As the suite's own reader has it: escapes up to \\xff are octets, all else is UTF-8."""
    text = "" if value is None else str(value)
    return text.encode("latin-1" if all(ord(char) < 256 for char in text) else "utf-8")


def render(case: Case) -> bytes:
    """The case as the holder of a presign would send it, and behind it what its framing might cut off."""
    uri, version = _bytes(case["uri"]), _bytes(case["version"])
    target = b"/api/proxy/conn" + uri if uri else b""
    line = b" ".join((_bytes(case["method"]), target, *([version] if version else [])))
    fields = [(_bytes(one["name"]), _bytes(one["value"])) for one in case["headers"] or []]
    smuggled = b"0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: presign.local\r\nX-Pad: "
    lengths = [
        int(v) for n, v in fields if n.lower() == b"content-length" and re.fullmatch(rb" *\d{1,7} *", v)
    ]
    return raw(
        line, *(name + b": " + value for name, value in fields), body=smuggled.ljust(max([HONEST, *lengths]))
    )


def judge(case: Case, response: Response | None, requests: list[Seen], fragments: list[bytes]) -> str:
    """What is wrong with what came of a case; empty where nothing is."""
    if fragments or len(requests) > 1:
        return f"more than one request arrived: {requests!r} {fragments!r}"
    if case["expected"]["tier"] == "Severe":
        return f"forwarded: {requests[0].raw!r}" if requests else ""
    for request in requests:
        if not _HEAD.fullmatch(request.raw) or not request.complete or "smuggled" in request.target:
            return f"not canonical: {request.raw!r}"
        framing = [name for name, _ in request.headers if _FRAMING.fullmatch(name)]
        if len(framing) > 1 or not {name.lower() for name in framing} <= {
            "content-length",
            "transfer-encoding",
        }:
            return f"framed twice: {request.raw!r}"
    if case["expected"]["tier"] == "Ambiguous" or any(why.search(case["name"]) for why in STRICTER.values()):
        return ""
    return "" if requests and response and response.status == 200 else f"refused: {response!r}"


def test_no_severe_request_of_the_desync_guardian_is_forwarded(egress: Mitm, upstream: Recorder) -> None:
    """Ambiguous ones arrive once and canonical, or not at all; the others arrive."""
    wrong, counted = [], dict.fromkeys(("Severe", "Ambiguous", "Acceptable", "Compliant"), 0)
    forwarded = counted.copy()
    for case in cases():
        upstream.clear()
        response = send(egress, render(case), timeout=3)
        time.sleep(SETTLE)
        tier = case["expected"]["tier"]
        counted[tier] += 1
        forwarded[tier] += bool(upstream.requests)
        if why := judge(case, response, upstream.requests, upstream.fragments):
            wrong.append((tier, case["name"], why))
    assert not wrong, "\n".join(map(repr, wrong))
    print(f"of {counted}, forwarded: {forwarded}")
    assert min(counted.values()) >= 15
    assert forwarded["Compliant"] >= 15
