"""What systemd makes of a unit, by hand: user, environment, directories, sockets, readiness.

Run as root in mount and network namespaces of its own: `python systemd.py SERVICE SOCKET` returns once the
service is ready, and leaves it running.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

# The Python of the tests may lie where another user cannot read it. This one may read all, and write nothing.
READING = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
BOUNDING = "--bounding-set=-all,+dac_read_search"
STATE = "/var/lib"
_READY = 60.0
"""Seconds."""
# ProtectSystem=strict. Nothing is hidden: the checkout and its Python may lie anywhere.
_STRICT = """
mount --bind {state} {state}
awk '{{ print $5 }}' /proc/self/mountinfo | while read -r place; do
  case "$place" in {state}|/proc|/proc/*|/sys|/sys/*|/dev|/dev/*) ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || : ;;
  esac
done
for place in /etc /opt /usr /var; do
  if touch $place/.written 2>/dev/null; then echo "$place can be written" >&2; exit 1; fi
done
cd {directory}
LISTEN_PID=$$ exec setpriv --reuid={user} --regid={group} --init-groups --no-new-privs {caps} -- {argv}
"""


class Unit:
    """A unit file: its directives by section, each as often as it is given."""

    def __init__(self, text: str) -> None:
        self.sections: dict[str, dict[str, list[str]]] = {}
        section: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.startswith("["):
                section = self.sections.setdefault(line.strip("[]"), {})
            elif line and line[0] not in "#;":
                name, equals, value = line.partition("=")
                if not equals or not name.isalnum():
                    raise ValueError(f"not a directive: {line}")
                section.setdefault(name, []).append(value)

    def all(self, section: str, name: str) -> list[str]:
        return self.sections[section].get(name, [])

    def one(self, name: str, default: str | None = None) -> str:
        """A directive of the service."""
        found = self.all("Service", name)
        if default is not None and not found:
            return default
        (value,) = found
        return value


def environment(service: Unit, notify: str) -> dict[str, str]:
    """systemd.exec(5): nothing of ours but the PATH."""
    user = pwd.getpwnam(service.one("User"))
    given = dict(
        line.split("=", 1) for text in service.all("Service", "Environment") for line in shlex.split(text)
    )
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
        "LANG": "C.UTF-8",
        "USER": user.pw_name,
        "LOGNAME": user.pw_name,
        "HOME": user.pw_dir,
        "SHELL": user.pw_shell,
        "NOTIFY_SOCKET": notify,
        "STATE_DIRECTORY": f"{STATE}/{service.one('StateDirectory')}",
        **given,
    }


def sockets_of(unit: Unit) -> list[socket.socket]:
    found = []
    for place in unit.all("Socket", "ListenStream"):
        host, _, port = place.rpartition(":")
        if host.startswith("["):
            found.append(socket.create_server((host.strip("[]"), int(port)), family=socket.AF_INET6))
        else:
            found.append(socket.create_server((host, int(port))))
    return found


def start(service: Unit, listening: Unit) -> int:
    """Returns the process id of the service, once it says that it is ready. Raises RuntimeError."""
    state = f"{STATE}/{service.one('StateDirectory')}"
    user, group = service.one("User"), service.one("Group")
    Path(state).mkdir(exist_ok=True)
    Path(state).chmod(int(service.one("StateDirectoryMode", "0755"), 8))
    uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid
    os.chown(state, uid, gid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(0.5)
        notify = f"{state}/notify"
        notified.bind(notify)
        os.chown(notify, uid, gid)
        sockets = sockets_of(listening)
        script = _STRICT.format(
            state=state,
            directory=service.one("WorkingDirectory", "/"),
            user=user,
            group=group,
            caps=shlex.join([*READING, BOUNDING]),
            argv=service.one("ExecStart"),
        )
        child = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _handing_over(sockets, script)],
            env=environment(service, notify) | {"LISTEN_FDS": str(len(sockets))},
            stdin=subprocess.DEVNULL,
            pass_fds=[one.fileno() for one in sockets],
            umask=int(service.one("UMask", "0022"), 8),
        )
        ends = time.monotonic() + _READY
        while child.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notified.recv(4096).splitlines():
                    return child.pid
    raise RuntimeError(f"it is not ready; exit code {child.poll()}")


def _handing_over(sockets: list[socket.socket], script: str) -> str:
    """Descriptors from 3 on, as sd_listen_fds(3) has it. Those of Popen are higher."""
    moved = "".join(f"exec {at}<&{one.fileno()}\n" for at, one in enumerate(sockets, 3))
    return moved + script


def main() -> None:
    service, listening = (Unit(Path(path).read_text("utf-8")) for path in sys.argv[1:3])
    print(f"pid {start(service, listening)}", flush=True)


if __name__ == "__main__":
    main()
