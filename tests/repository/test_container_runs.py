"""The image and the compose file at work: the Dockerfile's own instructions, performed in a Debian made by
debootstrap, then the commands of docs/running.md, as the unprivileged user on a read-only root.

Needs root, namespaces and a network, and takes minutes, so an ordinary run leaves it out:
`pytest -m container`. $CONTAINER_CACHE names a directory that keeps the Debian for the next time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from support import container
from support.asking import Grant, code, wire
from support.asking import ask as ask_port
from support.byhand import ByHand, Wire
from support.compose import Machine
from support.container import Builder, BuildFailed, Container, Image
from support.documents import DOCS, block, commands
from support.namespaces import why_not
from support.places import ROOT
from support.puppet import eventually
from support.raw import Response, connect, connect_tls
from support.recorder import Recorder

pytestmark = [pytest.mark.container, pytest.mark.slow]

SECTION = DOCS["running.md"].partition("## In a container\n")[2].partition("\n## ")[0]
PORT = 8080
UID = 10001
KEY = "sk-real-key-of-the-box-0123456789"
NAME = "presign.example.com"
PATIENT = 30.0
"""Seconds; the machine may have much else to do."""
WRITE = "import sys; open(sys.argv[1], 'w').close()"
UNCOMPILED = """
import importlib, os, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
known = [(one, getattr(one, "__cached__", None)) for one in list(sys.modules.values())]
print([one.__name__ for one, cached in known if cached and not os.path.exists(cached)])
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Both images of the compose file: ours from the Dockerfile, Valkey's as Debian has it."""
    if lacking := why_not(tmp_path_factory.mktemp("probe")):
        pytest.skip(lacking)
    cache = Path(os.environ.get(container.CACHE) or tmp_path_factory.mktemp("cache"))
    cache.mkdir(parents=True, exist_ok=True)
    try:
        base = container.debian(cache)
        valkey = Builder(base, cache, cache).build(container.VALKEY)
    except BuildFailed as error:
        pytest.skip(f"no Debian to be had: {error}")
    builder = Builder(base, tmp_path_factory.mktemp("images"), cache)
    ours = builder.build((ROOT / "deploy/Dockerfile").read_text("utf-8"))
    for step, seconds in builder.steps:
        print(f"{seconds:6.1f} s  {step[:100]}")
    return {"presign-proxy": ours, "valkey/valkey:8.1": valkey}


class Stand:
    """A machine on which a gateway runs, and an upstream beside it."""

    def __init__(self, machine: Machine, upstream: Recorder) -> None:
        self.machine = machine
        self.upstream = upstream
        self.hand = ByHand()

    def follow(self, heading: str, before_it_runs: Callable[[], None] | None = None) -> None:
        """The commands that stand in the documents under a heading."""
        for line in commands(block(SECTION.partition(f"### {heading}\n")[2], "console")):
            if before_it_runs and "compose up" in line:
                before_it_runs()
            said = self.perform(line, KEY)
            print(f"{line}\n{said}")

    def perform(self, line: str, given: str = "") -> str:
        return self.machine.perform(line, given)

    def add(self, name: str, url: str = "") -> Grant:
        """Register an upstream; everything at it, signed for an hour."""
        upstream = f"--upstream {url or self.upstream.url} --auth bearer"
        said = self.perform(f"docker compose run --rm presign connections add {name} {upstream}", KEY)
        return Grant(name, secret=re.search(r"sk_\S+", said)[0])

    def add_more(self) -> None:
        """An upstream that the test plays, and one with a limit: by decrypt, an editor and encrypt."""
        self.slow = self.add("conn_slow", self.hand.url)
        self.counted = self.add("conn_counted")
        registry = json.loads(self.perform("docker compose run --rm presign decrypt"))
        registry["connections"]["conn_counted"]["limits"] = [{"quota": "3/month"}]
        self.perform("docker compose run --rm presign encrypt - --replace", json.dumps(registry))


