"""`presign run`: a program with presigned keys in its environment, its signals, and what its end leaves."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.asking import SECRET
from support.config import write_config
from support.puppet import eventually
from support.serving import Serve
from support.shell import MODULE, Done, Shell, Terminal

KEY = "sk-REAL-0123456789"
OPENAI = {"preset": "openai", "auth": {"token": KEY}, "signing_keys": [{"secret": SECRET}]}
SHOW = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A registry with the connection `conn_openai`."""
    made = Shell(tmp_path)
    assert made.presign("init").code == 0
    added = made.presign("connections", "add", "conn_openai", "--preset", "openai", stdin=f"{KEY}\n")
    assert added.code == 0, added.all
    return made


def configured(tmp_path: Path, **config: Any) -> Shell:
    made = Shell(tmp_path)
    write_config(config, made.directory)
    return made


def run(shell: Shell, *arguments: str, **env: str) -> Done:
    """Without a gateway."""
    return shell.presign("run", "--no-check", *arguments, **env)


def environment(shell: Shell, *arguments: str, **env: str) -> dict[str, str]:
    done = run(shell, *arguments, "--", *SHOW, **env)
    assert done.code == 0, done.all
    found: dict[str, str] = json.loads(done.out)
    return found


# -- the program ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)]
)
def test_the_exit_code_is_that_of_the_program(script: str, code: int, shell: Shell) -> None:
    done = run(shell, "--", "sh", "-c", script)
    assert (done.code, done.all) == (code, "")
    assert "revoke --undo" in shell.presign("revoke", "--list").out


def test_a_program_reads_and_writes_what_it_would_without_us(shell: Shell) -> None:
    copy = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); sys.stderr.write('err')"
    given = bytes(range(256)) * 1000
    child = subprocess.run(
        [*MODULE, "run", "--no-check", "--", sys.executable, "-c", copy],
        input=given,
        capture_output=True,
        cwd=shell.directory,
        env=shell.env,
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, given, b"err")


def test_options_of_the_program_are_its_own(shell: Shell) -> None:
    done = run(shell, "conn_openai", "--", "sh", "-c", 'echo "$@"', "sh", "--help", "--expires", "--", "-x")
    assert done.out == "--help --expires -- -x\n"


@pytest.mark.parametrize("program", ["no-such-program", "./no-such-file"])
def test_a_missing_program_is_said_as_a_shell_says_it(program: str, shell: Shell) -> None:
    done = shell.presign("run", "--", program)
    assert (done.code, done.out) == (127, "")
    assert done.err == f"presign: {program}: there is no such program\n"
    assert shell.presign("revoke", "--list").out == "Nothing is revoked.\n"


def test_a_file_that_is_no_program_is_said_as_a_shell_says_it(shell: Shell) -> None:
    (shell.directory / "data").write_text("x")
    done = run(shell, "--", "./data")
    assert (done.code, done.err) == (126, "presign: ./data: permission denied\n")


def test_a_script_without_a_first_line_is_a_script_of_the_shell(shell: Shell) -> None:
    script = shell.directory / "script"
    script.write_text('echo "$1 ${OPENAI_API_KEY%%_*}"\n')
    script.chmod(0o755)
    assert run(shell, "--", "./script", "a b").out == "a b ps2\n"


@pytest.mark.parametrize("arguments", [("conn_openai",), ("conn_openai", "--"), ("conn_openai", "true")])
def test_who_forgets_the_dashes_is_told(arguments: tuple[str, ...], shell: Shell) -> None:
    done = shell.presign("run", *arguments)
    assert (done.code, done.out) == (2, "")
    assert "put -- before the program" in done.err


# -- its environment --------------------------------------------------------------------------------------


def test_a_program_finds_key_and_base_url(shell: Shell) -> None:
    found = environment(shell, "conn_openai", OPENAI_API_KEY="sk-mine", OPENAI_BASE_URL="https://elsewhere")
    assert found["OPENAI_API_KEY"].startswith("ps2_")
    assert found["OPENAI_BASE_URL"] == "http://127.0.0.1:8080/v1"
    assert not [name for name in found if name.lower().endswith("_proxy")]


