"""What the gateway leans on inside mitmproxy, changed one by one: it refuses to start and says why."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.mitm import self_test
from support.asking import Grant, ask
from support.lab import LAB_SECRET, lab_config
from support.mitmweb import MitmWeb
from support.proxy import SCRIPT, Mitm
from support.puppet import SCRIPTS, Puppeteer, eventually
from support.recorder import Recorder

LEANED_ON = sorted({(owner.__name__, owner, name) for owner, name, _ in self_test._METHODS}, key=str)
READ = sorted({(owner.__name__, owner, name) for owner, name, _ in self_test._SOURCES}, key=str)


def named(rows: list[tuple[str, Any, str]]) -> Any:
    return pytest.mark.parametrize(
        ("owner", "name"), [row[1:] for row in rows], ids=[f"{row[0]}.{row[2]}" for row in rows]
    )


def changed(told: list[str], owner: Any, name: str) -> list[str]:
    """The sentences about one row."""
    return [sentence for sentence in told if f"has changed {owner.__name__}.{name}, which" in sentence]


@named(LEANED_ON)
def test_a_method_that_is_gone_is_named(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in owner.__mro__[:-1]:
        if name in vars(one):
            monkeypatch.delattr(one, name)
    assert changed(list(self_test.unknown()), owner, name)


@named(
    [row for row in LEANED_ON if any(row[1:] == (o, n) and p is not None for o, n, p in self_test._METHODS)]
)
def test_a_method_that_takes_other_arguments_is_named(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, lambda self, something, new: None)
    assert changed(list(self_test.unknown()), owner, name)


@named(READ)
def test_code_that_does_something_else_is_named(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, lambda self, *args, **more: None)
    assert changed(list(self_test.unknown()), owner, name)


@named(READ)
def test_code_that_is_gone_is_named(owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for one in owner.__mro__[:-1]:
        if name in vars(one):
            monkeypatch.delattr(one, name)
    told = list(self_test.unknown())
    # Every class has an `__init__`; then it is the one of `object`, which cannot be read.
    assert changed(told, owner, name)


def test_code_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """mitmproxy without its sources, as in a frozen program."""

    def unreadable(_: object) -> str:
        raise OSError("could not get source code")

    monkeypatch.setattr(inspect, "getsource", unreadable)
    told = list(self_test.unknown())
    assert all(changed(told, owner, name) for _, owner, name in READ)


# -- in a real process -------------------------------------------------------------------------------

BREAKERS = {
    "a method is gone": ("del http.HttpLayer.make_stream", "HttpLayer.make_stream"),
    "a method takes more": (
        "http.HttpLayer.register_connection = lambda self, command, more: None",
        "HttpLayer.register_connection",
    ),
    "code does something else": (
        "http.HttpLayer.get_connection = lambda self, event: iter(())",
        "HttpLayer.get_connection",
    ),
    "code that is read is gone": (
        "del http.HttpStream.start_request_stream",
        "HttpStream.start_request_stream",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BREAKERS)
def test_a_mitmproxy_that_has_changed_does_not_start(how: str, make_gateway: Any, tmp_path: Path) -> None:
    """A script before ours plays the new release."""
    line, what = BREAKERS[how]
    breaker = tmp_path / "newer.py"
    breaker.write_text(f"from mitmproxy.proxy.layers import http\n{line}\n", "utf-8")
    config = make_gateway(lab_config(1), start=False).config
    gateway = make_gateway(None, "-s", str(breaker), "-s", str(SCRIPT), start=False)
    gateway.argv += ["--set", f"presign_config={config}"]
    returncode, log = gateway.run()
    assert returncode == 1, log
    assert f"has changed {what}, which the gateway leans on: use a version that" in log
    assert "Traceback" not in log


# -- options that would undo what is promised ----------------------------------------------------------

UNSAFE = {
    "ssl_insecure": True,
    "proxy_debug": True,
    "validate_inbound_headers": False,
    "connection_strategy": "eager",
}


@pytest.fixture(scope="module")
def web(module_gateway: Any, upstream: Recorder) -> Iterator[tuple[Mitm, MitmWeb]]:
    gateway = module_gateway(lab_config(upstream.port), binary="mitmweb")
    page = MitmWeb(gateway.web_port)
    assert eventually(page.answers)
    yield gateway, page


@pytest.mark.parametrize("name", UNSAFE)
def test_mitmwebs_options_page_cannot_set_an_unsafe_option(name: str, web: tuple[Mitm, MitmWeb]) -> None:
    gateway, page = web
    before = page.options()[name]["value"]
    status, text = page.send("PUT", "/options", {name: UNSAFE[name]})
    assert (status, f"option {name} must be" in text) == (400, True)
    assert page.options()[name]["value"] == before != UNSAFE[name]
    grant = Grant("conn_lab", secret=LAB_SECRET)
    assert ask(gateway.port, grant.target("v1/x")).status == 200


@pytest.mark.parametrize("name", UNSAFE)
def test_mitmwebs_commands_cannot_set_an_unsafe_option(name: str, web: tuple[Mitm, MitmWeb]) -> None:
    _, page = web
    _, text = page.send("POST", "/commands/set", {"arguments": [name, str(UNSAFE[name]).lower()]})
    assert f"option {name} must be" in text
    assert page.options()[name]["value"] != UNSAFE[name]


@pytest.fixture(scope="module")
def console(module_gateway: Any, upstream: Recorder) -> Puppeteer:
    gateway = module_gateway(lab_config(upstream.port), "-s", str(SCRIPTS / "puppet.py"))
    return Puppeteer(gateway.port)


@pytest.mark.parametrize("name", UNSAFE)
def test_set_at_the_prompt_cannot_set_an_unsafe_option(name: str, console: Puppeteer) -> None:
    """`:set ssl_insecure=true`; a boolean without a value is true, or is toggled."""
    value = str(UNSAFE[name]).lower()
    for line in (f"set {name} {value}", f"options.load /dev/null; set {name} {value}"):
        console.tell("execute", line=line)
        assert console.tell("option", name=name)["value"] != UNSAFE[name]
    assert f"option {name} must be" in console.tell("execute", line=f"set {name} {value}").get("error", "")


@pytest.mark.slow
def test_an_option_that_was_saved_unsafe_refuses_the_start(make_gateway: Any) -> None:
    """`config.yaml` of mitmproxy itself, in its confdir."""
    for name, value in UNSAFE.items():
        if name == "connection_strategy":
            continue  # set by the addon whatever was saved
        gateway = make_gateway(lab_config(1), start=False)
        gateway.confdir.mkdir(mode=0o700)
        (gateway.confdir / "config.yaml").write_text(f"{name}: {str(value).lower()}\n", "utf-8")
        returncode, log = gateway.run()
        assert (returncode, f"option {name} must be" in log) == (1, True), log
