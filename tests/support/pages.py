"""The commands of a page, as a reader types them: in a shell that remembers, before a real gateway.

Every block of a page that is marked `console` is a transcript (`support.transcript`), with what suits a page:

* `…` within a line stands for any text;
* a command may go on behind a `\\` at the end of its line;
* `<!-- machine: teammate -->` before a block: it is typed on another machine, with a home of its own;
* `presign serve` and `mitmdump` stay in the foreground of a terminal of their own, until the page ends;
* what asks for an API key or for a signing secret is answered.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from support.places import ROOT
from support.process import Process, free_port
from support.programs import needs
from support.proxy import FAKE_DNS
from support.shell import Done, Shell
from support.transcript import Step, check, steps

API_KEY = "sk-REALSECRET-of-the-page-0123456789"
IMPORTED_SECRET = "sk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
"""What is typed as a signing secret before the page has shown one."""
OWNER = "owner"
"""The machine of whoever holds the API key; a block that names no machine is typed there."""
SECONDS = 60.0
_PUBLIC = "93.184.216.34"
"""The address of all that the pages name. Sources may not have a private one."""

_BLOCK = re.compile(
    r"(?:^ *<!-- machine: ([a-z]+) -->\n+)?^( *)```console\n(.*?)^ *```", re.MULTILINE | re.DOTALL
)
_NEW = "/opt/presign-new/bin/presign"
"""Where the page about upgrades installs the next version."""
_SERVES = re.compile(rf"(?:{_NEW}|presign) serve\b|mitmdump\b")
_LAGS = re.compile(rf"(?:{_NEW}|presign) (?:serve|audit)\b|mitmdump\b|sleep |curl \"\$\(presign sign ")
_PROMPT = re.compile(r"(?:new )?(?P<what>API key|signing secret)\b.*:\Z", re.IGNORECASE)
_SECRET = re.compile(r"sk_[A-Za-z0-9_-]{43}")
# Before each command: a machine of the pages, with their port, their names and an authority for those, and
# what the commands before it have left.
_MACHINE = """
presign() {{
    case " $* " in
        *" --listen "* | *" --base "*) local port= ;;
        *) local port=127.0.0.1:{port} ;;
    esac
    case "$1" in
        sign | convert) command presign "$@" ${{port:+--base "http://$port"}} ;;
        run) command presign run ${{port:+--base "http://$port"}} "${{@:2}}" ;;
        serve) _serve presign "$@" ${{port:+--listen "$port"}} --upstream-ca {ca} ;;
        *) command presign "$@" ;;
    esac
}}
{new}() {{ presign "$@"; }}
mitmdump() {{
    _serve {mitmdump} --listen-port {port} --set ssl_verify_upstream_trusted_ca={ca} "$@"
}}
_serve() {{
    export WITHOUT_UVLOOP=1 FAKE_DNS={dns} FAKE_ROUTES={routes} PYTHONPATH={path} PYTHONUNBUFFERED=1
    exec "$@"
}}
[ ! -e "$HOME/.left" ] || . "$HOME/.left"
"""
# After it: its variables, and its directory.
_REMEMBER = """
trap '{ declare -p | grep -v "^declare -[a-zA-Z]*r"; printf "cd %q\\n" "$PWD"; } >"$HOME/.left"' EXIT
"""


class Typed(NamedTuple):
    """A command of a page, where it is typed, and what it printed."""

    machine: str
    step: Step
    out: str


class World(NamedTuple):
    """What the pages' machines find around them."""

    ca: Path
    """The authority of the upstreams."""
    names: Iterable[str]
    port: int
    """Where all these names are served."""


def written(text: str) -> Iterator[tuple[str, Step]]:
    """The commands of a page, each with the machine that it is for."""
    for block in _BLOCK.finditer(text):
        machine, indent, body = block.groups()
        unindented = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
        for step in steps(re.sub(r"\\\n *", "", unindented)):
            step.line += text.count("\n", 0, block.start(3))
            step.output = [line if line == "…" else line.replace("…", "<any>") for line in step.output]
            yield machine or OWNER, step


