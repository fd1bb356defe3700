"""The page for the worst day: each of its commands is run, against a gateway with a stream under way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from presign_proxy.signing.keys import signature_id
from support.asking import ask, wire
from support.byhand import Wire
from support.documents import DOCS
from support.flowing import Flowing
from support.puppet import eventually
from support.raw import connect
from support.serving import Serve
from support.shell import Done, Shell

pytestmark = [pytest.mark.slow, pytest.mark.needs("bash")]

SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", DOCS["incident.md"], re.MULTILINE))
BASE = "http://presign.local"
NEW_KEY = "sk-A-NEW-API-KEY-0123456789"


def blocks(section: str) -> list[str]:
    """The commands of a section, one text for each block."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```", SECTIONS[section], re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


@dataclass
class Day:
    """What an operator has on that day: a shell beside a gateway, and clients at its streams."""

    shell: Shell
    gateway: Serve
    variables: dict[str, str] = field(default_factory=dict)

    def presign(self, *arguments: str, stdin: str = "") -> str:
        done = self.shell.presign(*arguments, stdin=stdin)
        assert done.code == 0, done.all
        return done.out

    def signed(self, path: str = "events", *more: str) -> str:
        return self.presign("sign", "conn_openai", path, "--base", BASE, "--paths", "*", *more).strip()

    def stream(self, url: str) -> Wire:
        """A client of an event stream that has begun."""
        client = Wire(connect(self.gateway.port))
        client.send(wire(url.removeprefix(BASE)))
        client.read_until(b"data: x\n\n", 10)
        return client

    def runs(self, block: str) -> list[Done]:
        """Run a block, line by line, as somebody does who looks at each result."""
        done = []
        for line in block.splitlines():
            stdin = f"{NEW_KEY}\n" if "--credential" in line else ""
            done.append(self.shell.bash(line, stdin, **self.variables))
            refused = "exit code 1" in line
            assert done[-1].code == int(refused), f"{line}\n{done[-1].out}"
            if refused:
                assert done[-1].out.startswith("Refused: 403 revoked")
        return done

    def recorded(self, *codes: str) -> bool:
        """Wait for the audit log, which is written several times a second."""
        log = self.shell.directory / "audit.jsonl"
        return eventually(lambda: all(f'"code":"{code}"' in log.read_text("utf-8") for code in codes), 10)

    def status(self, url: str) -> tuple[int, str | None]:
        found = ask(self.gateway.port, url.removeprefix(BASE).replace("/events?", "/answer?"))
        return found.status, found.header("x-presign-error")

    def becomes(self, url: str, status: int, code: str | None = None) -> bool:
        return eventually(lambda: self.status(url) == (status, code), 10)


@pytest.fixture(scope="module")
def flowing() -> Iterator[Flowing]:
    with Flowing() as upstream:
        yield upstream


@pytest.fixture
def day(tmp_path: Path, flowing: Flowing) -> Iterator[Day]:
    shell = Shell(tmp_path)
    assert shell.presign("init").code == 0
    added = shell.presign(
        *("connections", "add", "conn_openai", "--upstream", flowing.url, "--auth", "bearer"),
        stdin="sk-THE-API-KEY-0123456789\n",
    )
    assert added.code == 0, added.all
    text = (shell.directory / "config.yaml").read_text("utf-8")
    assert yaml.safe_load(text)["audit"] == {"file": "audit.jsonl"}
    with Serve(shell.directory, {}, start_from=text) as served:
        found = Day(shell, served)
        before = found.signed()
        signature = signature_id(before.rpartition("=")[2])
        found.variables = {"LEAKED_URL": before, "SIGNED_BEFORE": before, "SIGNATURE_ID": signature}
        yield found


def is_cut(client: Wire) -> bool:
    """Whether a stream ends within two seconds, and not as a whole answer does."""
    return not client.read_to_end(2.0).endswith(b"\r\n0\r\n\r\n")


def test_the_page_has_a_section_for_each_thing_that_can_leak() -> None:
    assert list(SECTIONS) == [
        "A URL",
        "A signing secret",
        "An API key",
        "The registry key",
        "A gateway machine",
    ]
    for name, text in SECTIONS.items():
        assert blocks(name), name
        for part in ("What stops working", "See that it worked", "What cannot be undone"):
            assert f"**{part}**" in text, (name, part)


