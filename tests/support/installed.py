"""The package as pip would install it: a wheel, unpacked into a virtual environment of its own."""

import functools
import subprocess
import sys
import tempfile
import venv
import zipfile
from configparser import ConfigParser
from pathlib import Path

import mitmproxy

from support.places import ROOT

# As pip writes it where the path of Python has blanks, which `#!` cannot name.
_SCRIPT = """\
#!/bin/sh
'''exec' "{scripts}/python" "$0" "$@"
' '''
import sys
from {module} import {name}

sys.exit({name}())
"""
MITMDUMP = "mitmproxy.tools.main:mitmdump"


@functools.cache
def wheel() -> Path:
    """Built from this tree, with the build backend that is installed here; nothing is downloaded."""
    directory = tempfile.mkdtemp(prefix="presign-wheel-")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = Path(directory).glob("*.whl")
    return found


def install(directory: Path) -> Path:
    """Install the wheel into a new environment; returns its directory of scripts.

    What the package needs is taken from the environment of the tests, in which the package itself is not
    looked for: only an installer reads the line that leads from there to this tree.
    """
    venv.create(directory, symlinks=True)
    packages = next(directory.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel()) as archive:
        archive.extractall(packages)
    (packages / "dependencies.pth").write_text(f"{Path(mitmproxy.__file__).parents[1]}\n", "utf-8")
    entries = ConfigParser()
    entries.read(next(packages.glob("presign_proxy-*.dist-info/entry_points.txt")), "utf-8")
    scripts = directory / "bin"
    for command, where in (*entries["console_scripts"].items(), ("mitmdump", MITMDUMP)):
        module, name = where.split(":")
        path = scripts / command
        path.write_text(_SCRIPT.format(scripts=scripts, module=module, name=name), "utf-8")
        path.chmod(0o755)
    return scripts
