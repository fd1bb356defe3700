"""Every hint that the command prints is a command line that works, where and as it was printed."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from presign_proxy.config.registry_file.encryption import parse_key
from presign_proxy.signing.secret import Secret
from support.asking import ask, code
from support.installed import install
from support.places import ROOT
from support.process import Process, free_port
from support.shell import Done

# Each begins with a directory that has nothing, and ends with a gateway.
pytestmark = pytest.mark.slow

KEY = "sk-KEY-0123456789"
CHECKOUT = Path(sys.executable).parent
"""Of an editable installation."""


class Place:
    """A directory with a blank in its name, and an installation whose commands are called in one way."""

    def __init__(self, directory: Path, called: str, path: str = "/usr/bin:/bin", **env: str) -> None:
        self.directory = directory / "my gateway"
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.called = called
        self.env = {"PATH": path, "HOME": str(directory), "LANG": "C.UTF-8", **env}

    def presign(self, arguments: str, stdin: str = "") -> Done:
        return self.run(f"{self.called} {arguments}", stdin)

    def run(self, line: str, stdin: str = "") -> Done:
        """Paste a line into a shell."""
        done = subprocess.run(
            ["sh", "-c", line],
            input=stdin,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self.env,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def works(self, line: str, stdin: str = "") -> str:
        """Paste a line that has to do what it says; returns what it prints."""
        done = self.run(line, stdin)
        assert done.code == 0, f"{line}\n{done.all}"
        return done.out

    def hinted(self, arguments: str, expected: str, stdin: str = "") -> str:
        """Run what fails; returns the command line that its one sentence names."""
        done = self.presign(arguments, stdin)
        assert done.code in (1, 2), done.all
        assert "Traceback" not in done.all
        found = [line for line in re.findall(r"`([^`]+)`", done.all) if expected in line]
        assert found, done.all
        return found[-1]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an installation by pip, under a path with a blank."""
    return install(tmp_path_factory.mktemp("pip") / "with blank")


@pytest.fixture(scope="module")
def places(scripts: Path) -> dict[str, Callable[[Path], Place]]:
    module = shlex.join([sys.executable, "-m", "presign_proxy"])
    return {
        "pip": lambda directory: Place(directory, shlex.quote(str(scripts / "presign"))),
        "pip, on the PATH": lambda directory: Place(directory, "presign", f"{scripts}:/usr/bin:/bin"),
        "checkout": lambda directory: Place(directory, shlex.quote(str(CHECKOUT / "presign"))),
        "module": lambda directory: Place(directory, module, PYTHONPATH=str(ROOT / "addon")),
    }