@contextmanager
def stand_at(directory: Path, images: dict[str, Image]) -> Iterator[Stand]:
    machine = Machine(directory, images)
    try:
        with machine.network.entered():
            upstream = Recorder().start()
            stand = Stand(machine, upstream)
            yield stand
            stand.hand.stop()
            upstream.stop()
    finally:
        machine.close()


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Image]) -> Iterator[Stand]:
    """What the documents tell for the first time, line by line; at its end the gateway runs."""
    with stand_at(tmp_path_factory.mktemp("composed"), images) as stand:
        stand.follow("The first time", before_it_runs=stand.add_more)
        yield stand


@pytest.fixture
def gateway(composed: Stand) -> Container:
    return composed.machine.running["gateway"]


def ask(target: str, host: str = NAME) -> Response:
    return ask_port(PORT, target, host=host)


def state(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def inside(gateway: Container) -> list[int]:
    """All processes of a container."""
    wanted = Path(f"/proc/{gateway.pid}/ns/pid").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "ns/pid").readlink() == wanted:
                found.append(int(entry.name))
        except OSError:  # it has ended
            continue
    return found


def both_serve(gateway: Container) -> bool:
    return len(re.findall(r"worker \d+ serves", gateway.log())) == 2


def granted(gateway: Container) -> set[str]:
    """The connections of which the audit log, beside the log of the process, says that they were used."""
    lines = [
        json.loads(line) for line in gateway.log().splitlines() if line.startswith("{") and line.endswith("}")
    ]
    return {line["connection"] for line in lines if line.get("decision") == "forward"}


def test_the_image_holds_the_environment_and_nothing_of_its_making(images: dict[str, Image]) -> None:
    upper = images["presign-proxy"].root[0]
    assert not list(upper.glob("opt/presign/lib/python3.*/site-packages/pip*"))
    assert [one.name for one in (upper / "opt").iterdir()] == ["presign"]
    assert not (upper / "src").exists()
    assert (upper / "var/lib/presign").stat().st_uid == (upper / "etc/presign").stat().st_uid == UID
    assert images["presign-proxy"].labels["org.opencontainers.image.title"] == "presign-proxy"


def test_two_workers_serve_and_the_check_of_the_image_calls_them_healthy(gateway: Container) -> None:
    assert eventually(lambda: both_serve(gateway), PATIENT), gateway.log()
    assert gateway.is_healthy() == (True, "ready\n")
    assert "warning" not in gateway.log()


def test_no_process_is_root_can_become_it_or_is_a_shell(gateway: Container) -> None:
    assert eventually(lambda: both_serve(gateway), PATIENT)
    assert state(gateway.pid)["NSpid"].split()[-1] == "1"
    found = inside(gateway)
    assert len(found) >= 3
    for pid in found:
        status = state(pid)
        assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
        assert status["Groups"] == ""
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapInh"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Name"] in ("presign", "python")


@pytest.mark.parametrize(
    "path",
    [
        "/x",
        "/etc/x",
        "/etc/presign/config.yaml",
        "/etc/presign/x",
        "/run/secrets/presign_key",
        "/usr/local/bin/x",
    ],
)
def test_a_process_in_the_container_cannot_write_outside_of_its_volume(gateway: Container, path: str) -> None:
    exited, said = gateway.execute(["python", "-c", WRITE, path])
    assert exited == 1
    assert "Read-only file system" in said, said


@pytest.mark.parametrize("path", ["/var/lib/presign/x", "/tmp/x"])
def test_it_can_write_where_the_documents_say(gateway: Container, path: str) -> None:
    assert gateway.execute(["python", "-c", WRITE, path]) == (0, "")


def test_all_that_is_imported_was_compiled_when_the_image_was_made(gateway: Container) -> None:
    """On a read-only root each start would compile it again."""
    modules = [
        "presign_proxy.serve.worker",
        "presign_proxy.cli.serve",
        "presign_proxy.limits.stores.redis",
        "uvloop",
    ]
    assert gateway.execute(["python", "-c", UNCOMPILED, *modules]) == (0, "[]\n")


