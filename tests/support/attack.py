"""One case of the catalogue of attacks, sent to a gateway over one transport."""

import time

from support.h2client import Fields, H2Client
from support.hostile import Json, Outcome, Template
from support.proxy import Mitm
from support.raw import ConnectRefused, Hang, connect_tls, exchange, parse_response, send_raw
from support.transports import attack_of


def attack(case: Json, transport: str, template: Template, gateway: Mitm) -> Outcome:
    """Send one case over one transport."""
    if transport == "published":
        if "h2" in case:
            spec = case["h2"]
            headers = [(template.render(name), template.render(value)) for name, value in spec["headers"]]
            body = spec["body"].encode("latin-1") if spec["body"] is not None else None
            return attack_h2(gateway, spec["connect_host"], spec["sni"], headers, body, spec["trailers"])
        return attack_h1(gateway, template.render(case["raw"]).encode("latin-1"))
    parts = attack_of(case, template)
    if transport == "h2":
        return attack_h2(gateway, parts.host, parts.host, *parts.as_h2())
    return attack_h1(gateway, parts.as_h1(), tunnel=parts.host if transport == "connect" else None)


def attack_h1(gateway: Mitm, data: bytes, tunnel: str | None = None) -> Outcome:
    started = time.monotonic()
    try:
        if tunnel is None:
            received = send_raw(gateway.port, data)
        else:
            with connect_tls(gateway.port, tunnel, cafile=gateway.ca) as sock:
                received = exchange(sock, data)
    except Hang as hang:
        return Outcome("hang", hang.received)
    except ConnectRefused as refused:
        return Outcome("closed", refused.received)
    took = (time.monotonic() - started) * 1000
    try:
        response = parse_response(received, data.startswith(b"HEAD "))
    except ValueError:
        return Outcome("closed", received, None, took)
    return Outcome(str(response.status), received, response.header("x-presign-error"), took)


def attack_h2(
    gateway: Mitm, host: str, sni: str, headers: Fields, body: bytes | None, trailers: Fields | None
) -> Outcome:
    started = time.monotonic()
    try:
        client = H2Client.through(gateway.port, host, 443, sni, gateway.ca)
    except ConnectRefused as refused:
        return Outcome("closed", refused.received)
    with client:
        reply = client.request(headers, body, trailers)
    took = (time.monotonic() - started) * 1000
    result = "closed" if reply.outcome == "reset" else reply.outcome
    return Outcome(result, reply.received, reply.header("x-presign-error"), took)
