"""Builds images from a Dockerfile and runs them, with namespaces instead of a container daemon.

The base image is a Debian made by debootstrap, of the same release: its Python lies in /usr instead of
/usr/local. Everything else is what the Dockerfile says, instruction by instruction.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.dockerfile import Instruction, Stage, context, pairs, parse
from support.namespaces import Mount, Root, entering, first_child, furnished, isolated
from support.places import ROOT
from support.programs import needs

CACHE = "CONTAINER_CACHE"
"""Names the variable whose directory keeps the Debian and downloaded wheels from one run to the next."""
SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
PATH = "/usr/local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_AT = Path("/mnt")
"""Where roots are mounted, inside of a namespace."""
VALKEY = """
FROM debian AS valkey
RUN apt-get -qq update && apt-get -qq install --no-install-recommends valkey-server >/dev/null
RUN install -d -o 999 -g 999 -m 1777 /data
WORKDIR /data
"""
"""Debian's Valkey, laid out as the image of docker.io is."""


class BuildFailed(Exception):
    """A step of a build ended with an error. The text is the instruction and what it said."""


def debian(cache: Path) -> Path:
    """A Debian with Python, in place of `python:3.13-slim-trixie`. Takes minutes where it is not there."""
    tree = cache / f"debian-{SUITE}"
    if tree.exists():
        return tree
    draft = cache / f"debian-{SUITE}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    wanted = "--include=python3,python3-venv,ca-certificates"
    needs("debootstrap")
    argv = ["debootstrap", "--variant=minbase", wanted, SUITE, str(draft), MIRROR]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"debootstrap: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    # As in the image of docker.io, whose library is not compiled.
    for name in ("python", "python3"):
        (draft / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    for compiled in draft.glob("usr/lib/python3.*/**/__pycache__"):
        shutil.rmtree(compiled)
    return draft.rename(tree)


@dataclass
class Image:
    """What a build ends with."""

    root: tuple[Path, ...]
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    labels: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    volumes: list[str] = field(default_factory=list)
    ports: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"


class Builder:
    """Performs the instructions of a Dockerfile. `steps` says what was done, and how long it took."""

    def __init__(self, base: Path, directory: Path, cache: Path) -> None:
        self._base = base
        self._directory = directory
        self._cache = cache
        self._built: dict[str, Image] = {}
        self.steps: list[tuple[str, float]] = []

    def build(self, text: str) -> Image:
        """The image of the last stage. Raises BuildFailed."""
        stages = parse(text)
        for number, stage in enumerate(stages):
            is_last = stage is stages[-1] and len(stages) > 1
            name = stage.name or f"stage{number}"
            image = self._built[name] = self._stage(stage, name, online=not is_last)
        return image

    def _stage(self, stage: Stage, name: str, *, online: bool) -> Image:
        upper = self._directory / name
        image = Image((upper, self._base))
        for instruction in stage.instructions:
            started = time.monotonic()
            self._perform(instruction, image, Root((self._base,), upper), online)
            self.steps.append((f"{instruction.word} {instruction.text}", time.monotonic() - started))
        return image

    def _perform(self, instruction: Instruction, image: Image, root: Root, online: bool) -> None:
        text = instruction.text
        match instruction.word:
            case "RUN":
                self._run(instruction, image, root, online)
            case "COPY":
                self._copy(instruction, image, root)
            case "ENV":
                image.env |= pairs(text, image.env)
            case "LABEL":
                image.labels |= pairs(text, image.env)
            case "WORKDIR":
                image.workdir = str(Path(image.workdir, text))
                self._script(instruction, [*root.script(_AT), f"mkdir -p {_AT}{image.workdir}"], image)
            case "USER":
                image.user = text
            case "VOLUME":
                image.volumes += instruction.argv
            case "EXPOSE":
                image.ports += text.split()
            case "STOPSIGNAL":
                image.stop_signal = text
            case "ENTRYPOINT":
                image.entrypoint, image.command = instruction.argv, []
            case "CMD":
                image.command = instruction.argv
            case "HEALTHCHECK":
                image.healthcheck = instruction.argv
            case other:
                raise BuildFailed(f"cannot do {other}")

    def _run(self, instruction: Instruction, image: Image, root: Root, online: bool) -> None:
        """By the image's shell, as its user. Only the stages that are thrown away have a network."""
        mounts = [*self._pip(), Mount(self._cache / "pip", "/root/.cache/pip")] if online else []
        (self._cache / "pip").mkdir(exist_ok=True)
        argv = ["/bin/sh", "-c", instruction.text]
        script = [
            *root.script(_AT),
            *furnished(_AT, mounts),
            entering(_AT, argv, image.workdir, image.user),
        ]
        self._script(instruction, script, image, online=online)

    @staticmethod
    def _pip() -> list[Mount]:
        """What pip needs here: names, authorities, its own configuration, and what that names."""
        wanted = {Path("/etc/resolv.conf"), Path("/etc/hosts"), Path("/etc/ssl/certs")}
        settings = [value for name, value in os.environ.items() if name.startswith("PIP_")]
        for path in map(Path, ("/etc/pip.conf", "/etc/xdg/pip/pip.conf", "/root/.config/pip/pip.conf")):
            if path.is_file():
                wanted.add(path)
                settings.append(path.read_text("utf-8"))
        named = {Path(path) for path in re.findall(r"(?:file://)?(/[\w./-]+)", "\n".join(settings))}
        # The pages of an index lead to files beside it.
        named = {path.parent if path.is_file() or path.name == "simple" else path for path in named}
        wanted |= {path for path in named if path.exists()}
        wanted |= {path.resolve() for path in wanted}
        return [Mount(path, str(path), read_only=True) for path in sorted(wanted) if path != Path("/")]

    def _copy(self, instruction: Instruction, image: Image, root: Root) -> None:
        *sources, destination = instruction.text.split()
        script = root.script(_AT)
        if stage := instruction.flags.get("from"):
            origin = self._directory / "from"
            other = Root(self._built[stage].root, self._directory / "scratch")
            script = [*other.script(origin), *script]
        else:
            origin = self._sent()
        target = f"{_AT}{Path(image.workdir, destination)}"
        for source in sources:
            found = f"{origin}/{source.removeprefix('/')}"
            script.append(
                f"if [ -d {found} ]; then mkdir -p {target} && cp -a {found}/. {target}/; "
                f"elif [ -d {target} ] || [ {destination[-1]} = / ]; "
                f"then mkdir -p {target} && cp -a {found} {target}/; else cp -a {found} {target}; fi"
            )
        self._script(instruction, script, image)

    def _sent(self) -> Path:
        """The build's context, owned by root."""
        sent = self._directory / "context"
        for name in [] if sent.exists() else context(ROOT):
            (sent / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, sent / name)
        return sent

    def _script(
        self, instruction: Instruction, script: list[str], image: Image, online: bool = False
    ) -> None:
        outer = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_CERT"))}
        env = {**(outer if online else {}), **image.env}
        argv = isolated(script, network="host" if online else "none")
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr)[-3000:]
            raise BuildFailed(f"{instruction.word} {instruction.text}\nexit code {done.returncode}: {said}")


