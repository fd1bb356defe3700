"""`presign ca`: the authorities of the gateway, alone or together with the system's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ..config.path import expanded
from ..units import instant
from .environment import CA
from .output import Output, verb
from .workspace import Failure, Workspace


class Authorities(NamedTuple):
    """The gateway's authorities as PEM texts, and the file of the one that intercepts."""

    file: Path
    pems: Sequence[str]
    system: Sequence[str]
    remarks: Sequence[str]


@click.command()
@click.option("--confdir", metavar="DIR", help="The --confdir of the gateway.  [default: ~/.mitmproxy]")
@click.option("--ca", metavar="PATH", help="The file of the authority, if it is elsewhere.")
@click.option(
    "--bundle", metavar="FILE", help="Write the system's and the gateway's together; - prints them."
)
@click.option("--instructions", is_flag=True, help="Print how to install it: nothing is installed.")
@verb
def ca(
    workspace: Workspace,
    output: Output,
    confdir: str | None,
    ca: str | None,
    bundle: str | None,
    instructions: bool,
) -> None:
    """Print the gateway's authorities, which its clients have to trust.

    They are certificates in PEM form, without their keys: of the authority that the gateway makes, and of
    gateway.tls if no authority of the system verifies that.
    """
    if confdir and ca:
        raise click.UsageError("--confdir and --ca exclude each other")
    if bundle and instructions:
        raise click.UsageError("--bundle and --instructions exclude each other")
    found = _authorities(workspace, confdir, ca)
    whole = "".join([*found.system, *found.pems])
    data: dict[str, Any] = {"file": str(found.file), "authorities": list(map(_described, found.pems))}
    if bundle is None and not instructions:
        output.tell(data, "".join(found.pems).rstrip("\n"))
        output.note(*(f"{one['subject']}, SHA-256 {one['sha256']}" for one in data["authorities"]))
        output.note(f"Its file is {found.file}")
    elif bundle == "-":
        output.tell(data | {"bundle": "-", "pem": whole}, whole.rstrip("\n"))
    elif bundle is not None:
        from .authorities import write_public

        path = expanded(bundle).absolute()
        write_public(path, whole.encode("ascii"))
        both = f"{len(found.system)} authorities"
        output.tell(data | {"bundle": str(path)}, f"{path} holds {both} of the system and the gateway's.")
    else:
        from .trust_instructions import instructions as lines

        output.tell(data | {"instructions": lines(found.file)}, *lines(found.file))
    output.note(*found.remarks)


def _authorities(workspace: Workspace, confdir: str | None, ca: str | None) -> Authorities:
    """Return the gateway's authorities and the system's. Raises Failure, ConfigError."""
    from .authorities import system_authorities, unique
    from .gateway_authorities import in_directory, interception, own_certificate

    file = expanded(ca or CA).absolute()
    if not ca:
        file = in_directory(expanded(confdir).absolute() if confdir else file.parent)
    if workspace.is_configured:
        _ = workspace.config  # reports what is wrong with it before anything else
    pems = interception(file)
    system = system_authorities(workspace.environ)
    own = own_certificate(workspace, [*pems, *system])
    remarks = []
    if not own.complete:
        remarks.append(
            f"The authority that signed {own.file} (gateway.tls.cert) is neither in that file nor in the"
            " system: add its certificate."
        )
    return Authorities(file, unique([*pems, *own.authorities]), system, remarks)


def _described(pem: str) -> dict[str, Any]:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificate

    try:
        with warnings.catch_warnings(action="ignore"):  # of an old authority: it is its owner's affair
            found = load_pem_x509_certificate(pem.encode())
    except ValueError:
        raise Failure("one of the gateway's certificates cannot be read") from None
    return {
        "subject": found.subject.rfc4514_string(),
        "sha256": found.fingerprint(SHA256()).hex(),
        "expires_at": instant(found.not_valid_after_utc.timestamp()),
        "pem": pem,
    }
