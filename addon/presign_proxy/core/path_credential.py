"""A credential that is a part of the upstream's path: Telegram's `/bot{token}`, the webhooks of Slack."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from ..errors import Denied
from ..http.paths import canonical_path
from ..signing.secret import Secret
from .credentials import CredentialSlots, Fill, Injector, Outgoing

TOKEN: Final = "{token}"  # noqa: S105 - a placeholder
"""The place of the secret in a template."""
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~:@!$&'()*+,;=-]+")
"""Path segments without escapes (RFC 3986, 3.3: `pchar`), so that no server can read them in another way."""


NO_PATH: Final = "has to be a part of a path, without escapes and dot segments, as in T000/B000/XXXX"


@dataclass(frozen=True, slots=True)
class PathCredential:
    """A credential that stands between the base of the upstream and the path of the client.

    The client's path is checked and signed without it, so that a signed pattern never contains the secret.
    """

    base: bytes
    """The base path of the upstream, without trailing slash."""
    before: bytes
    """The canonical text of the path before the secret, base included."""
    secret: Secret
    after: bytes = b""
    """The canonical text of the path after the secret."""

    @property
    def slots(self) -> CredentialSlots:
        return CredentialSlots()

    def inject(self, outgoing: Outgoing) -> Outgoing:
        """Return the request with the credential in its path. Raises Denied("upstream").

        A program may print a secret that fits into no path. Such a secret is never sent.
        """
        return self._with(outgoing, self._root())

    def placeholder(self, outgoing: Outgoing, label: str) -> Outgoing:
        return self._with(outgoing, self.before + label.encode() + self.after)

    def _with(self, outgoing: Outgoing, root: bytes) -> Outgoing:
        rest = outgoing.path[len(self.base) :]
        # A webhook is the path of the credential and nothing below it. It is addressed as "/".
        return outgoing._replace(path=root if rest == b"/" else root + rest)

    def _root(self) -> bytes:
        text = self.secret.reveal()
        root = self.before + text.encode("utf-8", "replace") + self.after
        if not fits_a_path(text) or canonical_path(root) != root:
            raise Denied("upstream", "the credential does not fit into a path")
        return root

    def seen(self, path: bytes) -> bytes | None:
        """Return a path of the upstream as clients address it; None if no client of the connection can."""
        root = self._root()
        if path == root:
            return self.base + b"/"
        return self.base + path[len(root) :] if path.startswith(root + b"/") else None

    def rendered(self) -> tuple[bytes, ...]:
        whole = self.secret.reveal()
        # The last segment of a webhook is its secret. Servers show it without the ids before it, too.
        return tuple(dict.fromkeys([whole.encode(), whole.rpartition("/")[2].encode()]))

    def secrets(self) -> tuple[Secret, ...]:
        return (self.secret,)

    def filled(self, fill: Fill) -> PathCredential:
        return replace(self, secret=fill(self.secret))


def fits_a_path(text: str) -> bool:
    """Return whether a secret is one path segment or several, all without escapes and dot segments."""
    return all(_SEGMENT.fullmatch(part) and part not in (".", "..") for part in text.split("/"))


def is_template(text: str) -> bool:
    """Return whether a text is a canonical path that contains the place of the secret once."""
    if not text.startswith("/") or text.endswith("/") or text.count(TOKEN) != 1 or not text.isascii():
        return False
    filled = text.replace(TOKEN, "x").encode("ascii")
    try:
        return canonical_path(filled) == filled and not any(mark in filled for mark in b"{}?#")
    except Denied:
        return False


def path_credential(base: bytes, template: str, secret: Secret) -> PathCredential:
    """Return the credential for a template that `is_template`."""
    before, _, after = template.partition(TOKEN)
    return PathCredential(base, base + before.encode("ascii"), secret, after.encode("ascii"))


def seen_by_clients(injector: Injector, path: bytes) -> bytes | None:
    """Return a path of the upstream as clients address it: without the credential in it.

    None if the path is not below the credential, so that no client of the connection can address it.
    """
    return injector.seen(path) if isinstance(injector, PathCredential) else path