def test_a_company_proxy_does_not_come_between_a_program_and_the_gateway(shell: Shell) -> None:
    found = environment(shell, HTTPS_PROXY="http://corp:3128", NO_PROXY="intranet.corp")
    assert found["HTTPS_PROXY"] == "http://corp:3128"
    assert found["NO_PROXY"] == found["no_proxy"] == "intranet.corp,localhost,127.0.0.1,::1"


def test_a_base_url_of_the_user_does_not_lead_past_the_proxy(shell: Shell, authority: Path) -> None:
    found = environment(
        shell, "conn_openai", "--via", "proxy", "--ca", str(authority), OPENAI_BASE_URL="https://elsewhere"
    )
    assert "OPENAI_BASE_URL" not in found
    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://127.0.0.1:8080"
    assert found["NO_PROXY"] == "localhost,127.0.0.1,::1"


def test_an_agent_cannot_read_the_secrets_of_the_gateway(tmp_path: Path) -> None:
    """It may use what was signed; with a key of the registry, or a signing secret, it could do anything."""
    names = ("REGISTRY_PASSPHRASE", "OPENAI_API_KEY", "OTHER_KEY", "SIGNING", "PRESIGN_KEY", "REDIS_PASSWORD")
    given = {name: f"secret-of-{name}-0123456789" for name in names}
    other = {"upstream": "https://api.example.com", "signing_keys": [{"secret": {"env": "SIGNING"}}]}
    shell = configured(
        tmp_path,
        registry={"file": "connections.enc", "key": {"passphrase": {"env": "REGISTRY_PASSPHRASE"}}},
        limits={"store": "redis://127.0.0.1:1", "password": {"env": "REDIS_PASSWORD"}},
        connections={
            "conn_other": other
            | {"auth": {"type": "basic", "username": "x", "password": {"env": "OTHER_KEY"}}},
            "conn_openai": OPENAI | {"auth": {"token": {"env": "OPENAI_API_KEY"}}},
        },
    )
    write_registry(shell, given)
    found = environment(shell, "conn_openai", MINE="stays", PRESIGN_CONFIG="config.yaml", **given)
    assert not [name for name, value in found.items() if "secret-of" in value or value == SECRET]
    assert found["OPENAI_API_KEY"].startswith("ps2_")
    assert found["MINE"] == "stays"
    assert not [name for name in found if name.startswith("PRESIGN_")]


def write_registry(shell: Shell, given: dict[str, str]) -> None:
    """An empty registry, under the key of the configuration."""
    done = shell.presign("encrypt", "-", "--replace", stdin='{"connections": {}}', **given)
    assert done.code == 0, done.all


def test_a_secret_in_the_registry_that_names_a_variable_is_taken_off_too(shell: Shell) -> None:
    added = shell.presign(
        "connections",
        "add",
        "conn_groq",
        "--preset",
        "groq",
        "--credential-env",
        "MY_GROQ",
        MY_GROQ="gsk_REAL",
    )
    assert added.code == 0, added.all
    assert "MY_GROQ" not in environment(shell, "conn_openai", MY_GROQ="gsk_REAL")


def test_an_agent_does_not_find_the_key_in_another_variable(shell: Shell) -> None:
    """A user who works with the API too may have the key in any variable."""
    others = {"OPENAI_API_KEY": KEY, "MY_BACKUP": KEY, "SHORT": "x", "MINE": "stays"}
    found = environment(shell, "conn_openai", "--env", "AGENT_KEY", **others)
    assert found["AGENT_KEY"].startswith("ps2_")
    assert (found["SHORT"], found["MINE"]) == ("x", "stays")
    assert not [name for name, value in found.items() if KEY in value]


@pytest.mark.parametrize(
    ("auth", "stays"),
    [
        ({"type": "basic", "username": "my-own-name", "password": KEY}, True),
        ({"type": "basic", "username": KEY, "password": "X"}, False),
        ({"type": "header", "headers": {"X-Key": KEY}}, True),
        ({"type": "query", "params": {"key": KEY}}, True),
        ({"type": "path", "template": "/my-own-name/{token}", "token": KEY}, True),
        (
            {
                "type": "oauth2",
                "token_url": "https://a.example/t",
                "client_id": "my-own-name",
                "client_secret": KEY,
            },
            True,
        ),
    ],
)
def test_a_key_of_any_type_is_taken_off_by_its_value_and_a_name_is_not(
    auth: dict[str, Any], stays: bool, tmp_path: Path
) -> None:
    entry = {"upstream": "https://api.example.com", "auth": auth, "signing_keys": [{"secret": SECRET}]}
    shell = configured(tmp_path, connections={"conn_a": entry})
    found = environment(
        shell, "--env", "A_KEY", "--base-env", "A_URL", BACKUP=KEY, SIGNS=SECRET, NAME="my-own-name"
    )
    assert not [name for name, value in found.items() if value in (KEY, SECRET)]
    assert found["NAME"] == "my-own-name" or not stays


