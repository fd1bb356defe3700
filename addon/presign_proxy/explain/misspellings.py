"""Misspelled fields of a presign: the name of each mistake, and the corrected value."""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import ip_network
from typing import Final, NamedTuple

from ..signing import grammar
from ..signing.carrier_names import TERMS
from ..signing.signed_policy import wrong_with
from .explanation import Finding

_GOOD_SIGNATURE = re.compile(grammar.SIGNATURE)
_GOOD_EXPIRES = re.compile(grammar.UNIX_TIME)
_HEX: Final = "[0-9A-Fa-f]{64}"
_GLUED = re.compile(rf"({_HEX})(/.*)", re.DOTALL)
_BLANKS = re.compile(rf"\s*({_HEX})\s*")
_PUNCTUATED = re.compile(rf"[<(\[\"'`]*({_HEX})[.,;:!)>\]}}\"'`*_\s]+")
_SECOND_QUERY = re.compile(rf"({_HEX})[?;&].*", re.DOTALL)
_TRAILED = re.compile(rf"({_HEX})[^0-9A-Fa-f].*", re.DOTALL)
_PREFIXED = re.compile(rf".{{0,40}}[=(): x]({_HEX})")
_HEX_ONLY = re.compile(r"[0-9A-Fa-f]+")
_OTHER_HASHES: Final = {96: "SHA-384", 128: "SHA-512"}
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}.*")
_DURATION = re.compile(r"[0-9]+ ?[a-z]+")


class Read(NamedTuple):
    """A field that was read: the mistake in it, if any, and the corrected text; None if that is unknown."""

    finding: Finding | None
    meant: str | None


def signature(text: str, name: str = "X-Presign-Signature") -> Read:
    """Read a signature field. A `meant` of less than 64 digits is the beginning of a signature."""
    if _GOOD_SIGNATURE.fullmatch(text):
        return Read(None, text)
    if not text:
        return Read(Finding("signature_empty", f"{name} is empty: the signature was not filled in."), None)
    for pattern, finding in (
        (_GLUED, "path_glued"),
        (_BLANKS, "signature_blank"),
        (_PUNCTUATED, "pasted_punctuation"),
        (_SECOND_QUERY, "second_query"),
        (_TRAILED, "signature_trailed"),
        (_PREFIXED, "signature_prefix"),
    ):
        if (match := pattern.fullmatch(text)) and match[1] != text:
            return Read(
                Finding(
                    finding, _GLUE_TEXTS[finding].format(name=name, path=match[match.lastindex or 0][:80])
                ),
                match[1].lower(),
            )
    return _digits(text, name)


_GLUE_TEXTS: Final = {
    "path_glued": (
        "The path {path} is glued onto {name}: the client appended it to a base_url that has a query. Use a "
        "token (/p/{{token}} as base_url, or the token as API key) or headers for such a client."
    ),
    "signature_blank": (
        "{name} has a line break or a blank at its end (as `echo` and `openssl` print it): take it off."
    ),
    "pasted_punctuation": (
        "{name} ends in punctuation that came along when the URL was copied from text: take it off."
    ),
    "second_query": (
        "Something is glued onto {name}, behind a second ? or a ;: the client appended a query of its own "
        "to a URL that has one. It must append with &."
    ),
    "signature_trailed": (
        "{name} goes on behind its 64 hex digits: something was added when it was copied or joined. Take "
        "it off."
    ),
    "signature_prefix": (
        "{name} holds more than the signature (such as what `openssl` prints before it): only the 64 hex "
        "digits."
    ),
}


def _digits(text: str, name: str) -> Read:
    if len(text) == 64 and _HEX_ONLY.fullmatch(text):
        return Read(
            Finding("upper_case_hex", f"{name} has upper-case hex digits: it must be lower-case."),
            text.lower(),
        )
    plain = re.sub(r"[\s:-]", "", text)
    if plain != text and len(plain) == 64 and _HEX_ONLY.fullmatch(plain):
        return Read(
            Finding("signature_separators", f"{name} has separators between its digits."), plain.lower()
        )
    if decoded := _from_base64(text):
        return Read(
            Finding("base64_signature", f"{name} is base64: it must be 64 lower-case hex digits."), decoded
        )
    if _HEX_ONLY.fullmatch(text):
        return _other_length(text, name)
    return Read(Finding("signature_unreadable", f"{name} is not 64 lower-case hex digits."), None)


def _other_length(text: str, name: str) -> Read:
    if hashed := _OTHER_HASHES.get(len(text)):
        finding = Finding("other_hash", f"{name} has {len(text)} hex digits, as {hashed} makes: use SHA-256.")
        return Read(finding, None)
    if len(text) > 64:
        return Read(Finding("signature_too_long", f"{name} has {len(text)} hex digits instead of 64."), None)
    missing = f"{name} is cut: it has {len(text)} of its 64 hex digits."
    beginning = text.lower()[: len(text) // 2 * 2] if len(text) >= 16 else None
    return Read(Finding("signature_cut", missing), beginning)


def _from_base64(text: str) -> str | None:
    """Return the 64 hex digits that are encoded in some base64, as 32 bytes or as text; else None."""
    plain = text.rstrip("=").replace(" ", "+").replace("-", "+").replace("_", "/")
    if not 43 <= len(plain) <= 88:
        return None
    try:
        raw = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) == 32:
        return raw.hex()
    inner = raw.decode("ascii", "replace").strip().lower()
    return inner if _GOOD_SIGNATURE.fullmatch(inner) else None


