"""Many commands for the price of one start: what a program of its own imports once, it runs again and again.

The command is the real one, in a process of its own, with real files as standard input and output.
"""

import copy
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field

from support.shell import Done, Shell

_RUNNER = """
import json, os, sys
sys.argv = ["presign"]
from presign_proxy.cli import check, connections, explain, init, registry_file, revoke, sign
from presign_proxy.cli.main import main
for line in sys.stdin:
    case = json.loads(line)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(case["stdin"], os.O_RDONLY), 0)
        for fd, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(case[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), fd)
        sys.stdin = open(0, encoding="utf-8")
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        os.chdir(case["cwd"])
        os.environ.update(case["env"])
        try:
            main([os.fsdecode(bytes.fromhex(part)) for part in case["argv"]])
        finally:  # as the interpreter would, the traceback of what was not caught
            if (error := sys.exc_info()[1]) is not None and not isinstance(error, SystemExit):
                sys.excepthook(type(error), error, error.__traceback__)
                sys.stderr.flush()
                os._exit(99)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(error.code or 0 if error else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, flush=True)
"""


@dataclass(frozen=True)
class Case:
    """One command. Arguments may be bytes, which need not be UTF-8."""

    argv: tuple[str | bytes, ...]
    stdin: str | bytes = b""
    env: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"presign {' '.join(repr(part)[:40].strip(chr(39)) for part in self.argv)}"


class Runner:
    """Runs commands in a shell's directory; to be closed."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._child = subprocess.Popen(
            [sys.executable, "-c", _RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=shell.directory,
            env=shell.env,
            text=True,
        )

    def at(self, shell: Shell) -> "Runner":
        """The same program, for another directory."""
        other = copy.copy(self)
        other._shell = shell
        return other

    def run(self, case: Case) -> Done:
        files = {name: self._shell.home / f"runner.{name}" for name in ("stdin", "out", "err")}
        given = case.stdin.encode() if isinstance(case.stdin, str) else case.stdin
        files["stdin"].write_bytes(given)
        argv = [(part.encode() if isinstance(part, str) else part).hex() for part in case.argv]
        order = (
            asdict(case)
            | {name: str(path) for name, path in files.items()}
            | {"argv": argv, "cwd": str(self._shell.directory)}
        )
        assert self._child.stdin
        assert self._child.stdout
        self._child.stdin.write(json.dumps(order) + "\n")
        self._child.stdin.flush()
        code = int(self._child.stdout.readline())
        return Done(code, *(files[name].read_text("utf-8", "replace") for name in ("out", "err")))

    def close(self) -> None:
        self._child.stdin.close()  # type: ignore[union-attr]
        self._child.wait(10)
        self._child.stdout.close()  # type: ignore[union-attr]