@pytest.mark.parametrize("what", ["rm -r $D", "rm -r $D; ln -s $HOME $D", "rm -r $D; echo > $D"])
def test_a_program_that_replaces_its_directory_has_its_own_exit_code_and_its_key_ends(
    what: str, shell: Shell, authority: Path
) -> None:
    script = f"D=$(dirname $SSL_CERT_FILE); {what}; exit 7"
    done = run(shell, "--via", "proxy", "--ca", str(authority), "--", "sh", "-c", script)
    assert (done.code, done.all) == (7, "")
    assert authority.exists()
    assert "revoke --undo" in shell.presign("revoke", "--list").out


def test_two_connections_stand_beside_each_other(shell: Shell, authority: Path) -> None:
    assert (
        shell.presign("connections", "add", "conn_gh", "--preset", "github", stdin="ghp_0123456789\n").code
        == 0
    )
    found = environment(shell, "conn_openai", "conn_gh", "--ca", str(authority))
    assert found["OPENAI_API_KEY"] != found["GITHUB_TOKEN"] == found["GH_TOKEN"]
    assert found["OPENAI_BASE_URL"] == "http://127.0.0.1:8080/v1"
    assert found["HTTPS_PROXY"] == "http://127.0.0.1:8080"  # GitHub's programs know no base URL


def test_two_connections_that_need_the_same_variable_are_told_apart(shell: Shell) -> None:
    assert (
        shell.presign("connections", "add", "conn_b", "--preset", "openai", stdin="sk-B-0123456789\n").code
        == 0
    )
    done = run(shell, "conn_openai", "conn_b", "--", "true")
    assert done.code == 2
    assert "conn_openai and conn_b both need OPENAI_API_KEY" in done.err
    more = ("--env", "conn_b=OTHER_KEY,ALIAS", "--base-env", "conn_b=OTHER_URL")
    found = environment(shell, "conn_openai", "conn_b", *more)
    assert found["OTHER_KEY"] == found["ALIAS"] != found["OPENAI_API_KEY"]
    assert found["OTHER_URL"] == found["OPENAI_BASE_URL"]


def test_without_a_name_the_only_connection_is_meant_and_no_other(shell: Shell) -> None:
    assert "OPENAI_API_KEY" in environment(shell)
    assert (
        shell.presign("connections", "add", "conn_b", "--preset", "groq", stdin="gsk_0123456789\n").code == 0
    )
    done = run(shell, "--", "true")
    assert done.code == 2
    assert "name the connections of the program: conn_openai, conn_b" in done.err


def test_a_connection_of_no_preset_asks_for_the_name_of_its_variable(tmp_path: Path) -> None:
    entry = {"upstream": "https://api.acme.test", "auth": {"type": "bearer", "token": KEY}}
    shell = configured(tmp_path, connections={"conn_acme": entry | {"signing_keys": [{"secret": SECRET}]}})
    done = run(shell, "--", "true")
    assert (done.code, "--env conn_acme=NAME" in done.err) == (2, True)
    found = environment(shell, "--env", "ACME_TOKEN", "--base-env", "ACME_URL")
    assert found["ACME_TOKEN"].startswith("ps2_")
    assert found["ACME_URL"] == "http://127.0.0.1:8080"


def test_a_holder_of_a_secret_alone_is_told_of_both_ways_to_name_the_variable(tmp_path: Path) -> None:
    done = run(Shell(tmp_path), "conn_openai", "--secret-env", "MINE", "--", "true", MINE=SECRET)
    assert done.code == 2
    assert "--env conn_openai=NAME, or name the provider with --preset" in done.err


@pytest.mark.parametrize("text", ["conn_x=A", "A B", "conn_openai=", "=A"])
def test_a_variable_that_is_none_is_refused(text: str, shell: Shell) -> None:
    done = run(shell, "--env", text, "--", "true")
    assert done.code == 2
    assert "--env" in done.err