def test_a_connection_that_is_added_beside_the_running_gateway_is_served(
    composed: Stand, gateway: Container
) -> None:
    """The gateway cannot write its registry; the command in a container of its own can."""
    composed.upstream.clear()
    grant = composed.add("conn_box")
    assert eventually(lambda: ask(grant.target("v1/models")).status == 200, PATIENT), gateway.log()
    assert composed.upstream.requests[-1].all("authorization") == [f"Bearer {KEY}"]
    # The other worker notices it a moment later.
    published = f"127.0.0.1:{PORT}"
    assert eventually(lambda: ask(grant.target("v1/models"), host=published).status == 200, PATIENT)
    assert code(ask(f"/api/proxy/conn_box/v1/models?{composed.counted.query}")) == (403, "invalid")
    assert code(ask("/", host="api.openai.com")) == (403, "unsigned")
    assert len(composed.upstream.requests) == 2
    assert KEY not in gateway.log()
    assert eventually(lambda: "conn_box" in granted(gateway), PATIENT)


def test_limits_are_counted_in_valkey_and_outlive_it(composed: Stand) -> None:
    target = composed.counted.target("v1/models")
    assert [ask(target).status for _ in range(4)] == [200, 200, 200, 429]
    with redis.Redis(port=6379) as store:
        assert any(b"conn_counted" in key for key in store.scan_iter())
    composed.upstream.clear()
    valkey = composed.machine.running["valkey"]
    valkey.signal()
    assert valkey.finish()[0] == 0
    composed.machine.up("valkey")
    # 503 until the gateway has noticed that it is back.
    assert eventually(lambda: ask(target).status == 429, PATIENT)
    assert composed.upstream.requests == []


