"""A file system that hangs, for one process and its children: a small library that is loaded first."""

import subprocess
from pathlib import Path

from support.programs import find, needs

_SOURCE = Path(__file__).with_name("hanging.c")


class Hanging:
    """While it `hangs`, whoever looks at a path that begins with `below`, or opens it, waits."""

    def __init__(self, directory: Path, below: str) -> None:
        needs("cc", "/proc")
        self._library = directory / "hanging.so"
        self._flag = directory / "hangs"
        self._below = below
        compiler = find("cc")
        assert compiler
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=60)

    @property
    def env(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "HANG_BELOW": self._below,
            "HANG_WHILE": str(self._flag),
        }

    def hang(self) -> None:
        self._flag.touch()

    def go_on(self) -> None:
        self._flag.unlink(missing_ok=True)
