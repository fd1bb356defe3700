"""What goes wrong around the command is one clear sentence, or silence; never a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from presign_proxy.cli.main import main
from presign_proxy.prerequisites import MITMPROXY, OLDEST
from support.places import ROOT
from support.process import free_port
from support.shell import MODULE, Done, Shell, Terminal

# Each starts Python, most of them in an environment of its own.
pytestmark = pytest.mark.slow

KEY = "sk-KEY-0123456789"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def one_sentence(done: Done, *texts: str, code: int = 1) -> None:
    assert done.code == code, done.all
    lines = [line for line in done.all.splitlines() if line]
    assert len(lines) == 1, done.all
    for text in texts:
        assert text in lines[0], lines[0]


# -- the wrong directory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["audit", "serve", "status", "usage"])
def test_who_has_a_gateway_elsewhere_is_told_how_to_name_it(verb: str, shell: Shell) -> None:
    one_sentence(
        shell.presign(verb), "config.yaml: no such file", "init` makes one", "--config", "PRESIGN_CONFIG"
    )


# -- characters -------------------------------------------------------------------------------------------

ENCODINGS = {
    "latin-1": {"PYTHONIOENCODING": "latin-1", "LANG": ""},
    "ascii": {"PYTHONIOENCODING": "ascii", "LANG": ""},
    "C": {"LC_ALL": "C", "LANG": ""},
    "C without coercion": {"LC_ALL": "C", "LANG": "", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}


def verbs(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        yield (*before, name)
        if isinstance(found, click.Group):
            yield from verbs(found, *before, name)


# One process for all lines: each is a command.
_EACH_LINE = """
import sys
from presign_proxy.cli.main import main
for line in sys.stdin.read().splitlines():
    try:
        main(line.split())
    except SystemExit as end:
        assert end.code == 0, line