class Reader:
    """Plays a page from its first command to its last. A context manager: what was started ends."""

    def __init__(self, directory: Path, world: World) -> None:
        needs("bash")
        self.port, self.admin_port, self.page_port = free_port(), free_port(), free_port()
        self._directory, self._world = directory, world
        self._machines: dict[str, Shell] = {}
        self._gateways: list[Process] = []
        self._secret = ""
        self._bound: dict[str, str] = {}

    def play(self, text: str, name: str) -> list[Typed]:
        """Raises AssertionError at the first command that does something else than the page says."""
        return [self._type(machine, step, name) for machine, step in written(self._placed(text))]

    def variable(self, name: str) -> str:
        """What a variable of the owner's shell holds, once the page was played."""
        return self._run(_REMEMBER + f'printf %s "${name}"', self._machine(OWNER), []).out

    @property
    def secret(self) -> str:
        """The last signing secret that was shown."""
        return self._secret

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for gateway in self._gateways:
            gateway.stop()

    def _placed(self, text: str) -> str:
        """Tests run side by side, so each has ports of its own."""
        for written, own in (("8080", self.port), ("9464", self.admin_port), ("8000", self.page_port)):
            text = text.replace(written, str(own))
        return text

    def _type(self, machine: str, step: Step, name: str) -> Typed:
        shell = self._machine(machine)
        if _SERVES.match(step.command):
            return Typed(machine, step, self._serve(step, shell, name))
        answers = [self._answer(found["what"]) for line in step.output if (found := _PROMPT.match(line))]
        done = self._until_it_shows(step, lambda: self._run(_REMEMBER + step.command, shell, answers), name)
        self._secret = (_SECRET.findall(done.out) or [self._secret])[-1]
        return Typed(machine, step, done.out)

    def _until_it_shows(self, step: Step, run: Callable[[], Done], name: str) -> Done:
        """What it printed. A gateway's last line comes after its port, an audit line after its answer; and
        on a machine that has much else to do, a change is noticed later than in the second that a page waits.
        """
        deadline = time.monotonic() + SECONDS
        while True:
            done = run()
            try:
                self._bound = check(step, done, self._bound, name)
                return done
            except AssertionError:
                if not _LAGS.match(step.command) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _answer(self, what: str) -> str:
        return API_KEY if what.lower() == "api key" else self._secret or IMPORTED_SECRET

    @staticmethod
    def _run(script: str, shell: Shell, answers: list[str]) -> Done:
        # Pages show no colours.
        done = (
            shell.terminal(["bash", "-c", script], answers, NO_COLOR="1") if answers else shell.bash(script)
        )
        # A prompt ends with a blank and a line of HTTP with CR, which no editor leaves in a page.
        return Done(done.code, re.sub(r"(?<=:) $|\r$", "", done.out, flags=re.MULTILINE))

    def _serve(self, step: Step, shell: Shell, name: str) -> str:
        log = shell.directory.parent / f"gateway{len(self._gateways)}.log"
        port = int(found[1]) if (found := re.search(r":(\d+)", step.command)) else self.port
        argv = ["bash", "-c", step.command]
        gateway = Process(argv, port, log, shell.env, shell.directory)
        self._gateways.append(gateway)
        gateway.start()
        first = slice(len(step.output))  # later lines come when they come
        return self._until_it_shows(
            step, lambda: Done(0, "".join(gateway.log().splitlines(keepends=True)[first])), name
        ).out

    def _machine(self, name: str) -> Shell:
        if name not in self._machines:
            self._machines[name] = self._new_machine(name)
        return self._machines[name]

    def _new_machine(self, name: str) -> Shell:
        (directory := self._directory / name).mkdir()
        shell = Shell(directory)
        (shell.home / ".curlrc").write_text("silent\nshow-error\n")  # its meter is for terminals
        facts = {
            "port": self.port,
            "ca": self._world.ca,
            "dns": json.dumps({name: [_PUBLIC] for name in self._world.names}),
            "routes": json.dumps({_PUBLIC: f"127.0.0.1#{self._world.port}"}),
            "mitmdump": Path(sys.executable).parent / "mitmdump",
            "new": _NEW,
            "path": os.pathsep.join([str(FAKE_DNS), str(ROOT / "addon")]),
        }
        quoted = {name: shlex.quote(str(fact)) for name, fact in facts.items()}
        (shell.home / ".profile").write_text(_MACHINE.format(**quoted))
        return shell
