"""The image and the compose file: whether they agree with each other and with the documents.

What they do is shown by repository/test_container_runs.py.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from presign_proxy.cli.main import main
from presign_proxy.config.load import load
from support import container
from support.compose import HOST, services
from support.dockerfile import Ignored, Stage, context, parse
from support.documents import DOCS, commands
from support.places import ROOT

TEXT = (ROOT / "deploy/Dockerfile").read_text("utf-8")
STAGES = parse(TEXT)
FINAL = STAGES[-1]
CONFIG = ROOT / "deploy/config.compose.yaml"
SECTION = DOCS["running.md"].partition("## In a container\n")[2].partition("\n## ")[0]
COMMANDS = commands(SECTION)
COMPOSE = services()
GATEWAY = COMPOSE["services"]["gateway"]
UID = "10001"
PORT = 8080


# -- the files, beside each other ---------------------------------------------------------------------------


def test_the_gateway_is_never_root_and_needs_no_shell() -> None:
    assert FINAL.the("USER").text == f"{UID}:{UID}"
    words = [one.word for one in FINAL.instructions]
    assert words.index("USER") > max(at for at, word in enumerate(words) if word in ("RUN", "COPY"))
    assert FINAL.the("ENTRYPOINT").argv == ["presign"]
    assert FINAL.the("CMD").argv[0] == "serve"
    assert FINAL.the("HEALTHCHECK").argv[0] == "python"
    assert FINAL.the("STOPSIGNAL").text == "SIGTERM"


def test_every_stage_stands_on_one_named_debian() -> None:
    assert {stage.base for stage in STAGES} == {f"python:3.13-slim-{container.SUITE}"}


def installs(stage: Stage) -> list[str]:
    steps = [step for one in stage.all("RUN") for step in one.text.split("&&")]
    return [step for step in steps if re.search(r"\bpip\b.* (install|wheel) ", step)]


def test_nothing_is_installed_that_the_lock_does_not_name_by_its_hash() -> None:
    found = [step for stage in STAGES for step in installs(stage)]
    assert len(found) == 4
    for step in found:
        assert "--no-deps" in step
        assert "--no-index" in step or ("--require-hashes" in step and "--only-binary :all:" in step)
    assert not installs(FINAL)
    assert "apt-get" not in TEXT


def test_the_build_backend_is_in_the_lock_by_its_hashes() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    locked = (ROOT / "requirements/build.txt").read_text("utf-8")
    for name in (re.split("[>=]", one)[0] for one in wanted):
        assert re.search(rf"^{name}==\S+ \\\n    --hash=sha256:", locked, re.MULTILINE), name


def test_the_version_of_the_image_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (label,) = FINAL.all("LABEL")
    assert f'image.version="{project["version"]}"' in label.text
    assert f'image.licenses="{project["license"]}"' in label.text


def test_what_is_copied_is_there_and_is_sent_to_the_build() -> None:
    sent = set(context(ROOT))
    for stage in STAGES:
        for one in stage.all("COPY"):
            if "from" in one.flags:
                assert one.flags["from"] in {stage.name for stage in STAGES}
                continue
            for source in one.text.split()[:-1]:
                assert any(name == source or name.startswith(f"{source}/") for name in sent), source


def test_a_secret_that_lies_in_a_work_tree_is_not_sent_to_a_build(tmp_path: Path) -> None:
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    package = "addon/presign_proxy"
    wanted = [
        f"{package}/cli/sign.py",
        f"{package}/config/presets/providers.json",
        "requirements/serve.txt",
        "requirements/build.txt",
        "config.example.yaml",
        "LICENSE",
    ]
    unwanted = [
        *("config.yaml", "connections.enc", "presign.key", ".env", ".git/config", "deploy/compose.yaml"),
        *("tests/test_x.py", "addon/presign.py", "audit.jsonl", f"{package}/cli/__pycache__/signing.pyc"),
        *("requirements/run.txt", "nested/LICENSE"),
    ]
    for name in wanted + unwanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(context(tmp_path)) == sorted(wanted)


def test_the_last_pattern_that_matches_a_path_decides() -> None:
    """Of the reader that these tests lean on: as Docker documents it."""
    ignored = Ignored("# all\n*\n!docs\ndocs/*.tmp\n**/secret\n")
    for path, expected in {
        "README.md": True,
        "docs/running.md": False,
        "docs/a.tmp": True,
        "docs/deep/a.tmp": False,
        "docs/deep/secret": True,
        "docs/secret/inside": True,
        "secret": True,
    }.items():
        assert (path in ignored) is expected, path


@pytest.mark.parametrize("line", ["ADD https://x.test /", "HEALTHCHECK NONE", "RUN <<EOF", "ENV A=1 \\"])
def test_an_instruction_that_the_proof_cannot_perform_fails_it(line: str) -> None:
    with pytest.raises(ValueError):
        parse(f"FROM scratch\n{line}\n")


def option(name: str, argv: list[str]) -> str:
    """`--name VALUE` or `--name=VALUE`."""
    joined = " ".join(argv)
    return re.search(rf"{name}[ =](\S+)", joined)[1]


@pytest.mark.parametrize("argv", [FINAL.the("CMD").argv, GATEWAY["command"]], ids=["image", "compose"])
def test_the_gateway_reads_and_writes_where_volumes_are(argv: list[str]) -> None:
    assert argv[0] == "serve"
    assert option("--config", argv) == "/etc/presign/config.yaml"
    assert option("--confdir", argv) == "/var/lib/presign/ca"
    assert option("--listen", argv) == f"0.0.0.0:{FINAL.the('EXPOSE').text}" == f"0.0.0.0:{PORT}"
    assert FINAL.the("VOLUME").argv == ["/var/lib/presign"]
    assert {volume.split(":")[1] for volume in GATEWAY["volumes"]} == {"/etc/presign", "/var/lib/presign"}


def test_nothing_in_the_compose_file_may_do_more_than_it_needs() -> None:
    for name, service in COMPOSE["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["image"].endswith(":latest"), name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys(), name
    assert GATEWAY["volumes"][0].endswith(":/etc/presign:ro")
    assert COMPOSE["services"]["presign"]["network_mode"] == "none"
    assert GATEWAY["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]


def test_the_store_of_limits_is_durable_and_reached_by_nobody_else() -> None:
    valkey = COMPOSE["services"]["valkey"]
    assert "ports" not in valkey
    assert valkey["networks"] == ["store"]
    assert COMPOSE["networks"]["store"] == {"internal": True}
    assert [name for name, one in COMPOSE["services"].items() if "store" in one.get("networks", ())] == [
        "gateway",
        "valkey",
    ]
    assert re.fullmatch(r"valkey/valkey:\d+\.\d+", valkey["image"])
    command = valkey["command"]
    told = dict(zip(command[1::2], command[2::2], strict=True))
    # What docs/limits.md asks for.
    assert (told["--appendonly"], told["--appendfsync"]) == ("yes", "always")
    assert told["--maxmemory-policy"] == "noeviction"
    assert valkey["volumes"] == ["valkey:/data"]
    assert set(COMPOSE["volumes"]) == {"state", "valkey"}


def test_compose_asks_for_health_as_the_image_does_and_waits_for_a_drain() -> None:
    assert GATEWAY["healthcheck"]["test"] == ["CMD", *FINAL.the("HEALTHCHECK").argv]
    drain = int(option("--drain", GATEWAY["command"]).removesuffix("s"))
    assert int(GATEWAY["stop_grace_period"].removesuffix("s")) >= drain + 10
    assert f"--stop-timeout {GATEWAY['stop_grace_period'].removesuffix('s')}" in SECTION


def test_the_configuration_for_the_container_loads_without_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert CliRunner().invoke(main, ["init", "--config", str(tmp_path / "config.yaml")]).exit_code == 0
    text = CONFIG.read_text("utf-8").replace("/run/secrets/presign_key", str(tmp_path / "presign.key"))
    (tmp_path / "config.yaml").write_text(text, "utf-8")
    found = load(tmp_path / "config.yaml", {}, "closed")
    assert found.warnings == ()
    assert found.registry.deny_unsigned


def test_the_configuration_agrees_with_the_compose_file() -> None:
    text = CONFIG.read_text("utf-8")
    for service in ("gateway", "presign"):
        assert [f"/run/secrets/{name}" for name in COMPOSE["services"][service]["secrets"]] == re.findall(
            r"/run/secrets/\w+", text
        )
    assert f"store: redis://{next(iter(GATEWAY['depends_on']))}:6379" in text
    assert f"{HOST}/config/config.yaml" in text


def test_the_documents_speak_of_the_same_paths_numbers_and_services() -> None:
    flat = " ".join(SECTION.split())
    assert f"`{' '.join(FINAL.the('CMD').argv)}`" in flat
    assert f"user {UID}, group {UID}" in flat
    files = {COMPOSE["secrets"]["presign_key"]["file"], *(one.split(":")[0] for one in GATEWAY["volumes"])}
    for path in files - {"state"}:
        assert path in SECTION, path
    named = re.findall(r"docker compose (?:run --rm|logs|cp|kill --signal HUP) (\w+)", SECTION)
    assert set(named) == {"presign", "gateway"} < COMPOSE["services"].keys()
    (plain,) = [line for line in COMMANDS if "--detach --name" in line]
    for wanted in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges", "--tmpfs /tmp"):
        assert wanted in plain
