"""What a program has to trust: the system's authorities and the gateway's, in the files that it reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.path import expanded
from . import java
from .authorities import bundle, system_authorities, unique, write_public
from .environment import CA, has_tls, of_authorities
from .place import Place

if TYPE_CHECKING:
    from .workspace import Workspace


def authorities_for(
    workspace: Workspace | None, place: Place, base: str, ca: str, *, proxied: bool
) -> list[str]:
    """Return the authorities that the program needs; empty if it needs none but those it has anyway.

    Raises Failure, ConfigError.
    """
    from .gateway_authorities import interception, own_certificate

    if not proxied and not has_tls(base):
        return []
    found = system_authorities(place.environ)
    file = expanded(ca).absolute()
    # A gateway with a public certificate needs no authority of its own if it intercepts nothing.
    if proxied or ca != CA or file.exists():
        found += interception(file)
    if has_tls(base):
        found += own_certificate(workspace, found).authorities
    return unique(found)


def trusting(
    before: Mapping[str, str],
    certificates: list[str],
    directory: Path,
    base: str,
    *,
    proxied: bool,
    local: bool,
) -> dict[str, str]:
    """Write the authorities to a directory, and return the variables that name them; {} without any."""
    if not certificates:
        return {}
    file, store = written(before, certificates, directory)
    found = of_authorities(os.fspath(file))
    if store is not None:
        found[java.OPTIONS] = java.options(before, store, base, proxied=proxied, local=local)
    return found


def written(
    environ: Mapping[str, str], certificates: Sequence[str], directory: Path
) -> tuple[Path, Path | None]:
    """Write the authorities to a directory. Return their file, and the trust store of Java if it is here.

    Raises OSError.
    """
    file, store = directory / "authorities.pem", directory / "authorities.p12"
    write_public(file, bundle(certificates).encode("ascii"))
    if not java.is_installed(environ):
        return file, None
    write_public(store, java.trust_store(certificates))
    return file, store
