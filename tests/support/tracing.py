"""The test's hand on `scripts/tracing.py`: requests of every kind, and what comes of each that fails."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from support.h2client import H2Client
from support.lab import LAB_SECRET, REAL_SECRET, SOURCE_SECRET, bearer_connection
from support.leaks import LONG_AGO, Issuer, Traces
from support.proxy import Mitm
from support.puppet import SCRIPTS, eventually
from support.raw import ConnectRefused, Hang, connect_tls, exchange, is_complete, parse_response, send_raw
from support.recorder import Recorder
from support.seen import Seen
from support.signing import base64url

GATEWAY = "presign.local"
IMAGES = "img.lab.test"
API = "api.tls.test"
EXCEPTION_TEXT = b"EXCEPTION-TEXT"
PATIENCE = 1.5
"""Seconds after which an answer that has not come will not come."""
REFUSALS = (400, 403, 404, 431, 500, 502, 503)


class Point(NamedTuple):
    """One call, or one line, of the product within one request."""

    name: str
    called: str
    decisive: str

    @property
    def place(self) -> str:
        """Without the number of the time."""
        return self.name.partition("#")[0]

    @property
    def is_call(self) -> bool:
        return ":line " not in self.name

    def __str__(self) -> str:
        return f"{self.name} → {self.called or 'line'} [{self.decisive}]"


class Ended(NamedTuple):
    """What a client has seen: no status where the connection was closed without one."""

    status: int | None
    received: bytes = b""
    body: bytes = b""
    hung: bool = False


def h1(received: bytes, *, hung: bool = False) -> Ended:
    try:
        response = parse_response(received)
    except ValueError:
        return Ended(None, received, hung=hung)
    body = response.body if is_complete(received) else b"(broken off)"
    return Ended(response.status, received, body, hung)


@dataclass
class Lab:
    """A gateway in which any call of the product can be made to fail."""

    gateway: Mitm
    upstream: Recorder
    control: socket.socket
    issuer: Issuer
    _lines: Any = field(init=False)

    def __post_init__(self) -> None:
        self._lines = self.control.makefile("rw", encoding="utf-8")

    def tell(self, do: str, **arguments: Any) -> dict[str, Any]:
        self._lines.write(json.dumps({"do": do, **arguments}) + "\n")
        self._lines.flush()
        answer: dict[str, Any] = json.loads(self._lines.readline())
        return answer

    # -- how a request travels ---------------------------------------------------------------------------

    def plain(self, data: str) -> Ended:
        try:
            return h1(send_raw(self.gateway.port, data.encode(), timeout=PATIENCE))
        except Hang as hang:
            return h1(hang.received, hung=True)
        except OSError:
            return Ended(None)

    def tunnelled(self, host: str, port: int, data: str) -> Ended:
        try:
            with connect_tls(self.gateway.port, host, port, timeout=PATIENCE) as sock:
                return h1(exchange(sock, data.encode(), PATIENCE))
        except ConnectRefused as refused:
            return h1(refused.received)
        except Hang as hang:
            return h1(hang.received, hung=True)
        except TimeoutError:
            return Ended(None, hung=True)
        except (OSError, ssl.SSLError):
            return Ended(None)

    def over_h2(self, host: str, port: int, target: str, *fields: tuple[str, str]) -> Ended:
        authority = host if port == 443 else f"{host}:{port}"
        head = [(":method", "GET"), (":scheme", "https"), (":authority", authority), (":path", target)]
        try:
            sock = connect_tls(self.gateway.port, host, port, alpn=("h2",), timeout=PATIENCE)
            with H2Client(sock) as client:
                reply = client.request([*head, *fields], timeout=PATIENCE)
        except ConnectRefused as refused:
            return h1(refused.received)
        except TimeoutError:
            return Ended(None, hung=True)
        except (OSError, ssl.SSLError):
            return Ended(None)
        if not reply.ended:
            return Ended(reply.status, reply.received, reply.body, hung=True)
        length = int(reply.header("content-length") or len(reply.body))
        body = b"(broken off)" if reply.detail or length != len(reply.body) else reply.body
        return Ended(reply.status, reply.received, body)

    def works(self) -> bool:
        """Whether a good request is granted."""
        self.upstream.clear()
        ended = self.plain(head(self.issuer.url("conn_lab", "v1/models")))
        carried = [seen.header("authorization") for seen in self.upstream.requests]
        return ended.status == 200 and carried == [f"Bearer {REAL_SECRET}"]


def head(
    target: str, *fields: tuple[str, str], method: str = "GET", host: str = GATEWAY, body: str = ""
) -> str:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body])


# -- what is sent ----------------------------------------------------------------------------------------

Shape = Callable[[Lab], Ended]


def _intercepted(lab: Lab, target: str, *fields: tuple[str, str]) -> Ended:
    host = f"127.0.0.1:{lab.upstream.port}"
    return lab.plain(head(f"http://{host}{target}", *fields, host=host))


def _presigned(path: str, **grant: Any) -> Shape:
    return lambda lab: lab.plain(head(lab.issuer.url("conn_lab", path, **grant)))


def _bearer(lab: Lab) -> tuple[str, str]:
    return "Authorization", f"Bearer {lab.issuer.token('conn_lab')}"


def _basic(lab: Lab) -> Ended:
    word = base64url(f"user:{lab.issuer.token('conn_lab')}").replace("-", "+").replace("_", "/")
    word += "=" * (-len(word) % 4)
    return _intercepted(lab, "/v1/models", ("Authorization", f"Basic {word}"))


def _upload(lab: Lab) -> Ended:
    url = lab.issuer.url("conn_lab", "v1/models?x=1&").replace("&?", "&")
    return lab.plain(head(url, ("Expect", "100-continue"), method="POST", body="upload"))


def _source(lab: Lab, project: str = "pk_lab") -> Ended:
    return lab.plain(head(lab.issuer.source(project, f"http://{IMAGES}:{lab.upstream.port}/a/hero.png?v=1")))


def _interception_of_a_source(lab: Lab) -> Ended:
    url = f"http://{IMAGES}:{lab.upstream.port}/a/hero.png"
    query = lab.issuer.source("pk_seen", url).partition("?")[2]
    return lab.plain(head(f"{url}?{query}", host=f"{IMAGES}:{lab.upstream.port}"))


def _forged(lab: Lab) -> Ended:
    url = lab.issuer.url("conn_lab", "v1/models")
    return lab.plain(head(url[:-1] + ("0" if url[-1] != "0" else "1")))


GRANTED: dict[str, Shape] = {
    "query": _presigned("v1/models"),
    "upload": _upload,
    "header": lambda lab: _intercepted(lab, "/v1/models?x=1", *lab.issuer.headers("conn_lab")),
    "key token": lambda lab: lab.plain(head("/api/proxy/conn_lab/v1/models", _bearer(lab))),
    "key token in Basic": _basic,
    "key token, intercepted": lambda lab: _intercepted(lab, "/v1/models", _bearer(lab)),
    "path token": lambda lab: lab.plain(head(f"/p/{lab.issuer.token('conn_lab')}/v1/models")),
    "odd path": _presigned("v1/%c3%bcber;v=1/%7e", paths="v1/*,v2/a*b*c"),
    "source": _source,
    "source, intercepted": _interception_of_a_source,
    "source, plain": lambda lab: lab.plain(head(f"/v1/pk_open/{IMAGES}:{lab.upstream.port}/hero.png.png")),
    "late secret": lambda lab: lab.plain(head(lab.issuer.url("conn_late", "v1/models"))),
    "tunnel": lambda lab: lab.tunnelled(GATEWAY, 443, head(lab.issuer.url("conn_lab", "v1/models"))),
    "h2": lambda lab: lab.over_h2(GATEWAY, 443, lab.issuer.url("conn_lab", "v1/models")),
    "TLS upstream": lambda lab: lab.tunnelled(
        API,
        lab.upstream.tls_port,
        head("/v1/models", *lab.issuer.headers("conn_tls"), host=f"{API}:{lab.upstream.tls_port}"),
    ),
    "h2 to a TLS upstream": lambda lab: lab.over_h2(
        API, lab.upstream.tls_port, "/v1/models", ("authorization", f"Bearer {lab.issuer.token('conn_tls')}")
    ),
    "echoed key": _presigned("v1/bodyreflect"),
    "key in a header": _presigned("v1/hdrreflect"),
    "chunks": _presigned("v1/chunked"),
    "redirect": _presigned("v1/redirect-inside"),
}
"""Requests that are forwarded with a credential."""

REFUSED: dict[str, Shape] = {
    "expired": _presigned("v1/models", expires=LONG_AGO),
    "forged": _forged,
    "another method": _presigned("v1/models", methods="POST"),
    "another path": _presigned("v1/models", paths="v2/*"),
    "dots in the path": _presigned("v1/%2e%2e/models"),
    "malformed": lambda lab: lab.plain(head("/api/proxy/conn_lab/v1/models?X-Presign-Expires=1")),
    "two carriers": lambda lab: lab.plain(head(lab.issuer.url("conn_lab", "v1/models"), _bearer(lab))),
    "unknown connection": lambda lab: lab.plain(head(lab.issuer.url("conn_gone", "v1/models"))),
    "nothing at the gateway": lambda lab: lab.plain(head("/v1x")),
    "disabled": lambda lab: lab.plain(head(lab.issuer.url("conn_off", "v1/models"))),
    "forged source": lambda lab: _source(lab, "pk_gone"),
    "private source": lambda lab: lab.plain(head(lab.issuer.source("pk_lab", "https://private.test/a.png"))),
    "expired upload": lambda lab: lab.plain(
        head(lab.issuer.url("conn_lab", "v1/models", expires=LONG_AGO), method="POST", body="upload")
    ),
    "expired, h2": lambda lab: lab.over_h2(
        GATEWAY, 443, lab.issuer.url("conn_lab", "v1/models", expires=LONG_AGO)
    ),
    "presign on CONNECT": lambda lab: lab.plain(
        head("api.test:443", *lab.issuer.headers("conn_lab"), method="CONNECT", host="api.test:443")
    ),
}
"""Requests that are ours and refused."""

FAILING: dict[str, Shape] = {
    "upstream closes": _presigned("v1/close"),
    "upstream talks rubbish": _presigned("v1/garbage"),
    "upstream breaks off": _presigned("v1/rawecho"),
}
"""Requests that are forwarded and come to nothing, and so to the error hook."""

PASSED: dict[str, Shape] = {"not ours": lambda lab: _intercepted(lab, "/open")}
"""Requests without a presign where those are let through."""

UNSIGNED: dict[str, Shape] = {
    "unsigned": lambda lab: _intercepted(lab, "/open"),
    "unsigned tunnel": lambda lab: lab.tunnelled("other.test", 443, head("/open", host="other.test")),
    "not HTTP": lambda lab: lab.plain("\x00\x01\x02 not HTTP at all \r\n\r\n"),
    "query, deny": _presigned("v1/models"),
}
"""Requests to a gateway with `unsigned: deny`."""

SHAPES = GRANTED | REFUSED | FAILING | PASSED | UNSIGNED


def config(upstream: Recorder, unsigned: str) -> dict[str, Any]:
    url = f"http://127.0.0.1:{upstream.port}"
    image = f"http://{IMAGES}:{upstream.port}"
    late = bearer_connection(url, LAB_SECRET)
    late["auth"] = {"type": "bearer", "token": {"exec": ["echo", REAL_SECRET], "ttl": "1h"}}
    source: dict[str, Any] = {
        "scheme": "source",
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["png"],
        "ports": [80, 443, upstream.port],
    }
    signed = source | {"mode": "signed", "signing_keys": [{"secret": SOURCE_SECRET}]}
    signed |= {"allowed_origins": [image], "auth": {"type": "bearer", "token": REAL_SECRET}}
    signed |= {"insecure_upstream": True}
    return {
        "gateway": {"hosts": [GATEWAY], "unsigned": unsigned},
        "connections": {
            "conn_lab": bearer_connection(url, LAB_SECRET),
            "conn_late": late,
            "conn_off": bearer_connection("https://off.test", LAB_SECRET, enabled=False),
            "conn_tls": bearer_connection(f"https://{API}:{upstream.tls_port}", LAB_SECRET),
            "pk_lab": signed | {"any_public_origin": True},
            "pk_seen": signed | {"intercept": True},
            "pk_open": source | {"mode": "allowlist", "allowed_origins": [image]},
        },
        "audit": {"file": "audit.jsonl"},
    }


SECRETS = dict.fromkeys(("conn_lab", "conn_late", "conn_off", "conn_tls", "conn_gone"), LAB_SECRET) | (
    dict.fromkeys(("pk_lab", "pk_seen", "pk_gone"), SOURCE_SECRET)
)


def dns(upstream: Recorder) -> dict[str, Any]:
    """Names that must not be reached lead to the recorder too, so that it would show."""
    trap = [f"127.0.0.1#{upstream.port}"]
    return {
        IMAGES: ["127.0.0.1"],
        API: [f"127.0.0.1#{upstream.tls_port}"],
        "private.test": ["127.0.0.1"],
        "other.test": trap,
        "off.test": trap,
        "api.test": trap,
    }


def start(make: Any, upstream: Recorder, unsigned: str, directory: Path) -> Lab:
    """A gateway with the tracing script in it."""
    # A path in a deep directory would be longer than a socket's name may be.
    place = directory / "control"
    watching = ("-s", str(SCRIPTS / "tracing.py"))
    env = {"TRACE_SOCKET": str(place)}
    gateway = make(config(upstream, unsigned), *watching, env=env, dns=dns(upstream))
    assert eventually(place.exists)
    control = socket.socket(socket.AF_UNIX)
    control.settimeout(30)
    control.connect(str(place))
    return Lab(gateway, upstream, control, Issuer(SECRETS))


# -- what must come of it --------------------------------------------------------------------------------


@dataclass
class Baseline:
    """One request without any fault: its calls in order, what its upstream saw, what its client got."""

    points: list[Point]
    ended: Ended
    seen: list[tuple[bytes, bytes | None]]


def trace(lab: Lab, shape: Shape) -> Baseline:
    """Run a request with nothing failing, twice. Before that once more, so that caches are warm.

    What does not run both times depends on the moment: a second that ends between two steps, a line of a log.
    """
    shape(lab)
    first = {point.name for point in _traced(lab, shape)[0]}
    points, ended = _traced(lab, shape)
    return Baseline([point for point in points if point.name in first], ended, told(lab.upstream))


def _traced(lab: Lab, shape: Shape) -> tuple[list[Point], Ended]:
    lab.upstream.clear()
    lab.tell("trace")
    ended = shape(lab)
    return [Point(*one) for one in lab.tell("stop")["points"]], ended


def told(upstream: Recorder) -> list[tuple[bytes, bytes | None]]:
    """What an upstream has received, whole requests and pieces."""
    requests: list[Seen] = upstream.requests
    return [(one.raw, one.body) for one in requests] + [(piece, None) for piece in upstream.fragments]


KEYS = Traces([REAL_SECRET])


def strike(
    lab: Lab, shape: Shape, baseline: Baseline, point: Point, error: str, *, sticky: bool = False
) -> str | None:
    """Run a request while a call or line of it fails; what is wrong with what came of it, or None.

    Raises LookupError where this time the point was not reached.
    """
    for _ in range(2):  # on a busy machine, what is slow is not yet what hangs
        lab.upstream.clear()
        lab.tell("arm", point=point.name, error=error, sticky=sticky)
        ended = shape(lab)
        done = lab.tell("stop")
        if not ended.hung:
            break
    # Nothing may leave once something has failed while it was being decided on.
    strict = bool(done["struck"] and done["decisive"] and not done["sent"])
    wrong = judge(baseline, ended, told(lab.upstream), strict=strict)
    if not done["idle"]:
        wrong = wrong or "the connection is not let go of"
    if not (lab.works() or lab.works()):  # a busy machine may be slow to free what failed
        wrong = wrong or "the next request does not work"
    if not wrong and not done["struck"]:
        raise LookupError(point.name)
    return wrong


def judge(
    baseline: Baseline, ended: Ended, seen: list[tuple[bytes, bytes | None]], *, strict: bool
) -> str | None:
    if KEYS.found_in(ended.received):
        return f"the client got the credential: {ended}"
    if EXCEPTION_TEXT in ended.received:
        return f"the client read the text of an exception: {ended}"
    if seen and (strict or not baseline.seen):
        return f"the upstream saw {seen}, the client {ended}"
    if len(seen) > len(baseline.seen) or any(
        head != was_head or (body and body != was_body and not (was_body or b"").startswith(body))
        for (head, body), (was_head, was_body) in zip(seen, baseline.seen, strict=False)
    ):
        return f"the upstream saw {seen} instead of {baseline.seen}"
    if ended.hung:
        return f"the client hangs: {ended}"
    same = (ended.status, ended.body) == (baseline.ended.status, baseline.ended.body)
    broken = ended.body == b"(broken off)" and ended.status == baseline.ended.status
    if ended.status is None or ended.status in REFUSALS or (same and seen == baseline.seen) or broken:
        return None
    return f"the client got {ended}, not {baseline.ended}"
