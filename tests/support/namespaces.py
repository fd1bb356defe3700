"""What a container is made of, by hand: mount, PID and network namespaces, and an overlay as the root.

For machines without a container daemon. Needs root. Every mount is made inside of a namespace and ends with
it, so that nothing is left behind, however a test ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

DEVICES = ("null", "zero", "full", "random", "urandom")
_MORTAL = ("setpriv", "--pdeathsig=KILL")
"""Ends what it starts when the tests are killed."""
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_PROBE = """
mount -t tmpfs tmpfs {0}
mkdir {0}/a {0}/b {0}/c {0}/d
mount -t overlay overlay -o lowerdir={0}/a,upperdir={0}/b,workdir={0}/c {0}/d
"""


def why_not(directory: Path) -> str:
    """What this machine lacks, or nothing."""
    if os.name != "posix" or os.geteuid() != 0:
        return "only root can make a root file system"
    for tool in ("unshare", "setpriv", "chroot", "mount"):
        if shutil.which(tool) is None:
            return f"there is no {tool} here"
    argv = ["unshare", "--mount", "--pid", "--fork", "--net", "sh", "-ec", _PROBE.format(directory)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return f"no namespaces or no overlay here: {done.stderr.strip()}" if done.returncode else ""


@dataclass(frozen=True)
class Mount:
    """A path of this machine, seen in a container at `target`."""

    source: Path
    target: str
    read_only: bool = False
    fresh: bool = False
    """A named volume: where it does not exist yet, it begins as a copy of what the image has there."""


@dataclass(frozen=True)
class Root:
    """A root file system: directories, the topmost first; changes go into `upper`."""

    layers: tuple[Path, ...]
    upper: Path

    def script(self, at: Path) -> list[str]:
        self.upper.mkdir(parents=True, exist_ok=True)
        work = self.upper.with_name(f"{self.upper.name}.work")
        work.mkdir(exist_ok=True)
        lower = ":".join(map(str, self.layers))
        options = f"lowerdir={lower},upperdir={self.upper},workdir={work}"
        return [f"mkdir -p {at}", f"mount -t overlay overlay -o {options} {at}"]


def isolated(script: Sequence[str], *, network: str = "host") -> list[str]:
    """An argument vector that runs a shell script of this machine in namespaces of its own.

    Args:
        network: `host`, `none`, or the path of a network namespace.
    """
    argv = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--pid",
        "--fork",
        "--kill-child",
        "--ipc",
        "--uts",
    ]
    argv += ["--net"] if network == "none" else []
    inner = [*argv, "/bin/sh", "-euc", "\n".join(script)]
    return [*_MORTAL, *(["nsenter", f"--net={network}"] if network.startswith("/") else []), *inner]


def furnished(at: Path, mounts: Sequence[Mount], tmpfs: Sequence[str] = ()) -> list[str]:
    """Lines of a script that give a root its /proc, a /dev, and its mounts."""
    lines = [f"mount -t proc proc {at}/proc", f"mount -t tmpfs -o mode=0755 tmpfs {at}/dev"]
    for name in DEVICES:
        lines += [f"touch {at}/dev/{name}", f"mount --bind /dev/{name} {at}/dev/{name}"]
    lines += [f"ln -s /proc/self/fd {at}/dev/fd", f"mkdir -m 1777 {at}/dev/shm"]
    lines += [f"mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs {at}/dev/shm"]
    for place in tmpfs:
        lines += [
            f"mkdir -p {at}{place}",
            f"mount -t tmpfs -o mode=1777,noexec,nosuid,nodev tmpfs {at}{place}",
        ]
    for mount in mounts:
        source, target = shlex.quote(str(mount.source)), shlex.quote(f"{at}{mount.target}")
        if mount.fresh:
            lines += [f"mkdir -p {target}", f"[ -e {source} ] || cp -a {target} {source}"]
        if mount.source.is_file():
            lines += [f"mkdir -p $(dirname {target})", f"[ -e {target} ] || touch {target}"]
        else:
            lines += [f"mkdir -p {target}"]
        lines += [f"mount --bind {source} {target}"]
        if mount.read_only:
            lines += [f"mount -o remount,bind,ro {target}"]
    return lines


def entering(at: Path, argv: Sequence[str], workdir: str, user: str = "0:0", caps: bool = True) -> str:
    """The last line of a script: become the process inside, by exec, with no shell between.

    Args:
        caps: False drops all capabilities for good, and forbids to gain any.
    """
    uid, _, gid = user.partition(":")
    needed = "-all,+sys_chroot,+setuid,+setgid,+dac_read_search"  # to enter; gone with the change of user
    drop = (
        []
        if caps
        else ["--no-new-privs", f"--bounding-set={needed}", "--inh-caps=-all", "--ambient-caps=-all"]
    )
    enter = ["unshare", f"--root={at}", f"--wd={workdir}", f"--setgid={gid or uid}", f"--setuid={uid}", "--"]
    return "exec " + shlex.join(["setpriv", "--clear-groups", *drop, *enter, *argv])


class Network:
    """A network namespace with a loopback of its own: fixed ports in it are nobody else's."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen([*_MORTAL, "unshare", "--net", "sleep", "infinity"])
        self.path = f"/proc/{self._holder.pid}/ns/net"
        while Path(self.path).readlink() == Path("/proc/self/ns/net").readlink():
            time.sleep(0.01)  # until it has left ours
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """For this thread, and for threads and processes that it starts meanwhile."""
        with Path("/proc/thread-self/ns/net").open("rb") as ours, Path(self.path).open("rb") as there:
            os.setns(there.fileno(), os.CLONE_NEWNET)
            try:
                yield
            finally:
                os.setns(ours.fileno(), os.CLONE_NEWNET)

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


def first_child(pid: int) -> int | None:
    """The process that is number 1 in the namespace which `unshare --fork` has made."""
    with contextlib.suppress(OSError):
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        return int(found[0]) if found else None
    return None