def without_rights() -> None:
    """Of CAP_SYS_PTRACE, CAP_SYS_ADMIN and CAP_PERFMON, root has none after the next `exec`."""
    for right in (19, 21, 38):
        ctypes.CDLL(None).prctl(24, right, 0, 0, 0)


@pytest.mark.needs("/proc")
def test_an_agent_cannot_read_the_environment_of_its_parent(shell: Shell) -> None:
    """Both have the same user. Root may read everything, so here neither has that right."""
    done = subprocess.run(
        [*MODULE, "run", "--no-check", "--", "sh", "-c", "cat /proc/$PPID/environ; exit 4"],
        preexec_fn=without_rights,
        capture_output=True,
        cwd=shell.directory,
        env=shell.env | {"REGISTRY_SECRET": "secret-of-the-registry"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (4, b"")
    assert b"Permission denied" in done.stderr


# -- its authorities ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, ca_pem: Path) -> Path:
    """As the gateway writes it: the certificate alone."""
    path = tmp_path_factory.mktemp("confdir") / "mitmproxy-ca-cert.pem"
    path.write_bytes(ca_pem.read_bytes())
    return path


REPORT = """
import json, os, stat
path = os.environ["SSL_CERT_FILE"]
modes = [stat.S_IMODE(os.stat(p).st_mode) for p in (os.path.dirname(path), path)]
print(json.dumps([path, open(path).read(), modes, dict(os.environ)]))
"""


def test_a_bundle_holds_the_authorities_of_the_world_and_of_the_gateway(
    shell: Shell, authority: Path, tmp_path: Path
) -> None:
    corporate = tmp_path / "corporate.pem"
    company = trustme.CA(organization_name="Company").cert_pem.bytes().decode()
    corporate.write_text(company)
    show = (sys.executable, "-c", REPORT)
    more = ("conn_openai", "--via", "proxy", "--ca", str(authority))
    done = run(shell, *more, "--", *show, NODE_EXTRA_CA_CERTS=str(corporate))
    path, text, modes, found = json.loads(done.out)
    assert authority.read_text().strip() in text
    assert company.strip() in text
    assert text.count("BEGIN CERTIFICATE") > 50
    assert "PRIVATE" not in text
    assert modes[0] == 0o700
    for name in (
        "REQUESTS_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "AWS_CA_BUNDLE",
    ):
        assert found[name] == path
    assert not Path(path).parent.exists()


def test_a_bundle_is_needed_and_missing(shell: Shell) -> None:
    done = run(shell, "conn_openai", "--via", "proxy", "--", "true")
    assert done.code == 1
    assert "mitmproxy-ca-cert.pem does not exist" in done.err
    assert "--ca" in done.err


# -- the gateway ------------------------------------------------------------------------------------------


def test_no_program_is_started_where_no_gateway_answers(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    done = shell.presign("run", "--base", f"http://127.0.0.1:{port}", "--", "touch", "started")
    assert (done.code, done.out) == (1, "")
    assert f"no gateway answers at http://127.0.0.1:{port} (connection refused)" in done.err
    assert not (shell.directory / "started").exists()


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-x\r\n", b""])
def test_a_key_is_not_brought_to_a_server_that_is_no_gateway(answer: bytes, shell: Shell) -> None:
    """8080 is everybody's port."""
    with socket.create_server(("127.0.0.1", 0)) as bound:

        def serve() -> None:
            client, _ = bound.accept()
            with client:
                asked.append(client.recv(65536))
                client.sendall(answer)

        asked: list[bytes] = []
        thread = threading.Thread(target=serve)
        thread.start()
        base = f"http://127.0.0.1:{bound.getsockname()[1]}"
        done = shell.presign("run", "--base", base, "--", "touch", "started")
        thread.join()
    assert done.code == 1
    assert "it is no gateway" in done.err or "no gateway answers" in done.err
    assert b"ps2_" not in asked[0]
    assert not (shell.directory / "started").exists()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: Any) -> Iterator[tuple[Shell, Serve]]:
    """A gateway with a registry, and a shell beside it that may change that."""
    shell = Shell(tmp_path_factory.mktemp("operator"))
    assert shell.presign("init").code == 0
    added = shell.presign(
        *("connections", "add", "conn_a", "--upstream", upstream.url, "--auth", "bearer"), stdin=f"{KEY}\n"
    )
    assert added.code == 0, added.all
    text = (shell.directory / "config.yaml").read_text()
    with Serve(shell.directory, {}, start_from=text) as gateway:
        yield shell, gateway


ASK = """
import http.client, os, sys, urllib.parse
url = urllib.parse.urlsplit(os.environ["A_URL"])
client = http.client.HTTPConnection(url.hostname, url.port)
client.request("GET", "/v1/models", headers={"Authorization": "Bearer " + os.environ["A_KEY"]})
answer = client.getresponse()
print(answer.status, answer.getheader("X-Presign-Error"), os.environ["A_KEY"])
"""


Begin = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def begin(served: tuple[Shell, Serve]) -> Iterator[Begin]:
    """Starts a program with a key for `conn_a` in `A_KEY`."""
    shell, gateway = served
    base = f"http://127.0.0.1:{gateway.port}"
    argv = [*MODULE, "run", "conn_a", "--base", base, "--env", "A_KEY", "--base-env", "A_URL", "--"]
    with ExitStack() as started:

        def start(*program: str, **options: Any) -> subprocess.Popen[bytes]:
            child = subprocess.Popen(
                [*argv, *program],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=shell.directory,
                env=shell.env,
                **options,
            )
            started.enter_context(child)
            started.callback(child.terminate)
            return child

        yield start


def first_line(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout
    return child.stdout.readline().decode().strip()


def ask(gateway: Serve, token: str) -> tuple[int, str | None]:
    client = HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    client.request("GET", "/v1/models", headers={"Authorization": f"Bearer {token}"})
    answer = client.getresponse()
    client.close()
    return answer.status, answer.getheader("X-Presign-Error")


def refused(gateway: Serve, token: str) -> bool:
    return ask(gateway, token) == (403, "revoked")


def test_a_key_works_while_the_program_runs_and_not_afterwards(
    begin: Begin, served: tuple[Shell, Serve]
) -> None:
    out, err = begin(sys.executable, "-c", ASK).communicate(timeout=60)
    status, code, token = out.decode().split()
    assert (status, code, err) == ("200", "None", b"")
    assert eventually(lambda: refused(served[1], token))


WAIT = "import os, sys, time; print(os.environ['A_KEY'], flush=True); time.sleep(100)"


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT,
        signal.SIGALRM, signal.SIGXCPU, signal.SIGABRT, getattr(signal, "SIGRTMIN", signal.SIGPROF),
    ],
)  # fmt: skip
def test_a_signal_reaches_the_program_and_its_key_ends(
    number: int, begin: Begin, served: tuple[Shell, Serve]
) -> None:
    default = lambda: [signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT, signal.SIGQUIT)]  # noqa: E731
    child = begin(
        sys.executable, "-c", f"import signal; signal.signal({number}, 0); {WAIT}", preexec_fn=default
    )
    token = first_line(child)
    assert ask(served[1], token)[0] == 200
    child.send_signal(number)
    assert (child.wait(30), child.stderr and child.stderr.read()) == (128 + number, b"")
    assert eventually(lambda: refused(served[1], token))