def test_a_url(day: Day) -> None:
    leaked, named = day.variables["LEAKED_URL"], day.signed("events", "--id", "nightly")
    # Signed alike within the same second, it would be the leaked one.
    good = day.signed("events", "--expires", "2h")
    clients = [day.stream(url) for url in (leaked, named, good)]
    stop, stop_named, see = blocks("A URL")
    day.runs(stop)
    assert is_cut(clients[0])
    clients[1].read_until(b"data: x\n\n")
    day.runs(stop_named)
    assert is_cut(clients[1])
    assert day.becomes(leaked, 403, "revoked")
    assert day.recorded("ended", "revoked")
    _, listed, audited, of_url = day.runs(see)
    assert f"--undo {day.variables['SIGNATURE_ID']}" in listed.out
    assert "ended" in audited.out
    assert "revoked" in audited.out
    assert "ended" in of_url.out
    clients[2].read_until(b"data: x\n\n")
    assert day.status(good) == (200, None)
    for client in clients:
        client.close()


def test_a_signing_secret(day: Day) -> None:
    before = day.variables["SIGNED_BEFORE"]
    client = day.stream(before)
    rotate, revoke, see, drop = blocks("A signing secret")
    (said,) = day.runs(rotate)
    assert "k1 is revoked" in said.out
    assert re.search(r"^  sk_[A-Za-z0-9_-]{43}$", said.out, re.MULTILINE)
    assert is_cut(client)
    assert day.becomes(before, 403, "revoked")
    assert day.becomes(day.signed(), 200)
    day.runs(revoke)
    assert day.recorded("ended", "revoked")
    _, audited, as_json = day.runs(see)
    assert "ended" in audited.out
    lines = [json.loads(line) for line in as_json.out.splitlines()]
    assert {line["key"] for line in lines} == {"k1"}
    assert {line["code"] for line in lines} >= {"ended", "revoked"}
    day.runs(drop)
    assert day.becomes(before, 403, "invalid")
    assert day.becomes(day.signed(), 200)
    client.close()


def test_an_api_key(day: Day, flowing: Flowing) -> None:
    url = day.variables["SIGNED_BEFORE"]
    replace, pause, see = blocks("An API key")
    day.runs(replace)
    del flowing.heads[:]
    assert eventually(lambda: day.status(url) == (200, None) and _sent(flowing), 10)
    client = day.stream(url)
    disable, enable = pause.splitlines()
    day.runs(disable)
    assert is_cut(client)
    assert day.becomes(url, 403, "revoked")
    day.runs(enable)
    assert day.becomes(url, 200)
    granted, refused = day.runs(see)
    assert "200" in granted.out
    assert "No line of the audit log" in refused.out
    client.close()


def _sent(flowing: Flowing) -> bool:
    """Whether the last request had the new key."""
    return NEW_KEY.encode() in flowing.heads[-1]


def test_the_registrys_key(day: Day) -> None:
    before, key = day.variables["SIGNED_BEFORE"], day.shell.directory / "presign.key"
    old, client = key.read_text("utf-8"), day.stream(before)
    rekey, stop, see = blocks("The registry key")
    day.runs(rekey)
    assert key.read_text("utf-8") != old
    assert len(key.read_text("utf-8").split()) == 1
    assert day.becomes(before, 200)
    day.runs(stop)
    assert is_cut(client)
    assert day.becomes(before, 403, "revoked")
    assert day.becomes(day.signed(), 200)
    day.runs(see)
    fresh = key.read_text("utf-8")
    key.write_text(old, "utf-8")
    assert day.shell.presign("connections", "list").code == 1
    key.write_text(fresh, "utf-8")
    client.close()


def test_a_gateway_machine(day: Day) -> None:
    look, see = blocks("A gateway machine")
    listed, revoked, _ = day.runs(look)
    assert "conn_openai" in listed.out
    assert revoked.out == "Nothing is revoked.\n"
    client = day.stream(day.variables["SIGNED_BEFORE"])
    for block in blocks("The registry key")[:2]:
        day.runs(block)
    assert is_cut(client)
    assert day.becomes(day.variables["SIGNED_BEFORE"], 403, "revoked")
    assert day.recorded("ended", "revoked")
    _, audited, _ = day.runs(see)
    assert "ended" in audited.out
    client.close()
