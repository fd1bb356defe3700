"""The service as docs/running.md sets it up, from `useradd` to `curl /readyz`, and as its unit runs it.

Performed without systemd, in namespaces: its user, its environment, its sockets, its readiness, and a file
system that it may read, of which it may write its state directory alone.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import DOCS, block, commands
from support.namespaces import Network, isolated, why_not
from support.places import ROOT
from support.shell import ADDON
from support.systemd import READING, Unit

# A user is made, and a service run as systemd does.
pytestmark = pytest.mark.slow

SECTION = DOCS["running.md"].partition("\n## systemd\n")[2].partition("\n## ")[0]
STEPS = commands(block(SECTION, "console"))
SERVICE = ROOT / "deploy/presign.service"
SOCKET = ROOT / "deploy/presign.socket"
KEY = "sk-KEY-0123456789"
# In an overlay each, so that nothing of this machine is changed.
WRITTEN = ("/etc", "/opt", "/var")
COMMAND = f"""#!/bin/sh
PYTHONPATH={ADDON} exec {sys.executable} -m presign_proxy "$@"
"""
# The commands that stand in the documents, but for a package index and systemd itself.
PERFORMED = {
    "sudo python3 -m venv /opt/presign": "mkdir -p /opt/presign/bin",
    "sudo /opt/presign/bin/pip install presign-proxy": (
        f"printf %s {shlex.quote(COMMAND)} > /opt/presign/bin/presign; chmod 755 /opt/presign/bin/presign"
    ),
    "sudo systemctl daemon-reload": ":",
    "sudo systemctl enable --now presign.socket presign.service": (
        f"{sys.executable} {ROOT}/tests/support/systemd.py"
        " /etc/systemd/system/presign.service /etc/systemd/system/presign.socket > /tmp/started"
    ),
}
SUDO = f"""
sudo() {{
  if [ "$1" != -u ]; then "$@"; return; fi
  user=$2; shift 2
  setpriv --reuid=$user --regid=$user --init-groups {" ".join(READING)} -- "$@"
}}
"""


def unit() -> Unit:
    return Unit(SERVICE.read_text("utf-8"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """In which the ports of the unit are free."""
    if lacking := why_not(tmp_path_factory.mktemp("probe")):
        pytest.skip(lacking)
    network = Network()
    yield network
    network.close()


def perform(directory: Path, network: Network, lines: list[str]) -> subprocess.CompletedProcess[str]:
    """Run lines of a shell as root of a machine whose /etc, /opt and /var are copies of this one's."""
    script = ["mount -t proc proc /proc", f"mount -t tmpfs tmpfs {directory}"]
    for place in WRITTEN:
        upper, work = (f"{directory}/{what}{place}" for what in ("upper", "work"))
        script += [f"mkdir -p {upper} {work}"]
        script += [f"mount -t overlay overlay -o lowerdir={place},upperdir={upper},workdir={work} {place}"]
    argv = isolated([*script, f"cd {ROOT}", SUDO, *lines], network=network.path)
    return subprocess.run(argv, input=f"{KEY}\n", capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.needs("curl")
def test_a_new_user_gets_a_service_that_is_ready_by_the_steps_of_the_documents(
    network: Network, tmp_path: Path
) -> None:
    assert PERFORMED.keys() <= set(STEPS)
    steps = [PERFORMED.get(line, line) for line in STEPS]
    looks = [
        "ls -n /var/lib/presign",
        "curl -sS -o /dev/null http://127.0.0.1:443/api/proxy/conn_openai/v1/models?X-Presign-Expires=0",
        "pid=$(awk '{print $2}' /tmp/started); grep -E '^(Uid|CapEff)' /proc/$pid/status; id -u presign",
        "kill -TERM $pid; while [ -d /proc/$pid ]; do sleep 0.1; done",
        "cat /var/lib/presign/audit.jsonl",
    ]
    done = perform(tmp_path, network, steps + looks)
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "\nready\n" in said
    assert "1 connection, 0 errors" in said
    owned = re.findall(r"^\S+ +\d+ +(\d+) .* (audit\.jsonl|ca)$", said, re.MULTILINE)
    (uid,) = re.findall(r"^Uid:\t(\d+)", said, re.MULTILINE)
    assert sorted(name for _, name in owned) == ["audit.jsonl", "ca"]
    assert {owner for owner, _ in owned} == {uid}
    assert uid != "0"
    assert '"decision":"deny"' in said
    assert "listening on 0.0.0.0:443 and [::]:443 with 2 worker(s)" in done.stderr
    assert KEY not in said + done.stderr


def test_a_configuration_for_a_laptop_is_told_where_the_service_cannot_write(
    network: Network, tmp_path: Path
) -> None:
    """`init` without --state: the audit log would lie where the unit may only read."""
    steps = [
        PERFORMED.get(line, line) for line in STEPS if "curl" not in line and "presign check" not in line
    ]
    steps = [line.replace(" --state /var/lib/presign", "") for line in steps]
    done = perform(tmp_path, network, steps)
    assert done.returncode != 0
    assert "audit.file: the directory /etc/presign cannot be written: read-only file system" in done.stderr


def test_the_unit_and_the_steps_name_the_same_user_and_directories() -> None:
    service = unit()
    user = service.one("User")
    assert service.one("Group") == user
    text = "\n".join(STEPS)
    assert re.search(rf"useradd .*--user-group .* {user}$", text, re.MULTILINE)
    state = f"/var/lib/{service.one('StateDirectory')}"
    assert re.search(rf"install -d -o {user} -g {user} -m 0700 /etc/presign {state}$", text, re.MULTILINE)
    assert f"init --config /etc/presign/config.yaml --state {state}" in text
    argv = shlex.split(service.one("ExecStart"))
    assert argv[:2] == ["/opt/presign/bin/presign", "serve"]
    given = dict(zip(argv[2::2], argv[3::2], strict=True))
    assert given["--config"] == "/etc/presign/config.yaml"
    assert given["--confdir"].startswith(f"{state}/")
    assert f"--confdir {given['--confdir']}" in text
    assert int(service.one("TimeoutStopSec").removesuffix("s")) > int(given["--drain"].removesuffix("s"))
