"""The revocation of grants that their command has signed itself, at the end of its program."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Final

from ..config.registry_file.build import revocations_of
from ..config.registry_file.edit import changing
from ..signing.keys import signature_id
from ..signing.signer import Signed
from .expired_revocations import forget_expired
from .values import present
from .workspace import Failure, Workspace

_PATIENCE: Final = 20
"""Seconds to wait for another command that holds the registry."""


def revoke_grants(workspace: Workspace, grants: Sequence[Signed]) -> None:
    """Revoke grants by their signatures; the registry forgets them some time after their expiry.

    Raises Failure, ConfigError, OSError.
    """
    openers = workspace.openers
    with _patience(), changing(workspace.registry_path, openers) as draft:
        revocations_of(draft.content("revoked"), draft.path)  # reports errors in it
        forget_expired(draft, time.time())
        for grant in grants:
            entry = {"at": present(), "expires": int(grant.expires)}
            draft.revoked("urls")[signature_id(grant.signature)] = entry
        draft.write()


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Limit how long the block may take: it also waits for a lock, and nothing can interrupt it."""
    begun = time.monotonic()

    def give_up(*_: object) -> None:
        if time.monotonic() - begun > _PATIENCE - 1:  # an earlier alarm is the program's, not ours
            raise Failure(
                f"the registry could not be changed within {_PATIENCE} s: does another command hold it?"
            )

    before = signal.signal(signal.SIGALRM, give_up)
    # `run` holds all signals back while its program runs and its grants are revoked.
    held = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.alarm(_PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        signal.signal(signal.SIGALRM, before)