def test_a_program_that_ends_its_parent_does_not_keep_its_key(
    begin: Begin, served: tuple[Shell, Serve]
) -> None:
    """It leaves a process behind and sends a signal that ends most programs."""
    script = "import signal; print(os.environ['A_KEY'], flush=True); os.kill(os.getppid(), signal.SIGALRM)"
    stay = "os.fork() or (os.setsid(), os.close(1), os.close(2), time.sleep(20))"
    child = begin(sys.executable, "-c", f"import os, time; {stay}; {script}; time.sleep(100)")
    token = first_line(child)
    assert child.wait(30) == 128 + signal.SIGALRM
    assert eventually(lambda: refused(served[1], token))


def test_a_program_that_outlives_a_signal_keeps_its_key(begin: Begin, served: tuple[Shell, Serve]) -> None:
    script = "import os, signal; signal.signal(15, lambda *_: os.write(1, b'told\\n')); " + WAIT
    child = begin(sys.executable, "-c", script)
    token = first_line(child)
    child.send_signal(signal.SIGTERM)
    assert first_line(child) == "told"
    assert child.poll() is None
    assert ask(served[1], token)[0] == 200
    os.kill(int(child_of(child.pid)), signal.SIGKILL)
    assert child.wait(30) == 137
    assert eventually(lambda: refused(served[1], token))


