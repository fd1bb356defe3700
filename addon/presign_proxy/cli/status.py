"""`presign status`: the state of a running gateway, as its admin listener has it."""

from __future__ import annotations

import http.client
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import click

from ..config_problems import ConfigError
from ..units import in_words, instant, printable, size_in_words
from . import requests_under_way
from .explanation_lines import lines_of
from .output import DONE, REFUSED, Output, counted, light_verb, noted
from .place import Failure, Place

if TYPE_CHECKING:
    from ..config.read_files import Seen

TIMEOUT: Final = 5.0
"""Seconds for each step of a request."""
_WHOLE: Final = 15.0
"""Seconds for a request: what answers may send a byte now and then."""
_MAX_ANSWER: Final = 16 << 20
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - nothing is bound here
_WIDTH: Final = 15

Figures = dict[str, list[tuple[dict[str, str], float]]]
"""The samples of each metric: labels and value."""


@click.command()
@click.option("--admin", metavar="HOST:PORT", help="The admin listener, if not that of the configuration.")
@light_verb
def status(place: Place, output: Output, admin: str | None) -> int:
    """Show what runs: since when, configuration in force, requests under way, limits, audit log.

    It asks the admin listener (admin.listen). Exit code 0 if presigned requests are served.
    """
    host, port = _given(admin) if admin is not None else _listener(place)
    try:
        code, line = _answer(host, port, "/readyz")
        _, text = _answer(host, port, "/metrics")
        under_way = requests_under_way.read(*_answer(host, port, requests_under_way.PATH))
    except (OSError, http.client.HTTPException, UnicodeError) as error:  # a host that is no name
        why = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        raise Failure(f"no gateway answers on {host}:{port}, its admin listener ({why.lower()})") from None
    if code not in (200, 503) or not line.startswith(("ready", "not ready")):
        raise Failure(f"what answers on {host}:{port} is no admin listener of a gateway")
    found = _state(_figures(text), printable(line))
    on_disk = _version_on_disk(place) if place.is_configured and place.exists else None
    found["configuration"]["version_on_disk"] = on_disk
    found["under_way"] = under_way
    lines = lines_of(_lines(found), "granted" if found["ready"] else "refused")
    output.tell(found, *lines, *requests_under_way.lines_of(under_way))
    return DONE if found["ready"] else REFUSED


def _given(text: str) -> tuple[str, int]:
    found = _address(text)
    if found is None:
        raise click.UsageError("--admin needs HOST:PORT, such as 127.0.0.1:9464")
    return found


def _address(text: object) -> tuple[str, int] | None:
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    host = host.strip("[]")
    return _EVERYWHERE.get(host, host), int(port)


def _listener(place: Place) -> tuple[str, int]:
    """Return the address in the configuration, also if something else in it is wrong. Raises Failure."""
    from .workspace import Workspace, no_configuration

    if not place.exists:
        raise no_configuration(place.path)
    with suppress(ConfigError):
        settings = Workspace(place.path, place.environ).config.admin
        if settings is not None:
            return _EVERYWHERE.get(settings.listen.host, settings.listen.host), settings.listen.port
        raise Failure(  # no ConfigError, so it is not suppressed
            f"{place.path.name} sets no admin listener, so a running gateway cannot be asked: set "
            "`admin: {listen: 127.0.0.1:9464}`"
        )
    seen = _seen(place)
    if seen.unread:
        raise ConfigError(seen.unread)
    data = seen.document.data if seen.document is not None else None
    admin = data.get("admin") if isinstance(data, dict) else None
    found = _address(admin.get("listen")) if isinstance(admin, dict) else None
    if found is None:
        raise Failure(
            f"{place.path.name} cannot be used, and names no admin listener: give --admin HOST:PORT"
        )
    return found


def _answer(host: str, port: int, path: str) -> tuple[int, str]:
    """Raises OSError, HTTPException."""
    # Unlike urllib it takes no proxy from the environment: a proxy could not reach this listener.
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    connection.connect()
    deadline = threading.Timer(_WHOLE, _shut, [connection.sock])  # the connection itself soon lets go of it
    deadline.daemon = True
    deadline.start()
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(_MAX_ANSWER).decode("utf-8", "replace").strip()
    finally:
        deadline.cancel()
        connection.close()


def _shut(sock: socket.socket) -> None:
    """End the answer that is being read."""
    with suppress(OSError):  # it has ended meanwhile
        sock.shutdown(socket.SHUT_RDWR)


def _figures(text: str) -> Figures:
    """Parse what Prometheus would read. Raises Failure."""
    from prometheus_client.parser import text_string_to_metric_families

    found: Figures = {}
    try:
        for family in text_string_to_metric_families(text + "\n"):
            for sample in family.samples:
                if not math.isfinite(value := float(sample.value)):
                    raise ValueError(sample.name)
                labels = {name: printable(text) for name, text in sample.labels.items()}
                found.setdefault(sample.name, []).append((labels, value))
    except ValueError:
        raise Failure("the admin listener answers with metrics that cannot be read") from None
    return found


def _seen(place: Place) -> Seen:
    from ..config.read_files import see
    from ..config.registry_file.memory import Memory

    return see(place.path, place.environ, Memory())


def _version_on_disk(place: Place) -> str | None:
    """Return the version of the files, as the gateway would name it; None if they cannot be read."""
    seen = _seen(place)
    return None if seen.unread or seen.wrong else seen.record().version


