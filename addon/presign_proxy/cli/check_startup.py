"""A trial run of what `presign serve` opens at its start, with the same functions. All is closed again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config.descriptors import limit_of_serve, shortage
from ..config.load import Loaded
from ..config_problems import ConfigError, Problem
from ..gateway import ca_directory, unsafe_options
from ..observe.admin_server import CannotListen, bound
from ..observe.audit_log import try_file
from ..prerequisites import unsupported_mitmproxy
from ..serve import listeners

Address = tuple[str, int]


def errors(loaded: Loaded, directory: Path | None) -> Iterator[str]:
    """Return why the gateway would not start, or could not work.

    Args:
        directory: the directory of the authority; None if it was not given.
    """
    if why := unsupported_mitmproxy():
        yield why
    try:
        try_file(loaded.config.audit, loaded.path)
    except ConfigError as error:
        yield from map(str, error.problems)
    if loaded.limited and (why := loaded.store.obstacle):
        text = f"limited requests would be answered 503: {why}"
        yield str(Problem(str(loaded.path), 0, 0, "limits.store", text))
    elif loaded.limited and (why := loaded.store.refusal):
        yield str(Problem(str(loaded.path), 0, 0, "limits.store", why))
    if directory is not None and (refused := ca_directory.refused(directory)):
        yield f"{refused.filename}: {(refused.strerror or 'failed').lower()}"


def warnings(loaded: Loaded, addresses: Sequence[Address]) -> Iterator[str]:
    """Return what would stop the gateway from starting on this machine now, although it may be intended."""
    if loaded.limited and loaded.store.is_private:
        yield (
            "limits.store: memory:// counts in each process separately, and loses its counts when that ends:"
            " `presign serve` accepts it only with one worker"
        )
    admin = loaded.config.admin
    if admin is not None:
        try:
            for one in bound(*admin.listen):
                one.close()
        except CannotListen as error:
            yield f"admin.listen: {error}{_by_whom(taken=error.is_taken)}"
    for host, port in addresses:
        try:
            listeners.close(listeners.bind(host, port))
        except listeners.ListenError as error:
            yield f"{error}{_by_whom(taken=error.is_taken)}"
    if few := shortage(loaded.config.gateway.max_clients, limit_of_serve()):
        yield few
    for name in unsafe_options.keylogs():
        yield f"${name} is set: the gateway refuses to start, because all TLS session keys would be recorded"


def _by_whom(*, taken: bool) -> str:
    return ". Fine if this gateway is running there; a second one would not start" if taken else ""