def child_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]


def test_ten_runs_that_begin_together_do_not_end_each_other(
    begin: Begin, served: tuple[Shell, Serve]
) -> None:
    """Their grants would be equal, but for a name of each."""
    first = begin(sys.executable, "-c", WAIT)
    others = [begin(sys.executable, "-c", ASK) for _ in range(4)]
    token = first_line(first)
    tokens = {one.communicate(timeout=60)[0].split()[2].decode() for one in others}
    assert len(tokens | {token}) == 5
    assert ask(served[1], token)[0] == 200
    first.terminate()
    first.wait(30)
    assert eventually(lambda: all(refused(served[1], one) for one in tokens | {token}))


def test_nothing_secret_stands_on_a_command_line(begin: Begin, served: tuple[Shell, Serve]) -> None:
    child = begin(sys.executable, "-c", WAIT)
    token = first_line(child)
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (child.pid, child_of(child.pid))]
    child.terminate()
    child.wait(30)
    assert all(lines)
    assert not [line for line in lines if token.encode() in line or b"ps2_" in line]


# -- a terminal -------------------------------------------------------------------------------------------

COUNT = """
import os, signal, sys, time
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(1))
print("ready", flush=True)
while not told: time.sleep(0.05)
time.sleep(0.5)
print("told", len(told), flush=True)
"""


def on_terminal(shell: Shell, argv: tuple[str, ...]) -> Terminal:
    return Terminal(argv, shell.directory, shell.env)


def seen(terminal: Terminal, text: str) -> None:
    """Wait until the text stands on the screen."""
    assert eventually(lambda: shown(terminal).count(text) > 0, 30), terminal.screen


def prompted(terminal: Terminal, times: int) -> None:
    """Wait until the shell has asked for so many commands."""
    assert eventually(lambda: shown(terminal).count("shell> ") >= times, 30), terminal.screen


def shown(terminal: Terminal) -> str:
    """What stands on the screen, as of now: it may have come with what was waited for before."""
    terminal._read(0.05)
    return terminal.screen


def test_ctrl_c_reaches_the_program_once_and_ends_no_cleanup(shell: Shell) -> None:
    argv = (*MODULE, "run", "--no-check", "--", sys.executable, "-c", COUNT)
    with on_terminal(shell, argv) as terminal:
        seen(terminal, "ready")
        terminal.interrupt()
        assert terminal.wait() == 0
        assert "told 1\n" in terminal.screen
    assert "revoke --undo" in shell.presign("revoke", "--list").out


@pytest.mark.needs("bash")
@pytest.mark.parametrize("how", ["by Ctrl-Z", "by itself"])
def test_a_shell_stops_and_continues_the_program_as_one_job(how: str, shell: Shell) -> None:
    stop = "" if how == "by Ctrl-Z" else "os.kill(os.getpid(), signal.SIGSTOP); "
    program = (
        f"import os, signal, time; print('rea' + 'dy', flush=True); {stop}time.sleep(2); print('do' + 'ne')"
    )
    line = f'presign run --no-check -- python3 -c "{program}"; echo "code $?"'
    with on_terminal(shell, ("bash", "--norc", "--noprofile", "-i")) as terminal:
        # What is typed before the prompt is there may be flushed away.
        terminal.type("PS1='sh''ell> '")
        prompted(terminal, 1)
        terminal.type(line)
        seen(terminal, "ready")
        if not stop:
            os.write(terminal._master, b"\x1a")
        seen(terminal, "Stopped")
        prompted(terminal, 2)
        terminal.type("fg")
        seen(terminal, "done")
        prompted(terminal, 3)
        terminal.type("exit")
        terminal.wait()
    assert terminal.screen.count("Stopped") == 1


def test_a_shell_of_its_own_has_the_terminal(shell: Shell) -> None:
    argv = (*MODULE, "run", "--no-check", "--", "bash", "--norc", "--noprofile", "-i")
    with on_terminal(shell, argv) as terminal:
        terminal.type("PS1='> '")
        terminal.type("sleep 100")
        seen(terminal, "sleep 100")
        terminal.interrupt()
        terminal.type('echo "key ${OPENAI_API_KEY:0:4}"; exit 5')
        assert terminal.wait() == 5
    assert "key ps2_" in terminal.screen