@dataclass(frozen=True)
class Settings:
    """How a container is run: what `docker run` or a compose file would be told."""

    command: Sequence[str] = ()
    mounts: Sequence[Mount] = ()
    tmpfs: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    network: str = "none"
    read_only: bool = True


class Container:
    """A container: its command is process 1 of its own PID namespace, without capabilities."""

    def __init__(self, image: Image, directory: Path, settings: Settings) -> None:
        directory.mkdir(parents=True)
        self.image = image
        self.settings = settings
        self.log_path = directory / "output.log"
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> Container:
        image, settings = self.image, self.settings
        argv = [*image.entrypoint, *(settings.command or image.command)]
        hosts = self._directory / "hosts"
        hosts.write_text(
            "127.0.0.1 localhost\n" + "".join(f"{at} {name}\n" for name, at in settings.hosts.items())
        )
        mounts = [*settings.mounts, Mount(hosts, "/etc/hosts", read_only=True)]
        taken = {mount.target for mount in mounts}
        mounts += [
            Mount(self._directory / "volumes" / place.strip("/").replace("/", "-"), place, fresh=True)
            for place in image.volumes
            if place not in taken
        ]
        (self._directory / "volumes").mkdir()
        script = [
            *Root(image.root, self.layer).script(_AT),
            *furnished(_AT, mounts, settings.tmpfs),
            *([f"mount -o remount,ro {_AT}"] if settings.read_only else []),
            entering(_AT, argv, image.workdir, settings.user or image.user, caps=False),
        ]
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                isolated(script, network=settings.network),
                env={**image.env, **settings.env},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    @property
    def layer(self) -> Path:
        """What differs from the image: what was written where no volume is."""
        return self._directory / "layer"

    @property
    def pid(self) -> int:
        """This machine's number of its process 1."""
        assert self._child is not None
        while (found := first_child(self._child.pid)) is None and self._child.poll() is None:
            time.sleep(0.01)
        assert found is not None, self.log()
        return found

    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def execute(self, argv: Sequence[str], given: str = "") -> tuple[int, str]:
        """Run a program in it, as `docker exec` and a health check do; its exit code and its output."""
        uid, _, gid = (self.settings.user or self.image.user).partition(":")
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--ipc", "--uts", "--root"]
        drop = ["setpriv", f"--reuid={uid}", f"--regid={gid or uid}", "--clear-groups", "--no-new-privs"]
        done = subprocess.run(
            [*enter, "--", *drop, "--", "env", f"--chdir={self.image.workdir}", *argv],
            env={**self.image.env, **self.settings.env},
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def is_healthy(self) -> tuple[bool, str]:
        code, said = self.execute(self.image.healthcheck)
        return code == 0, said

    def signal(self) -> None:
        """What `docker stop` begins with."""
        os.kill(self.pid, signal.Signals[self.image.stop_signal])

    def finish(self, given: str = "", timeout: float = 60.0) -> tuple[int, str]:
        """Wait for its end; its exit code and what it said."""
        assert self._child is not None
        self._child.communicate(given.encode(), timeout)
        return self._child.returncode, self.log()

    def stop(self) -> None:
        if self._child is None:
            return
        if self._child.poll() is None:
            self._child.kill()  # and by --kill-child all that is inside
        self._child.communicate()  # Closes the pipe to its input, also where it has ended by itself.
