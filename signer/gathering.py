"""Puts the files of presign-proxy together, when an archive of presign-signer is built.

They lie beside this directory in a checkout, and in it in a source archive, which is a tree of its own.
"""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = "addon/presign_proxy"


class Gathering(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatch's signature
        own = Path(self.root)
        top = own if (own / PACKAGE).is_dir() else own.parent
        into = PACKAGE if self.target_name == "sdist" else "presign_signer"
        for name in self.config["files"]:
            build_data["force_include"][str(top / PACKAGE / name)] = f"{into}/{name}"