# -- what cannot be revoked -------------------------------------------------------------------------------


def test_a_holder_of_a_secret_alone_is_told_until_when_the_key_is_good(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    more = ("--secret-env", "MINE", "--preset", "openai", "--id", "nightly", "--expires", "5m")
    done = run(shell, "conn_openai", *more, "--", *SHOW, MINE=SECRET)
    found = json.loads(done.out)
    assert (done.code, found["OPENAI_API_KEY"][:4]) == (0, "ps2_")
    assert "MINE" not in found
    assert "the key of conn_openai was not revoked (a secret alone cannot revoke): it ends at 20" in done.err
    assert "presign revoke --id conn_openai/nightly-" in done.err


def test_a_registry_that_cannot_be_written_is_told_and_the_exit_code_stays(shell: Shell) -> None:
    done = run(shell, "--", "sh", "-c", "rm -f .connections.enc.lock; mkdir .connections.enc.lock; exit 3")
    assert done.code == 3
    assert "the key of conn_openai was not revoked" in done.err


@pytest.mark.slow
def test_a_command_that_holds_the_registry_holds_nobody_up_for_long(shell: Shell) -> None:
    """It waits at its own question, perhaps, and nobody answers."""
    with (shell.directory / ".connections.enc.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        begun = time.monotonic()
        done = run(shell, "--", "sh", "-c", "exit 6")
    assert done.code == 6
    assert 15 < time.monotonic() - begun < 60
    assert "the registry could not be changed within 20 s: does another command hold it?" in done.err


def test_a_configuration_without_a_registry_says_what_is_missing(tmp_path: Path) -> None:
    shell = configured(tmp_path, connections={"conn_openai": OPENAI})
    done = run(shell, "--", "true")
    assert done.code == 0
    assert "names no registry file" in done.err


# -- what is signed ---------------------------------------------------------------------------------------


def explained(shell: Shell, token: str) -> dict[str, Any]:
    asked = shell.presign("convert", token, "--json")
    found: dict[str, Any] = json.loads(asked.out)
    return found


def test_a_key_ends_in_an_hour_or_before_if_the_connection_says_so(shell: Shell) -> None:
    first = explained(shell, environment(shell)["OPENAI_API_KEY"])
    assert 3500 < first["expires"] - time.time() <= 3600
    assert (first["methods"], first["paths"]) == (["*"], ["*"])
    assert shell.presign("connections", "set", "conn_openai", "max_lifetime=10m", "--yes").code == 0
    second = explained(shell, environment(shell)["OPENAI_API_KEY"])
    assert 500 < second["expires"] - time.time() <= 600
    done = run(shell, "--expires", "2h", "--", "true")
    assert (done.code, "lifetime_too_long" in done.err) == (1, True)


def test_options_of_sign_narrow_the_key(shell: Shell) -> None:
    more = ("--methods", "post", "--paths", "v1/chat/*", "--max-uses", "3", "--id", "ci", "--max-body", "1K")
    found = explained(shell, environment(shell, *more)["OPENAI_API_KEY"])
    assert (found["methods"], found["paths"]) == (["POST"], ["v1/chat/*"])
    assert found["terms"]["max_uses"] == 3
    assert found["terms"]["max_body"] == 1024
    assert found["terms"]["id"].startswith("ci-")


@pytest.mark.parametrize("state", ["disable", "revoke"])
def test_a_connection_that_is_off_starts_nothing(state: str, shell: Shell) -> None:
    how = (
        ("connections", "disable", "conn_openai")
        if state == "disable"
        else ("revoke", "--connection", "conn_openai")
    )
    assert shell.presign(*how).code == 0
    done = run(shell, "--", "touch", "started")
    assert done.code == 1
    assert "conn_openai is " in done.err
    assert not (shell.directory / "started").exists()


def test_errors_are_json_for_programs(shell: Shell) -> None:
    done = shell.presign("run", "conn_x", "--json", "--", "true")
    assert (done.code, done.err) == (1, "")
    assert "there is no connection" in json.loads(done.out)["error"]