def expires(text: str, name: str = "X-Presign-Expires") -> Read:
    """Read an expiry."""
    if _GOOD_EXPIRES.fullmatch(text):
        return Read(None, text)
    if re.fullmatch(r"[1-9][0-9]{12}", text):
        finding = f"{name} has 13 digits, so it is in milliseconds: divide by 1000 before signing."
        return Read(Finding("milliseconds", finding), text[:-3])
    if re.fullmatch(r"[1-9][0-9]{15}|[1-9][0-9]{18}", text):
        finding = f"{name} is in micro- or nanoseconds: it must be in whole seconds."
        return Read(Finding("microseconds", finding), text[:10])
    if match := re.fullmatch(r"([1-9][0-9]{0,11})\.[0-9]+", text):
        finding = f"{name} has a fraction: round it to whole seconds before signing."
        return Read(Finding("fraction", finding), match[1])
    if match := re.fullmatch(r"[\s+0]*([1-9][0-9]{0,11})\s*", text):
        finding = f"{name} has blanks, a sign or zeros around its digits: take them off."
        return Read(Finding("expires_spelling", finding), match[1])
    if match := re.fullmatch(rf"({grammar.UNIX_TIME})(/.*)", text, re.DOTALL):
        return Read(
            Finding("path_glued", _GLUE_TEXTS["path_glued"].format(name=name, path=match[2][:80])), match[1]
        )
    if _ISO.fullmatch(text):
        return Read(Finding("expires_date", f"{name} is a date: it must be a Unix time in seconds."), None)
    if _DURATION.fullmatch(text):
        finding = f"{name} is a length of time: it must be the Unix time, in seconds, at which it expires."
        return Read(Finding("expires_duration", finding), None)
    return Read(Finding("expires_unreadable", f"{name} is not a Unix time in whole seconds."), None)


def term(field: str, text: str) -> Read:
    """Read a field of a signed policy."""
    name = TERMS[field]
    if not text:
        why = f"{name} is empty: a field that says nothing is left out."
        return Read(Finding("term_empty", why), "")
    if field == "client":
        return _clients(text, name)
    if why := wrong_with(field, text):
        meant = expires(text, name) if field == "not_before" else Read(None, None)
        return meant if meant.finding else Read(Finding("term_unreadable", f"{name} {why}."), None)
    return Read(None, text)


def _clients(text: str, name: str) -> Read:
    networks: set[str] = set()
    for item in re.split(r"[,;\s]+", text.strip()):
        try:
            networks.add(str(ip_network(item, strict=False)))
        except ValueError:
            why = f"{name} is a list of networks, as in 203.0.113.0/24,2001:db8::/32."
            return Read(Finding("term_unreadable", why), None)
    meant = ",".join(sorted(networks))
    if meant == text:
        return Read(None, text)
    why = f"{name} is not in its canonical form (sorted by code point, joined with commas): {meant}."
    return Read(Finding("client_spelling", why), meant)


def listed(text: str, what: str) -> tuple[list[Finding], str]:
    """Read a list of methods or paths. Returns its mistakes, and the list as it should be written."""
    name = f"X-Presign-{what.capitalize()}"
    found: list[Finding] = []
    plain = text
    if re.fullmatch(r"\s*\[.*\]\s*", text, re.DOTALL):
        found.append(Finding("json_list", f"{name} is written as JSON: items are joined with commas alone."))
        plain = re.sub(r"[\[\]\"']", "", text)
    items = plain.split(",")
    stripped = [item.strip() for item in items]
    if stripped != items and not found:
        found.append(Finding("list_blanks", f"{name} has blanks around its commas: join with a comma alone."))
    kept = [item for item in stripped if item]
    if len(kept) < len(stripped):
        found.append(Finding("empty_item", f"{name} has an empty item: a comma too many, or nothing in it."))
    if what == "methods" and any(item != item.upper() for item in kept):
        found.append(Finding("lower_case_methods", f"{name} has lower-case methods: they are upper-case."))
        kept = [item.upper() for item in kept]
    if len(set(kept)) < len(kept):
        found.append(Finding("item_twice", f"{name} has an item twice: each stands once."))
    if [one for index, one in enumerate(kept) if one not in kept[:index]] != sorted(set(kept)):
        text = f"{name} is not sorted by code point: it should be {','.join(sorted(set(kept)))}."
        found.append(Finding("unsorted_list", text))
    if len(kept) > 1 and any(re.fullmatch(r"/?\*+", item) for item in kept):
        found.append(
            Finding(
                "wildcard_beside_items",
                f"{name} has a * beside other items: one that grants all stands alone.",
            )
        )
    return found, ",".join(sorted(set(kept)))