def test_clients_are_given_the_authority_that_the_volume_keeps(composed: Stand) -> None:
    composed.follow("The certificate authority")
    authority = composed.machine.directory / "presign-ca.pem"
    with connect_tls(PORT, NAME, cafile=authority) as tunnel:
        tunnel.sendall(f"GET /nothing HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        assert tunnel.recv(100).startswith(b"HTTP/1.1 404 ")
    kept = composed.machine.directory / "volumes/state/ca"
    assert (kept / "mitmproxy-ca-cert.pem").read_text() == authority.read_text()
    assert (kept / "mitmproxy-ca.pem").stat().st_uid == UID
    assert not (kept / "mitmproxy-ca.pem").stat().st_mode & 0o077


def test_a_stop_lets_the_request_under_way_end_and_exits_0(composed: Stand, gateway: Container) -> None:
    with Wire(connect(PORT)) as client:
        client.send(wire(composed.slow.target("v1/models"), host=NAME))
        with composed.hand.accept(PATIENT) as asked:
            asked.read_head(PATIENT)
            gateway.signal()
            assert eventually(lambda: gateway.is_healthy() == (False, "not ready: draining\n"), PATIENT)
            asked.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            assert client.read_response(PATIENT).endswith(b"\r\n\r\ndone")
    exited, log = gateway.finish()
    assert exited == 0, log
    written = [path for path in gateway.layer.rglob("*") if path.is_file() and path.stat().st_size]
    assert written == []


# -- without compose --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, images: dict[str, Image]) -> Iterator[Stand]:
    """One container with a file for its counters, and its secrets in a directory."""
    with stand_at(tmp_path_factory.mktemp("alone"), images) as stand:
        stand.perform("sudo install -d -o 10001 -g 10001 -m 0700 /srv/presign/config /srv/presign/secrets")
        stand.perform("docker run --rm -v /srv/presign/config:/etc/presign presign-proxy init")
        stand.perform("sudo mv /srv/presign/config/presign.key /srv/presign/secrets/presign_key")
        secrets = stand.machine.here("/srv/presign/secrets")
        for name in ("api", "signing"):
            (secrets / name).write_text(f"sk_secret_of_{name}_in_a_file_of_root\n")
            (secrets / name).chmod(0o444)
        store = re.search(r"`limits: \{store: (\"sqlite:\S+\")\}`", SECTION)[1]
        text = (ROOT / "deploy/config.compose.yaml").read_text("utf-8")
        text = re.sub(r"store: redis\S+", f"store: {store}", text)
        whole, mark, end = text.partition("...   # the end")
        assert mark
        connections = (
            f"connections: {{conn_file: {{upstream: '{stand.upstream.url}', limits: [{{quota: 3/month}}], "
            "auth: {type: bearer, token: {file: /run/secrets/api}}, "
            "signing_keys: [{secret: {file: /run/secrets/signing}}]}}\n"
        )
        text = f"{whole}{connections}{mark}{end}"
        stand.machine.here("/srv/presign/config/config.yaml").write_text(text, "utf-8")
        yield stand


CHECK = (
    "docker run --rm -v /srv/presign/config:/etc/presign:ro -v /srv/presign/secrets:/run/secrets:ro "
    "presign-proxy check"
)


@pytest.mark.parametrize(("owner", "mode"), [(UID, 0o640), (UID, 0o444), (0, 0o444), (0, 0o400)])
def test_a_key_of_the_registry_that_others_can_read_is_refused(alone: Stand, owner: int, mode: int) -> None:
    """And root's own, which the gateway cannot read."""
    key = alone.machine.here("/srv/presign/secrets/presign_key")
    os.chown(key, owner, owner)
    key.chmod(mode)
    with pytest.raises(AssertionError) as failed:
        alone.perform(CHECK)
    wanted = "permission denied" if mode == 0o400 else "readable by others"
    assert wanted in str(failed.value)


@pytest.mark.parametrize(("owner", "mode"), [(UID, 0o400), (UID, 0o600), (UID, 0o440), (0, 0o440)])
def test_a_key_of_the_registry_that_is_the_gateways_own_is_taken(alone: Stand, owner: int, mode: int) -> None:
    """Its group, 10001 too, is the gateway's alone."""
    key = alone.machine.here("/srv/presign/secrets/presign_key")
    os.chown(key, owner, UID)
    key.chmod(mode)
    assert "0 errors" in alone.perform(CHECK)


def test_one_container_with_secrets_from_files_serves_as_the_documents_say(alone: Stand) -> None:
    key = alone.machine.here("/srv/presign/secrets/presign_key")
    os.chown(key, UID, UID)
    key.chmod(0o400)
    grant = Grant("conn_file", secret="sk_secret_of_signing_in_a_file_of_root")
    authorities = set()
    statuses = []
    for _ in range(2):  # and once more, with the volume that the first one has left
        alone.follow("Without compose")
        gateway = alone.machine.running["presign"]
        said = alone.machine.wait(gateway, gateway.image.healthcheck)
        assert said == "ready\n"
        statuses += [ask(grant.target("v1/models")).status for _ in range(2)]
        authorities.add(
            (alone.machine.directory / "volumes/presign-state/ca/mitmproxy-ca-cert.pem").read_text()
        )
        gateway.signal()
        assert gateway.finish()[0] == 0
    assert statuses == [200, 200, 200, 429]
    assert alone.upstream.requests[-1].all("authorization") == ["Bearer sk_secret_of_api_in_a_file_of_root"]
    assert (alone.machine.directory / "volumes/presign-state/presign.db").stat().st_uid == UID
    assert len(authorities) == 1


def test_a_registry_opened_by_a_key_in_the_environment(alone: Stand) -> None:
    alone.perform("sudo install -d -o 10001 -g 10001 -m 0700 /srv/presign/other")
    mount = "-v /srv/presign/other:/etc/presign"
    said = alone.perform(f"docker run --rm {mount} presign-proxy init --key-env PRESIGN_KEY")
    key = re.search(r"PRESIGN_KEY=(\S+)", said)[1]
    # Its audit log lies beside it, and is tried.
    assert "0 errors" in alone.perform(f"docker run --rm --env PRESIGN_KEY={key} {mount} presign-proxy check")
    with pytest.raises(AssertionError, match="PRESIGN_KEY"):
        alone.perform(f"docker run --rm {mount}:ro presign-proxy check")
