"""One attack over every transport: the published bytes taken apart, and put together for another way in."""

import re
from dataclasses import dataclass, replace
from typing import Any

from support.hostile import Template

Fields = list[tuple[str, str]]

TRANSPORTS = ("published", "direct", "connect", "h2", "reverse")
"""As the file has it; origin-form on the plain port; CONNECT with HTTP/1.1 inside TLS; CONNECT with HTTP/2
inside TLS; origin-form to a gateway in reverse mode."""

# Where a transport cannot carry what the attack consists of.
NOT_OVER = {
    ("B62", "direct"): "the published bytes are in origin-form already",
    ("C11", "direct"): "origin-form has no scheme",
    ("C14", "h2"): "an HTTP/2 request has no version that could be missing",
    ("E11", "direct"): "over HTTP/1 a line break ends the field: two fields, and no attack",
    ("E11", "connect"): "over HTTP/1 a line break ends the field: two fields, and no attack",
    ("E11", "reverse"): "over HTTP/1 a line break ends the field: two fields, and no attack",
} | {
    (case, "h2"): "published over HTTP/2: the same bytes"
    for case in ("E02", "E05", "E08", "E11", "E14", "Z04")
}

# In reverse mode mitmproxy replaces `Host` before any hook: a strange one means nothing (SPEC §1.2), and the
# request goes where every request goes, to the one target.
_HOST_MEANS_NOTHING = {"client": ["200"], "forwarded": True, "upstream_absent": ["evil"]}

# Upgrade, Connection and Transfer-Encoding are no fields of HTTP/2 (RFC 9113, 8.2.2): its connection ends.
_NO_FIELD_OF_HTTP2 = {"client": ["closed"], "forwarded": False}
_WITH_FIELDS_OF_HTTP1 = (
    *(f"U{number:02}" for number in range(1, 30)),
    *("K01", *(f"K{number:02}" for number in range(3, 15))),
    "P04",
)

# At the API's own name the host decides which upstream it is, and a path of the default one may begin with @.
_NO_NAME_IN_THE_PATH = {"client": ["200"], "forwarded": True, "upstream_absent": ["second", "ps1_"]}

EXPECTED_OVER: dict[tuple[str, str], dict[str, Any]] = {
    ("C02", "reverse"): _HOST_MEANS_NOTHING,
    ("C05", "reverse"): _HOST_MEANS_NOTHING,
    ("C08", "reverse"): _HOST_MEANS_NOTHING,
    ("E08", "reverse"): _HOST_MEANS_NOTHING,
    ("N03", "reverse"): _NO_NAME_IN_THE_PATH,
} | {(case, "h2"): _NO_FIELD_OF_HTTP2 for case in _WITH_FIELDS_OF_HTTP1}


@dataclass(frozen=True)
class Attack:
    """A request in parts; `host` is where its URL says it goes, `fields` hold what `Host` says."""

    method: str
    host: str
    path: str
    fields: Fields
    version: str = "HTTP/1.1"
    body: str | None = None
    trailers: Fields | None = None
    scheme: str = "https"

    def as_h1(self) -> bytes:
        """Origin-form, or absolute-form where there is a scheme that only this can carry."""
        target = self.path if self.scheme.startswith("http") else f"{self.scheme}://{self.host}:70{self.path}"
        line = " ".join(filter(None, [self.method, target, self.version]))
        fields = self.fields
        body = self.body or ""
        if self.trailers:
            fields = [field for field in fields if field[0] != "content-length"]
            fields = [*fields, ("Transfer-Encoding", "chunked")]
            trailers = "".join(f"{name}: {value}\r\n" for name, value in self.trailers)
            body = f"{len(body):x}\r\n{body}\r\n0\r\n{trailers}\r\n"
        head = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"{line}\r\n{head}\r\n{body}".encode("latin-1")

    def as_h2(self) -> tuple[Fields, bytes | None, Fields | None]:
        """A header list, `Host` as `:authority`; the body without the framing of HTTP/1."""
        hosts = [value for name, value in self.fields if name.lower() == "host"]
        fields = [(name.lower(), value) for name, value in self.fields if name.lower() != "host"]
        pseudo = [(":method", self.method), (":scheme", self.scheme), (":path", self.path)]
        pseudo += [(":authority", host) for host in hosts]
        return [*pseudo, *fields], self.body.encode("latin-1") if self.body else None, self.trailers


def attack_of(case: dict[str, Any], template: Template) -> Attack:
    """The parts of a case."""
    return _from_h2(case["h2"], template) if "h2" in case else _from_h1(template.render(case["raw"]))


def _from_h1(raw: str) -> Attack:
    head, _, body = raw.partition("\r\n\r\n")
    line, *rest = head.split("\r\n")
    fields = [(name, value) for name, _, value in (one.partition(": ") for one in rest)]
    method, _, rest_of_line = line.partition(" ")
    target, _, version = rest_of_line.rpartition(" ")
    if not version.startswith("HTTP/"):
        target, version = rest_of_line, ""
    absolute = re.fullmatch(r"([a-z]+)://(?:([^/@]*)@)?([^/:]+)(?::[0-9]+)?(/.*)", target, re.DOTALL)
    host = dict(fields).get("Host", "presign.click")
    if not absolute:
        return Attack(method, host, target, fields, version, body or None)
    scheme, userinfo, url_host, path = absolute.groups()
    if userinfo:  # without a URL, its userinfo can stand in Host only
        fields = [(name, f"{userinfo}@{url_host}" if name == "Host" else value) for name, value in fields]
    attack = Attack(method, url_host, path, fields, version, body or None)
    return attack if scheme == "http" else replace(attack, scheme=scheme)


def _from_h2(spec: dict[str, Any], template: Template) -> Attack:
    headers = [(template.render(name), template.render(value)) for name, value in spec["headers"]]
    pseudo = {name: value for name, value in headers if name.startswith(":")}
    fields = [field for field in headers if not field[0].startswith(":")]
    if ":authority" in pseudo:
        fields.insert(0, ("Host", pseudo[":authority"]))
    return Attack(
        pseudo[":method"],
        spec["connect_host"],
        pseudo[":path"],
        fields,
        body=spec["body"],
        trailers=[tuple(field) for field in spec["trailers"]] if spec["trailers"] else None,
    )
