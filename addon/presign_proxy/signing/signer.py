"""Signing: offline, with nothing but a connection's signing secret."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ..errors import Denied, Malformed
from ..http.percent import CONTROL, query
from ..regexes import late
from . import base64url, canonical, grammar
from .carrier_names import MAX_LIST, TERMS
from .grammar import parse_list
from .keys import mac, signature_id
from .secret import Secret
from .signed_policy import NO_TERMS, PolicyText, Terms, write
from .tokens import format_token

_ID = late(grammar.CONNECTION_ID)
_PATH = late(r"(?!//|[A-Za-z][A-Za-z0-9+.-]*://)[^\s#\\\x00-\x20\x7f]*")
_EXTENSION = late(grammar.EXTENSION)
_CONTROL = late(CONTROL)


class Signed(NamedTuple):
    """One grant. `expires` is a Unix time in seconds, 0 for never; lists are sorted, comma-separated.

    Its repr holds no signature: a grant that is printed by chance cannot be used.
    """

    connection_id: str
    expires: str
    methods: str
    paths: str
    signature: str
    written: PolicyText | None = None
    """The signed policy; None in version 1."""

    def __repr__(self) -> str:
        what = (self.connection_id, self.expires, self.methods, self.paths, *filter(None, [self.written]))
        return f"Signed({', '.join(map(repr, what))}, signature_id={signature_id(self.signature)})"

    @property
    def headers(self) -> dict[str, str]:
        """The grant as request headers."""
        return {
            "X-Presign-Connection": self.connection_id,
            "X-Presign-Expires": self.expires,
            "X-Presign-Methods": self.methods,
            "X-Presign-Paths": self.paths,
            **self.terms,
            "X-Presign-Signature": self.signature,
        }

    @property
    def terms(self) -> dict[str, str]:
        """The fields of the signed policy that are there, by their names in query and header."""
        pairs = zip(TERMS.values(), self.written or (), strict=False)
        return {name: value for name, value in pairs if value}

    @property
    def token(self) -> str:
        """The grant as a token, to stand where an API key would."""
        return format_token(*self)

    def url(self, path: str, base: str = "http://presign.local") -> str:
        """The grant as a URL (presign.click, URL Format).

        Args:
            path: percent-encoded, may hold a query.
            base: the gateway, `http(s)://host[:port]`.

        Raises ValueError for a path that cannot stand in a URL as it is.
        """
        if not _PATH.fullmatch(path):
            raise ValueError("a path is relative, percent-encoded and without fragment")
        fields = {name: value for name, value in self.headers.items() if name != "X-Presign-Connection"}
        mark = "&" if "?" in path else "?"
        target = f"{path.removeprefix('/')}{mark}{query(fields)}"
        return f"{base.rstrip('/')}/api/proxy/{self.connection_id}/{target}"


class SignedSource(NamedTuple):
    """One signed source URL (Motioness, URL shape). `exp` is a Unix time in seconds.

    Its repr holds no signature.
    """

    project: str
    src_url: str
    extension: str
    exp: str
    signature: str

    def __repr__(self) -> str:
        what = (self.project, self.src_url, self.extension, self.exp)
        return f"SignedSource({', '.join(map(repr, what))}, signature_id={signature_id(self.signature)})"

    def url(self, base: str = "http://presign.local") -> str:
        """`base` is the gateway, `http(s)://host[:port]`."""
        path = f"/v1/{self.project}/{base64url.encode(self.src_url)}.{self.extension}"
        return f"{base.rstrip('/')}{path}?sig={self.signature}&exp={self.exp}"


class Signer:
    """Makes grants for one connection.

    >>> grant = Signer("conn_openai", secret).sign(["GET"], ["v1/models"], expires_at=1893456000)
    >>> grant.url("v1/models", "https://gateway.example")
    """

    def __init__(self, connection_id: str, secret: str | Secret) -> None:
        """Raises ValueError for an id that is not 1 to 64 of A-Z a-z 0-9 _ -, and for an empty secret."""
        if not _ID.fullmatch(connection_id):
            raise ValueError("a connection id is 1 to 64 of A-Z a-z 0-9 _ -")
        self._id = connection_id
        self._secret = secret if isinstance(secret, Secret) else Secret(secret)
        if not self._secret.reveal():
            raise ValueError("a signing secret is not empty")

    def sign(
        self, methods: Iterable[str], paths: Iterable[str], *, expires_at: int, terms: Terms = NO_TERMS
    ) -> Signed:
        """Sign a grant.

        Args:
            methods: upper-case, or only "*".
            paths: patterns relative to the connection, in which `*` is any run of characters.
            expires_at: Unix time in seconds; 0 is never.
            terms: what else is signed; with any, the grant is of version 2.

        Raises ValueError for anything the gateway would refuse as malformed.
        """
        lists = {}
        for what, items in (("methods", methods), ("paths", paths)):
            if isinstance(items, str | bytes):
                raise ValueError(f"{what} is a list of texts, not one text")
            listed = sorted(set(items))
            if any("," in item or _CONTROL.search(item) for item in listed):
                hint = "; a comma in a path is signed as %2C" if what == "paths" else ""
                raise ValueError(f"{what}: an item holds a comma or a control character{hint}")
            lists[what] = ",".join(listed)
            if len(lists[what].encode()) > MAX_LIST:
                raise ValueError(f"{what}: more than {MAX_LIST} bytes")
            try:
                parse_list(lists[what], what)
            except Malformed as error:
                raise ValueError(error.detail) from None
        _check_time(expires_at)
        if terms.not_before is not None and 0 < expires_at < terms.not_before:
            raise ValueError("not_before lies behind the expiry: it would never be valid")
        fields = (self._id, str(expires_at), lists["methods"], lists["paths"])
        written = write(terms)
        message = canonical.presign(*fields) if written is None else canonical.policy(*fields, written)
        signature = mac(self._secret.reveal().encode(), message).hex()
        return Signed(*fields, signature, written)

    def sign_source(self, src_url: str, extension: str, *, expires_at: int) -> SignedSource:
        """Sign the URL of a source; the connection is a project of scheme source.

        Args:
            src_url: absolute http(s) URL, at most 2048 characters, without user name and fragment.
            extension: the format, one of the project's.
            expires_at: Unix time in seconds.

        Raises ValueError for anything the gateway would refuse whatever the project allows.
        """
        from .source_url import parse_source  # half of what signing imports, and few sign sources

        _check_time(expires_at)
        if not _EXTENSION.fullmatch(extension):
            raise ValueError("a format is 1 to 16 letters and digits")
        try:
            parse_source(src_url)
        except Denied as denied:
            raise ValueError(denied.detail) from None
        exp = str(expires_at)
        signature = mac(self._secret.reveal().encode(), canonical.source(self._id, src_url, exp)).hex()
        return SignedSource(self._id, src_url, extension, exp, signature)


def _check_time(expires_at: int) -> None:
    if type(expires_at) is not int or not 0 <= expires_at < 10**12:
        raise ValueError("expires_at is a Unix time in whole seconds")