"""


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_help_of_every_verb_is_shown_whatever_the_encoding(shell: Shell, encoding: str) -> None:
    lines = [" ".join([*verb, "--help"]) for verb in verbs(main)]
    assert len(lines) > 20
    done = subprocess.run(
        [sys.executable, "-c", _EACH_LINE],
        input="\n".join(lines).encode(),
        capture_output=True,
        env=shell.env | ENCODINGS[encoding],
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert done.stdout.count(b"Usage: ") == len(lines)


# Without coercion, Python itself reads arguments as ASCII.
@pytest.mark.parametrize("encoding", ["latin-1", "C"])
def test_texts_that_the_terminal_has_no_characters_for_are_no_traceback(shell: Shell, encoding: str) -> None:
    def raw(*arguments: str, stdin: str = "") -> tuple[int, bytes, bytes]:
        child = shell.start(*arguments, **ENCODINGS[encoding])
        out, err = child.communicate(stdin.encode(), 60)
        assert b"Traceback" not in out + err, (arguments, out + err)
        assert b"codec" not in out + err, (arguments, out + err)
        return child.returncode, out, err

    assert raw("init", "--json")[0] == 0
    code, out, _ = raw("connections", "add", "conn_a", "--upstream", "http://127.0.0.1:9", "--auth", "bearer",
                       "--paths", "v1/über*", "--json", stdin=KEY)  # fmt: skip
    assert code == 0
    assert json.loads(out)["id"] == "conn_a"
    code, out, _ = raw("connections", "show", "conn_a", "--json")
    assert json.loads(out)["entry"]["allow"]["paths"] == ["v1/über*"]
    assert raw("connections", "show", "conn_a")[0] == 0
    code, out, _ = raw("sign", "conn_a", "v1/über/日本", "--json")
    assert code == 0
    assert json.loads(out)["paths"] == ["v1/über/日本"]
    url = json.loads(out)["url"]
    assert raw("explain", url)[0] == 0
    assert json.loads(raw("explain", url, "--json")[1])["verdict"]
    for arguments in (
        ("connections", "show", "コネクション"),
        ("connections", "add", "é", "--upstream", "http://127.0.0.1:9", "--auth", "bearer"),
        ("sign", "conn_a", "v1/☃", "--key", "☃"),
        ("revoke", "☃"),
        ("explain", "☃"),
        ("check", "--config", "日本/config.yaml"),
        ("presets", "☃"),
        ("☃",),
        ("sign", "--☃"),
        ("serve", "--listen", "☃"),
    ):
        code, out, err = raw(*arguments, stdin=KEY)
        assert code in (1, 2), arguments
        assert out + err, arguments
    code, out, _ = raw("check", "--config", "日本/config.yaml", "--json")
    assert "日本/config.yaml" in json.loads(out)["error"]


# -- standard streams -------------------------------------------------------------------------------------

CLOSED = ["presign presets >&-", "presign presets <&-", "presign --help >&-", "presign presets <&- >&- 2>&-"]


@pytest.mark.parametrize("line", CLOSED)
def test_closed_streams_are_no_traceback(shell: Shell, line: str) -> None:
    done = shell.bash(f"{line}; echo $?")
    assert done.out.splitlines()[-1] == "0", done.out
    assert "Traceback" not in done.out


def test_a_secret_is_not_asked_for_where_there_is_no_input(shell: Shell) -> None:
    assert shell.presign("init").code == 0
    done = shell.bash("presign connections add --preset openai <&-")
    one_sentence(done, "API key of conn_openai", "nothing on standard input")


def test_a_gateway_that_was_started_without_streams_prints_on_no_socket(shell: Shell) -> None:
    """The first socket would get the number of standard output."""
    assert shell.presign("init").code == 0
    port = free_port()
    script = (
        f"presign serve --listen 127.0.0.1:{port} --confdir conf <&- >&- 2>&- & pid=$!\n"
        f"for i in $(seq 300); do (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; sleep 0.1; done\n"
        "readlink /proc/$pid/fd/0 /proc/$pid/fd/1 /proc/$pid/fd/2; kill $pid; wait $pid"
    )
    done = shell.bash(script)
    assert (done.code, done.out.split()) == (0, ["/dev/null"] * 3)


@pytest.mark.parametrize("line", ["presign presets | head -0", "presign sign --help | head -0"])
def test_a_reader_that_has_enough_is_no_error(shell: Shell, line: str) -> None:
    assert shell.bash(line).out == ""


@pytest.mark.parametrize(
    "line", ["presign --help", "presign schema", "presign sign --help", "presign presets"]
)
def test_a_full_disk_is_one_sentence_for_every_kind_of_output(shell: Shell, line: str) -> None:
    one_sentence(shell.bash(f"{line} > /dev/full"), "presign: no space left on device")


def test_ctrl_c_at_a_question_is_one_word(shell: Shell) -> None:
    assert shell.presign("init").code == 0
    with Terminal([*MODULE, "connections", "add", "--preset", "openai"], shell.directory, shell.env) as asked:
        asked.wait_for_question()
        asked.interrupt()
        assert asked.wait() == 1
        assert asked.screen.splitlines()[-1] == "Aborted!"
        assert "Traceback" not in asked.screen


# -- what is missing --------------------------------------------------------------------------------------


def python_before(version: tuple[int, int]) -> str | None:
    """An older Python on this machine."""
    root = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    for path in ("/usr/bin/python3", *map(str, sorted(Path(root).glob("versions/3.*/bin/python3"))[::-1])):
        if Path(path).exists():
            asked = [path, "-c", f"import sys; sys.exit(not (3, 6) <= sys.version_info < {version})"]
            if subprocess.run(asked, check=False).returncode == 0:
                return path
    return None


def test_an_older_python_is_told_which_one_it_takes(shell: Shell) -> None:
    older = python_before(OLDEST)
    if older is None:
        pytest.skip("no older Python here")
    one_sentence(
        shell.bash(f"{older} -B -m presign_proxy init"), "presign: ", "needs Python 3.12 or later", older
    )
    imported = shell.bash(f"{older} -B -c 'import presign_proxy'").out
    assert imported.splitlines()[-1].startswith("ImportError: presign-proxy needs Python 3.12 or later")


@pytest.mark.parametrize(("package", "verb"), [("click", "init"), ("yaml", "check"), ("mitmproxy", "serve")])
def test_a_package_that_is_not_installed_is_named(shell: Shell, package: str, verb: str) -> None:
    finder = "import sys\n" + _REFUSE.format(names=(package,))
    (shell.home / "sitecustomize.py").write_text(finder, "utf-8")
    path = os.pathsep.join([str(shell.home), shell.env["PYTHONPATH"]])
    done = shell.bash(f"touch config.yaml; chmod 600 config.yaml; PYTHONPATH={path} presign {verb}; exit $?")
    module = shell.bash(f"PYTHONPATH={path} {sys.executable} -m presign_proxy {verb}")
    if package != "click":  # whose absence only `python -m` can tell of
        assert f"has no package {package}: install presign-proxy" in done.out
    assert f"has no package {package}: install presign-proxy" in module.out, module.out
    assert "Traceback" not in module.out


_REFUSE = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""


def test_a_mitmproxy_of_another_version_is_told_which_one_it_takes(shell: Shell) -> None:
    assert shell.presign("init").code == 0
    (shell.home / "sitecustomize.py").write_text(
        "import importlib.metadata as metadata\nversion = metadata.version\n"
        "metadata.version = lambda name: '13.0.0' if name == 'mitmproxy' else version(name)\n"
        "import mitmproxy.version\nmitmproxy.version.VERSION = '13.0.0'\n",
        "utf-8",
    )
    path = os.pathsep.join([str(shell.home), shell.env["PYTHONPATH"]])
    wanted = "mitmproxy 13.0.0 is not supported: pip install 'mitmproxy>=12.2.3,<13'"
    one_sentence(shell.presign("serve", PYTHONPATH=path), wanted)
    one_sentence(shell.presign("demo", PYTHONPATH=path), wanted)
    mitmdump = Path(sys.executable).parent / "mitmdump"
    options = f"--listen-port {free_port()} --set confdir=conf"
    started = shell.bash(f'{mitmdump} {options} -s "$(presign script-path)"', PYTHONPATH=path)
    assert (started.code, started.out.count(wanted)) == (1, 1), started.out
    assert "Traceback" not in started.out


def test_the_versions_that_are_told_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == f">={'.'.join(map(str, OLDEST))}"
    oldest, end = (".".join(map(str, numbers)) for numbers in MITMPROXY)
    assert f"mitmproxy>={oldest},<{end}" in project["dependencies"]


def test_a_home_that_cannot_be_written_is_told_with_the_option_that_helps(shell: Shell) -> None:
    assert shell.presign("init").code == 0
    listen = ("--listen", f"127.0.0.1:{free_port()}")
    one_sentence(shell.presign("serve", *listen, HOME="/proc/none"), "/proc/none", "--confdir DIR")
    done = shell.presign("demo", "--once", "--port", "0", HOME="/proc/none")
    assert done.code == 0, done.all


def test_mitmdump_in_a_home_that_cannot_be_written_says_what_to_add(shell: Shell) -> None:
    """mitmproxy itself has nothing but a traceback for it."""
    assert shell.presign("init").code == 0
    mitmdump = Path(sys.executable).parent / "mitmdump"
    line = f'{mitmdump} --listen-host 127.0.0.1 --listen-port {free_port()} -s "$(presign script-path)"'
    home = shell.directory / "no directory"  # what root may not write into either
    home.touch()
    started = shell.bash(line, HOME=str(home))
    assert started.code == 1
    told = f"presign: {home}: not a directory; name another directory with --set confdir=DIR"
    assert started.out.count(told) == 1, started.out


_ONLY_POSIX = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty")
# What others do on Windows cannot be simulated: they are imported before.
_WINDOWS = f"""
import sys
import asyncio, click.shell_completion, click.termui, cryptography.hazmat.primitives.ciphers
import importlib.metadata, json, pydantic.main, shutil, subprocess, tempfile, tornado.ioloop, yaml
shutil.which = lambda *_: None
for name in {_ONLY_POSIX}: sys.modules.pop(name, None)
{_REFUSE.format(names=_ONLY_POSIX)}
sys.platform, sys.argv = "win32", ["presign"]
from presign_proxy.cli.main import main
"""


def test_windows_gets_a_sentence_and_no_failing_import(shell: Shell) -> None:
    """Simulated: what only Linux and macOS have cannot be imported, and the platform says win32."""

    def on_windows(*arguments: str, then: str = "main(sys.stdin.read().splitlines())") -> Done:
        done = subprocess.run(
            [sys.executable, "-c", _WINDOWS + then],
            input="\n".join(arguments),
            capture_output=True,
            text=True,
            cwd=shell.directory,
            env=shell.env,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    helped = on_windows(*(" ".join([*verb, "--help"]) for verb in verbs(main)), then=_EACH_LINE)
    assert helped.code == 0, helped.all
    assert helped.out.count("Usage: ") > 20
    one_sentence(on_windows("demo"), "on Windows, run it in WSL")
    one_sentence(on_windows("init"), "on Windows, use WSL")
    (shell.directory / "config.yaml").write_text("{}", "utf-8")
    one_sentence(on_windows("serve"), "on Windows, run it in WSL")
    (shell.directory / "secret").write_text("sk_0123456789abcdef0123456789abcdef", "utf-8")
    (shell.directory / "secret").chmod(0o600)
    signed = on_windows("sign", "conn_a", "v1/a", "--secret-file", "secret")
    assert re.match("http://127.0.0.1:8080/api/proxy/conn_a/v1/a", signed.out), signed.all
