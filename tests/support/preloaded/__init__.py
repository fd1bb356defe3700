"""Commands that start at once: a process that has imported `presign` forks for each of them.

Tests run hundreds of commands, and each would import for most of a second. What is forked is the command
as it is after its imports, with the arguments, directory, environment, umask, limits and open files of its
caller.

Where the start itself matters, client.py starts Python as ever: on a terminal, for a gateway, for another
user, and in an environment that changes how Python starts.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ADDON = Path(__file__).resolve().parents[3] / "addon"
_HERE = Path(__file__).parent


def command(*start: str) -> list[str]:
    """What runs `presign` by the server of this test process.

    Args:
        start: what stands between `python` and the arguments; without any, the first argument is a script.
    """
    facts = {"server": _server(), "uid": os.geteuid(), "addon": str(ADDON), "start": start}
    return [sys.executable, "-I", "-S", str(_HERE / "client.py"), json.dumps(facts)]


@cache
def _server() -> str:
    """The address of the server, which ends with this test process."""
    directory = Path(tempfile.mkdtemp(prefix="presign-"))
    address = directory / "commands"
    child = subprocess.Popen(
        [sys.executable, str(_HERE / "server.py"), str(address)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ADDON), "LANG": "C.UTF-8", "PATH": os.defpath},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"

    def end() -> None:
        child.communicate()
        address.unlink()
        directory.rmdir()

    atexit.register(end)
    return str(address)
