"""Runs the services of deploy/compose.yaml, and `docker run`, as docs/running.md says them."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from support.container import Container, Image, Settings
from support.namespaces import Mount, Network
from support.places import ROOT

FILE = ROOT / "deploy/compose.yaml"
HOST = "/srv/presign"
"""The directory of this machine that the documents speak of."""
NOT_PERFORMED = {
    "image",
    "build",
    "init",
    "restart",
    "security_opt",
    "cap_drop",
    "stop_grace_period",
    "ports",
}
NOT_PERFORMED |= {"networks", "depends_on", "ulimits", "logging", "profiles"}
"""Keys of a service that are not performed here, or always are: no container here has capabilities."""
PERFORMED = {"command", "healthcheck", "network_mode", "read_only", "secrets", "tmpfs", "user", "volumes"}
_FLAGS = ("--rm", "--detach", "--init", "--read-only")


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return found


class Machine:
    """A machine with images, volumes, one network, and containers that run."""

    def __init__(self, directory: Path, images: dict[str, Image]) -> None:
        self.directory = directory
        self.images = images
        self.network = Network()
        self.running: dict[str, Container] = {}
        self._started: list[Container] = []
        (directory / "volumes").mkdir()

    def here(self, path: str) -> Path:
        """Where a path of the documents' machine is."""
        return Path(path.replace(HOST, str(self.directory / "host"), 1))

    def perform(self, line: str, given: str = "") -> str:
        """Do what a line of the documents says; what it prints. Raises AssertionError where it fails."""
        match shlex.split(line):
            case ["docker", "run", *words]:
                return self._docker_run(words, given)
            case ["docker", "compose", "run", "--rm", service, *words]:
                return self._ended(self.start(service, self._settings(service, words)), given)
            case ["docker", "compose", "up", "--detach", "--wait"]:
                return self._up()
            case ["docker", "compose", "cp", source, target]:
                return self._copied(*source.split(":"), self.directory / target)
            case ["sudo", *words]:
                argv = [word.replace(HOST, str(self.directory / "host")) for word in words]
                subprocess.run(argv, cwd=ROOT, check=True)
                return ""
            case ["docker", "build", "--file", "deploy/Dockerfile", "--tag", name, "."]:
                assert name in self.images  # which was built from it
                return ""
            case ["cd", "deploy"]:
                return ""
        raise AssertionError(f"not a line of the documents: {line}")

    def _docker_run(self, words: Sequence[str], given: str) -> str:
        flags, options, rest = set(), [], list(words)
        while rest[0].startswith("-"):
            word = rest.pop(0)
            if word in _FLAGS:
                flags.add(word)
            else:
                options.append((word, rest.pop(0)))
        image, *command = rest
        settings = Settings(
            command,
            [self._mount(value) for name, value in options if name == "-v"],
            [value for name, value in options if name == "--tmpfs"],
            dict(value.partition("=")[::2] for name, value in options if name == "--env"),
            network=self.network.path,
            read_only="--read-only" in flags,
        )
        container = self.start(image, settings)
        if "--detach" not in flags:
            return self._ended(container, given)
        self.running[dict(options)["--name"]] = container
        return ""

    def _settings(self, service: str, command: Sequence[str] = ()) -> Settings:
        document = services()
        wanted = document["services"][service]
        assert wanted.keys() <= PERFORMED | NOT_PERFORMED, wanted.keys()
        files = document["secrets"]
        secrets = [
            Mount(self.here(files[name]["file"]), f"/run/secrets/{name}", read_only=True)
            for name in wanted.get("secrets", [])
        ]
        return Settings(
            list(command or wanted.get("command", [])),
            [*map(self._mount, wanted["volumes"]), *secrets],
            wanted.get("tmpfs", []),
            hosts=dict.fromkeys(document["services"], "127.0.0.1"),
            user=wanted.get("user", ""),
            network=wanted.get("network_mode", self.network.path),
            read_only=wanted["read_only"],
        )

    def _mount(self, text: str) -> Mount:
        source, target, *more = text.split(":")
        if source.startswith("/"):
            return Mount(self.here(source), target, read_only=more == ["ro"])
        return Mount(self.directory / "volumes" / source, target, read_only=more == ["ro"], fresh=True)

    def start(self, name: str, settings: Settings) -> Container:
        """Start a container of a service, or of an image."""
        image = services()["services"].get(name, {}).get("image", name)
        where = self.directory / f"{name}-{len(self._started)}"
        container = Container(self.images[image], where, settings)
        self._started.append(container)
        return container.start()

    @staticmethod
    def _ended(container: Container, given: str) -> str:
        code, said = container.finish(given)
        assert code == 0, said
        return said

    def _up(self) -> str:
        """In the order of `depends_on`, each once the one before it is healthy."""
        document = services()["services"]
        assert list(document["gateway"]["depends_on"]) == ["valkey"]
        self.up("valkey")
        self.up("gateway")
        return ""

    def up(self, name: str) -> None:
        """Start a service, and wait until it is healthy."""
        container = self.running[name] = self.start(name, self._settings(name))
        kind, *check = services()["services"][name]["healthcheck"]["test"]
        assert kind == "CMD"
        self.wait(container, check)

    @staticmethod
    def wait(container: Container, check: Sequence[str], timeout: float = 90.0) -> str:
        """Until a container is healthy; what its check says then."""
        deadline = time.monotonic() + timeout
        while True:
            code, said = container.execute(check)
            if code == 0:
                return said
            assert time.monotonic() < deadline, f"{said}\n{container.log()}"
            time.sleep(0.2)

    def _copied(self, service: str, path: str, target: Path) -> str:
        code, text = self.running[service].execute(["cat", path])
        assert code == 0, text
        target.write_text(text)
        return ""

    def close(self) -> None:
        for container in self._started:
            container.stop()
        self.network.close()
