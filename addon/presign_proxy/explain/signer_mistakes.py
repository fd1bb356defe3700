"""Common mistakes of signers: wrong canonical strings and wrong forms of the secret, each with a name."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, permutations, product
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus

from ..signing.canonical import POLICY_LABEL, PRESIGN_LABEL
from ..signing.carrier_names import TERMS
from ..signing.signed_policy import SIGNED_AS, PolicyText, lines_of

_POLICY_ORDERS: Final = 720
"""Most orders of the lines of a policy that are tried: all orders of six."""
_ORDERS: Final = 240
"""Most orders of the lists that are tried: enough for all orders of five items, or of four and three."""
_LABELS: Final = (
    PRESIGN_LABEL, POLICY_LABEL, "PRESIGN-HMAC-SHA-256", "PRESIGN_HMAC_SHA256", "PRESIGN-HMAC", "HMAC-SHA256",
    "AWS4-HMAC-SHA256", "presign-hmac-sha256", "X-PRESIGN-HMAC-SHA256",
)  # fmt: skip


class Signable(NamedTuple):
    """The four values that scheme presign signs, and the signed policy; None in version 1."""

    connection_id: str
    expires: str
    methods: str
    paths: str
    written: PolicyText | None = None

    @property
    def label(self) -> str:
        return PRESIGN_LABEL if self.written is None else POLICY_LABEL

    @property
    def values(self) -> tuple[str, ...]:
        return (*self[:4], *(lines_of(self.written) if self.written is not None else ()))

    def lines(self) -> tuple[str, ...]:
        return self.label, *self.values


def message(lines: tuple[str, ...], separator: str = "\n") -> bytes:
    return separator.join(lines).encode("utf-8", "replace")


def messages(base: Signable, asked: tuple[str, str], raw: Signable) -> dict[str, bytes]:
    """Return the texts that may have been signed instead of the canonical string of `base`.

    If two mistakes make the same text, the first name counts.

    Args:
        asked: method and path of the request, which some signers sign in place of the lists.
        raw: the values as in the query, not decoded.
    """
    found: dict[bytes, str] = {}
    for name, made in _messages(base, asked, raw):
        found.setdefault(made, name)
    found.pop(message(base.lines()), None)
    return {f"{name}/{number}": made for number, (made, name) in enumerate(found.items())}


def _messages(base: Signable, asked: tuple[str, str], raw: Signable) -> Iterator[tuple[str, bytes]]:
    lines = base.lines()
    yield "trailing_newline", message(lines) + b"\n"
    yield "crlf", message(lines, "\r\n")
    yield "crlf", message(lines, "\r\n") + b"\r\n"
    yield "literal_backslash_n", message(lines, "\\n")
    for separator in ("", ":", "|", " ", "&", ","):
        yield "other_separator", message(lines, separator)
    yield from _of_policy(base)
    for label in _LABELS:
        yield "other_label", message((label, *base.values))
    yield "no_label", message(base.values)
    for at in ((0, 1, 3, 2), (0, 2, 3, 1)):
        yield "fields_swapped", message((base.label, *(base.values[one] for one in at), *base.values[4:]))
    for name, changed in _changed(base, asked, raw):
        yield name, message(changed.lines())
        yield name, message(changed.lines()) + b"\n"
    for methods, paths in islice(product(_orders(base.methods), _orders(base.paths)), _ORDERS):
        yield "signed_unsorted", message(base._replace(methods=methods, paths=paths).lines())


def _of_policy(base: Signable) -> Iterator[tuple[str, bytes]]:
    """Yield mistakes with the lines of version 2, or with their absence."""
    plain = base._replace(written=None)
    if base.written is None:
        yield "policy_of_nothing", message((POLICY_LABEL, *plain.values))
        return
    yield "policy_not_signed", message(plain.lines())
    yield "policy_not_signed", message((POLICY_LABEL, *plain.values))
    lines = lines_of(base.written)
    for order in islice(permutations(lines), _POLICY_ORDERS):
        yield "policy_order", message((POLICY_LABEL, *plain.values, *order))
    yield "policy_order", message((POLICY_LABEL, *lines, *plain.values))
    values = [value for value in base.written if value]
    for order in islice(permutations(values), _POLICY_ORDERS):
        yield "policy_without_names", message((POLICY_LABEL, *plain.values, *order))
    for spelled in _policy_spellings(base.written):
        yield "policy_names", message((POLICY_LABEL, *plain.values, *spelled))
    every = [f"{name}:{value}" for name, value in zip(SIGNED_AS.values(), base.written, strict=True)]
    yield "policy_empty_lines", message((POLICY_LABEL, *plain.values, *every))
    bare = [line if value else "" for line, value in zip(every, base.written, strict=True)]
    yield "policy_empty_lines", message((POLICY_LABEL, *plain.values, *bare))


def _policy_spellings(written: PolicyText) -> Iterator[list[str]]:
    """Yield the lines of a policy with names in other spellings, and with other separators."""
    present = [(field, value) for field, value in written._asdict().items() if value]
    for names in (
        SIGNED_AS,
        TERMS,
        {field: name.lower() for field, name in TERMS.items()},
        {field: name[10:] for field, name in TERMS.items()},
        {field: field for field in TERMS},
    ):
        for separator in (":", ": ", "=", " "):
            yield [f"{names[field]}{separator}{value}" for field, value in present]


def _orders(text: str) -> Iterator[str]:
    items = text.split(",")
    if len(items) > 5:
        yield from (text, ",".join(reversed(items)))
        return
    yield from (",".join(order) for order in permutations(items))


def _changed(base: Signable, asked: tuple[str, str], raw: Signable) -> Iterator[tuple[str, Signable]]:
    """Yield the values with one of them, or one kind of them, changed."""
    yield from _spelled_otherwise(base, raw)
    yield from _listed_otherwise(base)
    yield from _of_other_values(base, asked)


def _spelled_otherwise(base: Signable, raw: Signable) -> Iterator[tuple[str, Signable]]:
    """Yield changes of blanks and escapes."""
    _, _, methods, paths, _ = base
    if "+" in raw.paths:
        yield "plus_for_space", base._replace(paths=paths.replace(" ", "+"))
    if "+" in paths:
        yield "plus_for_space", base._replace(paths=paths.replace("+", " "))
    for safe in ("", "/", "*", "/*", "/*,", ","):
        encoded = base._replace(methods=quote(methods, safe=safe), paths=quote(paths, safe=safe))
        yield "percent_encoded", encoded
        yield "percent_encoded", base._replace(paths=encoded.paths)
    yield "percent_encoded", base._replace(methods=raw.methods, paths=raw.paths)
    glued, slash, _ = raw.paths.partition("/")
    if slash and glued:
        yield "paths_glued", base._replace(paths=unquote_plus(glued))


def _listed_otherwise(base: Signable) -> Iterator[tuple[str, Signable]]:
    """Yield changes of how the lists of methods and paths are written."""
    _, _, methods, paths, _ = base
    items = paths.split(",")
    yield "slash_added", base._replace(paths=",".join(f"/{item}" for item in items))
    yield "slash_missing", base._replace(paths=",".join(item.removeprefix("/") for item in items))
    for separator, name in (
        (", ", "signed_with_blanks"),
        (" ", "signed_with_blanks"),
        (";", "other_separator"),
    ):
        joined = base._replace(methods=methods.replace(",", separator), paths=paths.replace(",", separator))
        yield name, joined
    for dumped in (json.dumps, _compact):
        listed = base._replace(methods=dumped(methods.split(",")), paths=dumped(items))
        yield "signed_as_json", listed
    yield "case_of_methods", base._replace(methods=methods.lower())
    yield "case_of_methods", base._replace(methods=methods.upper())


def _of_other_values(base: Signable, asked: tuple[str, str]) -> Iterator[tuple[str, Signable]]:
    """Yield other values: times, the request in place of the lists, other lists, other connections."""
    expires = base.expires
    yield "signed_milliseconds", base._replace(expires=f"{expires}000")
    yield "signed_seconds", base._replace(expires=expires[:-3])
    yield "signed_fraction", base._replace(expires=f"{expires}.0")
    yield "signed_request", base._replace(paths=asked[1].removeprefix("/"))
    yield "signed_request", base._replace(paths=asked[1])
    yield "signed_request", base._replace(methods=asked[0])
    yield "signed_request", base._replace(methods=asked[0], paths=asked[1].removeprefix("/"))
    yield "changed_methods", base._replace(methods="*")
    yield "changed_methods", base._replace(methods="GET")
    yield "changed_methods", base._replace(methods="POST")
    yield "changed_paths", base._replace(paths="*")
    yield "changed_paths", base._replace(paths="v1/*")
    yield "changed_expires", base._replace(expires="0")
    yield "other_connection_id", base._replace(connection_id="")
    yield "other_connection_id", base._replace(connection_id=base.connection_id.removeprefix("conn_"))
    yield "other_connection_id", base._replace(connection_id=f"conn_{base.connection_id}")
    yield "other_connection_id", base._replace(connection_id=base.connection_id.lower())


def _compact(items: list[str]) -> str:
    return json.dumps(items, separators=(",", ":"))


def source_messages(project: str, url: str, exp: str, encoded: str) -> dict[str, bytes]:
    """Return the texts that may have been signed instead of `{project}:{url}:{exp}` (scheme source)."""
    bare = url.partition("://")[2] or url
    tried = (
        ("trailing_newline", f"{project}:{url}:{exp}\n"),
        ("crlf", f"{project}:{url}:{exp}\r\n"),
        ("percent_encoded", f"{project}:{quote(url, safe='')}:{exp}"),
        ("percent_encoded", f"{project}:{quote(url, safe=':/?&=')}:{exp}"),
        ("signed_encoded_source", f"{project}:{encoded}:{exp}"),
        ("signed_without_scheme", f"{project}:{bare}:{exp}"),
        ("signed_with_slash", f"{project}:{url}/:{exp}"),
        ("signed_with_slash", f"{project}:{url.rstrip('/')}:{exp}"),
        ("signed_milliseconds", f"{project}:{url}:{exp}000"),
        ("signed_seconds", f"{project}:{url}:{exp[:-3]}"),
        ("no_label", f"{url}:{exp}"),
        ("other_separator", f"{project}\n{url}\n{exp}"),
        ("other_separator", f"{project}|{url}|{exp}"),
        ("fields_swapped", f"{project}:{exp}:{url}"),
        ("fields_swapped", f"{url}:{project}:{exp}"),
    )
    plain = f"{project}:{url}:{exp}"
    return {
        f"{name}/{number}": text.encode("utf-8", "replace")
        for number, (name, text) in enumerate(tried)
        if text != plain
    }


def _base64_decoded(secret: bytes) -> bytes | None:
    plain = secret.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _hex_decoded(secret: bytes) -> bytes | None:
    try:
        return bytes.fromhex(secret.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None


def _unprefixed(secret: bytes) -> bytes | None:
    return secret[3:] if secret.startswith(b"sk_") else None


def _after_prefix(change: Callable[[bytes], bytes | None]) -> Callable[[bytes], bytes | None]:
    def changed(secret: bytes) -> bytes | None:
        plain = _unprefixed(secret)
        return None if plain is None else change(plain)

    return changed


PLAIN: Final = "plain"

SECRETS: Final[Mapping[str, Callable[[bytes], bytes | None]]] = {
    PLAIN: lambda secret: secret,
    "secret_newline": lambda secret: secret + b"\n",
    "secret_crlf": lambda secret: secret + b"\r\n",
    "secret_blank": lambda secret: secret + b" ",
    "secret_blank/before": lambda secret: b" " + secret,
    "secret_blank/both": lambda secret: b" " + secret + b" ",
    "secret_trimmed": lambda secret: secret.strip() if secret.strip() != secret else None,
    "secret_quoted": lambda secret: b'"' + secret + b'"',
    "secret_quoted/single": lambda secret: b"'" + secret + b"'",
    "secret_base64": base64.b64encode,
    "secret_base64/unpadded": lambda secret: base64.b64encode(secret).rstrip(b"="),
    "secret_base64/url": base64.urlsafe_b64encode,
    "secret_base64/unpadded-url": lambda secret: base64.urlsafe_b64encode(secret).rstrip(b"="),
    "secret_base64/newline": lambda secret: base64.b64encode(secret + b"\n"),
    "secret_base64_decoded": _base64_decoded,
    "secret_base64_decoded/unprefixed": _after_prefix(_base64_decoded),
    "secret_hex_decoded": _hex_decoded,
    "secret_hex_decoded/unprefixed": _after_prefix(_hex_decoded),
    "secret_hex": lambda secret: secret.hex().encode(),
    "secret_without_prefix": _unprefixed,
    "secret_with_prefix": lambda secret: None if secret.startswith(b"sk_") else b"sk_" + secret,
    "secret_case": lambda secret: secret.lower() if secret.lower() != secret else None,
    "secret_case/upper": lambda secret: secret.upper() if secret.upper() != secret else None,
}
ONLY_PLAIN: Final = {PLAIN: SECRETS[PLAIN]}