@pytest.mark.parametrize("how", ["pip", "pip, on the PATH", "checkout", "module"])
def test_what_init_says_comes_next_can_be_pasted(
    how: str, places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places[how](tmp_path)
    shown = place.presign("init")
    assert shown.code == 0, shown.all
    add, start, sign = (line.strip() for line in shown.err.split("Next:\n")[1].splitlines())
    if how == "pip, on the PATH":
        assert add.startswith("presign connections add --preset openai  #")
        assert start.split("  ")[0] == "presign serve"
    (listing,) = re.findall(r"`([^`]+)`", add)
    assert "OpenAI" in place.run(listing).out
    added = place.run(add, KEY + "\n")
    assert added.code == 0, added.all
    (following,) = re.findall(r"^Next: (.*)$", added.err, re.MULTILINE)
    for line in (following, sign):
        assert place.run(line).out.startswith("http://127.0.0.1:8080/api/proxy/conn_openai/")
    port = free_port()
    more = f"--listen 127.0.0.1:{port} --confdir {shlex.quote(str(tmp_path / 'confdir'))}"
    argv = ["sh", "-c", f"exec {start.partition('  #')[0]} {more}"]
    with Process(argv, port, tmp_path / "output.log", place.env, cwd=place.directory) as gateway:
        assert code(ask(port, "/api/proxy/conn_openai/v1/models", host=f"127.0.0.1:{port}")) == (
            400,
            "malformed",
        ), gateway.log()


def test_hints_name_the_configuration_that_the_command_was_given(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places["pip"](tmp_path)
    (place.directory / "an other").mkdir(mode=0o700)
    config = "--config 'an other/gateway.yaml'"
    shown = place.presign(f"init {config}")
    add, start, sign = (line.strip() for line in shown.err.split("Next:\n")[1].splitlines())
    assert place.run(add, KEY).code == 0
    assert place.run(sign).code == 0
    assert shlex.split(start.partition("  ")[0])[-2:] == ["--config", "an other/gateway.yaml"]
    assert place.run(place.hinted(f"connections show nothing {config}", "list")).out.startswith("ID ")


@pytest.mark.parametrize("uv", ["UV", "UV_RUN_RECURSION_DEPTH"])
def test_what_uvx_started_names_itself_as_the_shell_finds_it(uv: str, scripts: Path, tmp_path: Path) -> None:
    """Its own PATH begins with an environment of which the shell knows nothing."""
    place = Place(tmp_path, "presign-proxy")
    started = f"{uv}=1 PATH={shlex.quote(str(scripts))}:$PATH presign-proxy"
    shown = place.run(f"{started} init")
    assert shown.code == 0, shown.all
    add, start, sign = (line.strip() for line in shown.err.split("Next:\n")[1].splitlines())
    assert place.run(add, KEY + "\n").code == 0
    assert place.works(sign).startswith("http://127.0.0.1:8080/api/proxy/conn_openai/")
    assert shlex.split(start)[:2] == [*shlex.split(sign)[:1], "serve"]


def test_a_configuration_says_how_it_is_checked_by_its_own_name(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places["pip, on the PATH"](tmp_path)
    for name in ("config.yaml", "my gateway.yaml", "two\nlines.yaml"):
        directory = place.directory / name.replace("\n", "")
        directory.mkdir(mode=0o700)
        assert place.presign(f"init --config {shlex.quote(str(directory / name))}").code == 0
        head = (directory / name).read_text("utf-8").partition("\ngateway:")[0]
        assert all(line.startswith("#") for line in head.splitlines() if line), head
        if "\n" in name:
            continue
        (line,) = [one for one in re.findall(r"`([^`]+)`", head) if "check" in one]
        (directory / name).write_text("nonsense: 1\n", "utf-8")
        assert name in place.run(f"cd {shlex.quote(str(directory))} && {line}").out


def test_the_command_in_each_refusal_does_what_the_refusal_promises(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places["pip"](tmp_path)

    works = place.works
    works(place.hinted("check", "init"))
    works(place.hinted("connections show zzz", "list"))
    add = works(f"{place.called} connections list").strip().removeprefix("No connections yet: ")
    works(add, KEY)
    works(place.hinted("connections add conn_openai --preset openai", "rotate"))
    assert "openai" in works(place.hinted("connections add --preset nowhere", "presets", KEY))
    assert "conn_openai" in works(place.hinted("revoke --key nonsense", "list"))
    works(
        f"{place.called} revoke --connection conn_openai; {place.called} connections remove conn_openai --yes"
    )
    works(place.hinted("connections add --preset openai", "--undo", KEY))
    works(add, KEY)
    pair = "connections add conn_pair --upstream https://a.test --auth header --name X-A --name X-B"
    works(f"{place.called} {pair}", f"{KEY}\n{KEY}\n")
    several = place.presign("connections rotate conn_pair --credential", KEY)
    for line in re.findall(r"`([^`]+)`", several.err):
        works(line)
    assert "conn_pair" in works(f"{place.called} connections list")


def test_the_command_in_a_refusal_to_sign_makes_it_sign(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places["pip"](tmp_path)
    works = place.works
    works(f"{place.called} init")
    works(f"{place.called} connections add --preset openai", KEY)
    works(f"{place.called} decrypt --out old.json")
    registry = json.loads((place.directory / "old.json").read_text("utf-8"))
    registry["connections"]["conn_openai"]["signing_keys"][0]["not_after"] = "2020-01-01T00:00:00Z"
    (place.directory / "old.json").write_text(json.dumps(registry), "utf-8")
    works(f"{place.called} encrypt --replace old.json")
    works(place.hinted("sign conn_openai v1/models", "rotate"))
    works(f"{place.called} sign conn_openai v1/models")
    (place.directory / "presign.key").write_text("A" * 43, "utf-8")
    key = works(f"PATH={shlex.quote(str(CHECKOUT))}:$PATH; {place.hinted('connections list', 'python3')}")
    assert parse_key(Secret(key.strip()))


def test_a_registry_that_is_not_encrypted_is_encrypted_by_the_command_that_rekey_names(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places["pip"](tmp_path)
    assert place.presign("init").code == 0
    config = place.directory / "config.yaml"
    encrypted = config.read_text("utf-8")
    assert place.presign("decrypt --out plain.json").code == 0
    config.write_text("registry: {file: plain.json}\n", "utf-8")
    line = place.hinted("rekey", "encrypt")
    config.write_text(encrypted, "utf-8")
    assert place.run(line).code == 0


def test_a_taken_port_of_the_demo_is_told_with_a_command_that_finds_another(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places["pip"](tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = place.hinted(f"demo --port {taken.getsockname()[1]}", "demo")
    done = place.run(f"{line} --once")
    assert done.code == 0, done.all


def test_a_mistake_in_the_usage_names_the_command_as_it_was_called(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places["pip"](tmp_path)
    done = place.presign("sign --nonsense")
    (line,) = re.findall(r"^Help: (.*)$", done.err, re.MULTILINE)
    assert "Usage: " in place.run(line).out


def test_the_script_lies_where_nothing_shadows_the_standard_library(
    places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    script = Path(places["pip"](tmp_path).presign("script-path").out.strip())
    assert script.is_file()
    assert [path.name for path in script.parent.iterdir() if path.suffix] == ["presign_addon.py"]


@pytest.mark.parametrize("how", ["pip", "checkout"])
def test_the_example_is_printed_where_there_is_no_checkout(
    how: str, places: dict[str, Callable[[Path], Place]], tmp_path: Path
) -> None:
    place = places[how](tmp_path)
    assert place.presign("example").out == (ROOT / "config.example.yaml").read_text("utf-8")
    assert place.run(f"{place.called} example > config.yaml; chmod 600 config.yaml").code == 0
    assert place.presign("check").code == 0
