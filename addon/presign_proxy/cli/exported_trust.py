"""The file of authorities that `--as env` exports: the system's and the gateway's, in a place that stays."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..config.path import expanded
from ..config.permissions import why_not_own
from .authorities import bundle, system_authorities, unique
from .environment import CA, has_tls
from .gateway_authorities import OwnCertificate, interception, own_certificate
from .place import Failure
from .program_trust import written

if TYPE_CHECKING:
    from .workspace import Workspace

_DATA: Final = "~/.local/share"
_MAKE_ONE: Final = "make the file yourself with `presign ca --bundle FILE`, and name it with --ca"


class ExportedTrust(NamedTuple):
    """What programs have to read.

    Args:
        file: the authorities, for the variables that name such a file.
        gateway: the file of the gateway's authority alone; None if only a bundle is known.
        store: the same as `file` for Java, if it is on this machine.
    """

    file: Path
    gateway: Path | None = None
    store: Path | None = None
    remarks: Sequence[str] = ()


def exported_trust(
    workspace: Workspace | None, environ: Mapping[str, str], base: str, ca: str
) -> ExportedTrust:
    """Return what to export for the gateway at `base`. Raises Failure, ConfigError.

    Args:
        workspace: the configuration of the gateway; None if it is elsewhere.
        ca: a file with the gateway's authority alone, or a bundle, which is exported as it is.
    """
    file = expanded(ca).absolute()
    system = system_authorities(environ)
    if not _is_here(file):
        if ca != CA:
            return ExportedTrust(file, remarks=[_elsewhere(ca)])
        gateway, remarks = [], [_not_yet(ca)]
    else:
        gateway, remarks = interception(file), []
        if _is_bundle(gateway, system):
            return ExportedTrust(file, remarks=_of_tls(base, ca, OwnCertificate()))
    found = unique([*system, *gateway])
    own = OwnCertificate()
    if has_tls(base):
        own = own_certificate(workspace, found)
        found = unique([*found, *own.authorities])
    bundled, store = _kept(environ, found)
    return ExportedTrust(bundled, file, store if gateway else None, [*remarks, *_of_tls(base, ca, own)])


def _is_here(file: Path) -> bool:
    """Return whether this account can read the file. One of another account or machine need not be here."""
    return os.access(file, os.R_OK)


def _is_bundle(certificates: Sequence[str], system: Sequence[str]) -> bool:
    """Return whether these are more than the gateway's own.

    The gateway's authority may be one of the system's. Bundles of two systems differ, but not by half.
    """
    return 2 * len(set(certificates) & set(system)) > len(set(system))


def _kept(environ: Mapping[str, str], certificates: Sequence[str]) -> tuple[Path, Path | None]:
    """Write the authorities to a directory that is named after them. Raises Failure.

    So the file that a shell or a program has in its variables never changes, whatever is signed later.
    """
    data = environ.get("XDG_DATA_HOME", "")
    top = expanded(data if Path(data).is_absolute() else _DATA)
    if not top.is_absolute():
        raise Failure(f"there is no home directory for the authorities: {_MAKE_ONE}")
    directory = top / "presign" / sha256(bundle(certificates).encode("ascii")).hexdigest()[:16]
    try:
        top.mkdir(parents=True, exist_ok=True)
        for one in (directory.parent, directory):
            one.mkdir(0o755, exist_ok=True)  # whatever the umask
            if why := why_not_own(one):  # who can replace the file chooses what programs trust
                raise Failure(f"{one}: {why}: {_MAKE_ONE}")
        return written(environ, certificates, directory)
    except OSError as error:
        why = (error.strerror or "cannot be written").lower()
        raise Failure(f"{directory}: {why}: {_MAKE_ONE}") from None


def _elsewhere(ca: str) -> str:
    return (
        f"{ca} cannot be read here. It is exported as it is, and has to hold the system's authorities too"
        " where the program runs: `presign ca --bundle FILE` makes such a file."
    )


def _not_yet(ca: str) -> str:
    return (
        f"{ca} does not exist, so programs will not trust the gateway. The gateway creates it at its first"
        " start, in its --confdir: copy it from there, and give --ca PATH."
    )


def _of_tls(base: str, ca: str, own: OwnCertificate) -> Sequence[str]:
    """Return a remark if nothing here says that programs will accept the gateway's own certificate."""
    if not has_tls(base) or (own.file is not None and own.complete):
        return ()
    return (
        f"{base} uses TLS: if no public authority has signed its certificate, put the one that has into a"
        f" file together with {ca}, and name that with --ca.",
    )