class _Reader:
    """Reads single figures. Those that the gateway does not have are None."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def one(self, name: str, **labels: str) -> int | None:
        values = [value for has, value in self._figures.get(name, []) if labels.items() <= has.items()]
        return int(sum(values)) if values else None

    def flag(self, name: str) -> bool | None:
        found = self.one(name)
        return None if found is None else bool(found)

    def label(self, name: str, label: str) -> str | None:
        return next((has.get(label) or None for has, _ in self._figures.get(name, [])), None)

    def codes(self) -> dict[str, int]:
        """Return how many requests ended with each code, the most frequent first."""
        found: dict[str, int] = {}
        for labels, value in self._figures.get("presign_requests_total", []):
            if value and (code := labels.get("code")):
                found[code] = found.get(code, 0) + int(value)
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def proxies(self) -> dict[str, str]:
        """Return the proxy for each scheme of an upstream."""
        found = self._figures.get("presign_upstream_proxy_info", [])
        return {has["scheme"]: has["proxy"] for has, _ in found if {"scheme", "proxy"} <= has.keys()}

    def versions(self) -> list[str]:
        return [has.get("version", "") for has, _ in self._figures.get("presign_config_version_info", [])]


def _state(figures: Figures, line: str) -> dict[str, Any]:
    read = _Reader(figures)
    return {
        "ready": line.startswith("ready"),
        "says": line,
        "version": read.label("presign_build_info", "version"),
        "mitmproxy": read.label("presign_build_info", "mitmproxy"),
        "since": read.one("process_start_time_seconds"),
        "workers": read.one("presign_workers"),
        "workers_wanted": read.one("presign_workers_wanted"),
        "memory_bytes": read.one("process_resident_memory_bytes"),
        "configuration": _configuration_of(read),
        "upstream_proxies": read.proxies(),
        "clients": read.one("presign_client_connections"),
        "max_clients": read.one("presign_client_connections_max"),
        "in_flight": read.one("presign_in_flight"),
        "requests": {
            "forwarded": read.one("presign_requests_total", decision="forward") or 0,
            "refused": read.one("presign_requests_total", decision="deny") or 0,
            "passed": read.one("presign_passed_total") or 0,
            "codes": read.codes(),
        },
        "limits": {
            "store": read.label("presign_store_up", "store"),
            "up": read.flag("presign_store_up"),
            "limited": read.one("presign_limits_total", outcome="limited"),
            "failures": read.one("presign_store_failures_total"),
        },
        "audit": {
            "up": read.flag("presign_audit_up"),
            "lines": read.one("presign_audit_lines_total"),
            "lost": read.one("presign_audit_dropped_total"),
            "waiting": read.one("presign_audit_queued"),
        },
    }


def _configuration_of(read: _Reader) -> dict[str, Any]:
    return {
        "versions": read.versions(),
        "loaded_at": read.one("presign_config_last_success_timestamp_seconds"),
        "stale": bool(read.one("presign_config_stale")),
        "failed_reloads": read.one("presign_config_reloads_total", result="failed"),
        "connections": read.one("presign_connections"),
        "missing_secrets": read.one("presign_connections_lacking_secrets"),
    }


def _lines(found: dict[str, Any]) -> Iterator[str]:
    said = str(found["says"]).partition(": ")
    yield f"{said[0].capitalize()}{said[1]}{said[2]}"
    yield ""
    for name, text in _rows(found):
        yield f"  {name.ljust(_WIDTH)}{text}"
    codes = [f"{code} {count}" for code, count in found["requests"]["codes"].items()]
    yield from noted("Refused or failed, since the start:", codes)


def _rows(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    configuration, requests = found["configuration"], found["requests"]
    yield "gateway", f"{found['version'] or 'unreleased'}, with mitmproxy {found['mitmproxy']}"
    if found["since"]:
        yield "since", f"{instant(found['since'])}, for {in_words(max(0, int(time.time()) - found['since']))}"
    if found["workers"] is not None:
        memory = f", {size_in_words(found['memory_bytes'])} of memory" if found["memory_bytes"] else ""
        wanted = found["workers_wanted"] or 0
        of = f" of {wanted}" if found["workers"] < wanted else ""
        yield "workers", f"{found['workers']}{of}{memory}"
    yield "configuration", _configuration(configuration)
    missing = configuration["missing_secrets"]
    lacking = f", {counted(missing, 'secret')} missing" if missing else ""
    yield "connections", f"{configuration['connections'] or 0}{lacking}"
    if found["upstream_proxies"]:
        ways = [f"{scheme} through {proxy}" for scheme, proxy in found["upstream_proxies"].items()]
        yield "way out", ", ".join(ways)
    yield (
        "under way",
        f"{counted(found['in_flight'] or 0, 'request')}, {found['clients']} of "
        + (f"{counted(found['max_clients'] or 0, 'client connection')}"),
    )
    yield "requests", f"{requests['forwarded']} forwarded, {requests['refused']} refused"
    limits, audit = found["limits"], found["audit"]
    works = "works" if limits["up"] else "IS DOWN"
    yield "limit store", f"{limits['store']} {works}; {limits['limited'] or 0} requests limited"
    if audit["up"] is not None:
        state = "is written" if audit["up"] else "CANNOT BE WRITTEN"
        yield "audit log", f"{state}; {audit['lines'] or 0} lines, {audit['lost'] or 0} lost"


def _configuration(found: dict[str, Any]) -> str:
    if not found["versions"]:
        return "none in force"
    text = f"version {' and '.join(found['versions'])}, since {instant(found['loaded_at'] or 0)}"
    on_disk = found["version_on_disk"]
    if on_disk is not None:
        same = found["versions"] == [on_disk]
        text += "; the files are the same" if same else f"; the files are version {on_disk}, not in force"
    return text + (f"; {found['failed_reloads']} reloads failed" if found["failed_reloads"] else "")
