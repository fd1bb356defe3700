"""Bounded guessing of the secret and the text behind a signature that does not verify. Offline only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NamedTuple

from ..core.connection import Connection
from ..core.registry import Registry
from ..signing import canonical
from ..signing.carrier_names import TERMS
from ..signing.keys import Try
from ..signing.signed_policy import SIGNED_AS
from ..units import instant
from .explanation import Finding, printable
from .signer_mistakes import ONLY_PLAIN, PLAIN, SECRETS, Signable, message

MAX_OTHERS: Final = 5000
"""Most other connections whose keys are tried."""
AS_SENT: Final = "as_sent"
AS_REPAIRED: Final = "as_repaired"

_FIELDS: Final = ", ".join(TERMS.values()).replace(", X-Presign", ", ")
_LINES: Final = ", ".join(f"{name}:…" for name in SIGNED_AS.values())
_MESSAGE_TEXTS: Final = {
    "trailing_newline": (
        "The signature was made over the canonical string with a newline at its end, as `echo` and "
        "here-documents add one: sign it without (`printf '%s'`)."
    ),
    "crlf": "The signature was made over lines that end in CR LF: they end in LF alone.",
    "literal_backslash_n": (
        "The signature was made over a canonical string with a backslash and an n for each newline: in "
        "bash, `printf` or $'…' makes real ones."
    ),
    "other_separator": (
        "The signature was made over values with another separator than the newline of the canonical string."
    ),
    "other_label": (
        f"The signature was made with another label in the first line: it must be {canonical.PRESIGN_LABEL}, "
        f"and {canonical.POLICY_LABEL} where there is a policy ({_FIELDS})."
    ),
    "no_label": "The signature was made without the first part of the canonical string.",
    "fields_swapped": "The signature was made over the right values in another order.",
    "policy_of_nothing": (
        "The signature was made with the label of a signed policy, but the presign has none of its fields: "
        f"sign five lines, the first of them {canonical.PRESIGN_LABEL}."
    ),
    "policy_not_signed": (
        f"The signature was made without the lines of the policy: each of {_FIELDS} that is there is signed "
        "too, and cannot be added afterwards."
    ),
    "policy_empty_lines": (
        "The signature was made with lines for fields that are absent: only a field that is present has one."
    ),
    "policy_order": (
        "The signature was made over the policy in another order: its lines come behind the paths, sorted by "
        f"name ({_LINES})."
    ),
    "policy_without_names": (
        "The signature was made over the values of the policy alone: each line begins with the name of its "
        f"field ({_LINES})."
    ),
    "policy_names": (
        f"The signature was made over the policy with its names spelled otherwise: {_LINES}, without blanks."
    ),
    "percent_encoded": (
        "The signature was made over percent-encoded values: sign the plain text, and encode it for the URL "
        "only."
    ),
    "plus_for_space": (
        "A + in a query is a space, but the signature was made over the other character. Write %20 for a "
        "space, %2B for a +."
    ),
    "paths_glued": (
        "A path is glued onto X-Presign-Paths: the client appended it to a base_url that has a query. Use a "
        "token or headers for such a client."
    ),
    "slash_added": (
        "The signature was made over paths with a leading slash, but the request carries them without: sign "
        "exactly the text that is sent."
    ),
    "slash_missing": (
        "The signature was made over paths without the leading slash that the request carries: sign exactly "
        "the text that is sent."
    ),
    "signed_with_blanks": (
        "The signature was made over lists joined with blanks: join with a comma alone, and send what was "
        "signed."
    ),
    "signed_as_json": "The signature was made over lists written as JSON: join the items with commas.",
    "case_of_methods": (
        "The signature was made over methods in another case: use upper case when signing and when sending."
    ),
    "signed_milliseconds": (
        "The signature was made over expires in milliseconds, but the request carries seconds: sign seconds."
    ),
    "signed_seconds": (
        "The signature was made over expires in seconds, but the request carries milliseconds: send seconds."
    ),
    "signed_fraction": "The signature was made over expires with a fraction (.0): sign whole seconds.",
    "signed_request": (
        "The signature was made over the method or path of the request itself, not over the lists that are "
        "sent. Sign exactly the text that is sent."
    ),
    "changed_methods": "X-Presign-Methods was changed after signing; a holder can only use what was signed.",
    "changed_paths": "X-Presign-Paths was changed after signing; a holder can only use what was signed.",
    "changed_expires": "X-Presign-Expires was changed after signing; a holder can only use what was signed.",
    "other_connection_id": "The signature was made for another connection id than the request names.",
    "signed_unsorted": (
        "The signature was made over the lists in another order than they are sent in: sort them by code "
        "point, then sign, then send the same text."
    ),
    "signed_encoded_source": (
        "The signature was made over the base64url of the source: sign the source URL itself."
    ),
    "signed_without_scheme": (
        "The signature was made over the source without its https://: sign the whole URL."
    ),
    "signed_with_slash": "The signature was made over the source with one slash more or less at its end.",
}
_SECRET_TEXTS: Final = {
    "secret_newline": "with a newline at its end (as `echo` or a file has it)",
    "secret_crlf": "with CR LF at its end (as a file from Windows has it)",
    "secret_blank": "with a blank around it",
    "secret_trimmed": "without the blanks around it, which are registered as part of it",
    "secret_quoted": "with the quotes around it (as some .env readers leave them)",
    "secret_base64": "in its base64 form: the key is the text of the secret itself, not encoded once more",
    "secret_base64_decoded": (
        "decoded from base64: the key is the text of the secret as it stands, not decoded"
    ),
    "secret_hex_decoded": "decoded from hex: the key is the text of the secret as it stands, not decoded",
    "secret_hex": "in its hex form: the key is the text of the secret itself",
    "secret_without_prefix": "without its sk_ prefix, which is part of it",
    "secret_with_prefix": "with an sk_ before it that is not part of it",
    "secret_case": "in another case",
}


class Suspect(NamedTuple):
    """A signature, and the texts that it may cover.

    `sent` and `repaired` are canonical strings, of the values as they are and as they should be. `messages`
    are other texts that may have been signed. `beginning` is the signature, or its first bytes. `misspelled`
    is True if a signed value is not well-formed. `key` is the key that X-Presign-Key names.
    """

    connection: Connection | None
    sent: bytes
    repaired: bytes
    messages: Mapping[str, bytes]
    beginning: bytes
    misspelled: bool = False
    key: str | None = None


def investigate(suspect: Suspect, now: int) -> list[Finding]:
    """Return findings on how the signature was made, from guesses with the connection's own keys.

    Empty if no guess matches.
    """
    known = suspect.connection
    if known is None or not known.keys.keys:
        return []
    as_meant = {AS_SENT: suspect.sent, AS_REPAIRED: suspect.repaired}
    if suspect.sent == suspect.repaired:
        del as_meant[AS_REPAIRED]
    ring = known.keys
    # First the values as meant, then mistakes with the secret, then mistakes with the message, then both.
    for messages, secrets in (
        (as_meant, ONLY_PLAIN),
        (as_meant, SECRETS),
        (suspect.messages, ONLY_PLAIN),
        (suspect.messages, SECRETS),
    ):
        if found := next(ring.tries(messages, secrets, suspect.beginning), None):
            return _findings(found, suspect, now)
    return []


def _findings(found: Try, suspect: Suspect, now: int) -> list[Finding]:
    findings: list[Finding] = []
    variant, message = found.variant.partition("/")[0], found.message.partition("/")[0]
    key = found.key
    if variant != PLAIN:
        text = f"The signature was made with the secret of key {key.id} {_SECRET_TEXTS[variant]}."
        findings.append(Finding(variant, text))
    if message in _MESSAGE_TEXTS:
        findings.append(Finding(message, _MESSAGE_TEXTS[message]))
    if suspect.key not in (None, key.id):
        text = f"The signature was made with key {key.id}, but X-Presign-Key names {printable(suspect.key)}."
        findings.append(Finding("other_key_named", text))
        return findings
    if not key.is_live(now):
        until = instant(key.not_after or 0)
        text = (
            f"The signature was made with key {key.id}, past its not_after ({until}): take the current one."
        )
        findings.append(Finding("expired_key", text))
    elif variant == PLAIN:
        findings += _as_meant(message, key.id, suspect)
    return findings


def _as_meant(message: str, key: str, suspect: Suspect) -> list[Finding]:
    if message == AS_REPAIRED:
        return [
            Finding(
                "signed_repaired",
                f"The signature (key {key}) was made over the correct values, but others were sent: send "
                "exactly the text that was signed.",
            )
        ]
    if message == AS_SENT and suspect.misspelled:
        return [
            Finding(
                "signed_as_sent",
                f"The signature (key {key}) was made over the values as they were sent: correct them "
                "before signing.",
            )
        ]
    if message == AS_SENT:
        return [Finding("otherwise_good", f"Once that is corrected, the signature is good (key {key}).")]
    return []


def investigate_others(
    registry: Registry, named: str, signable: Signable, beginning: bytes
) -> Iterator[Finding]:
    """Yield a finding if a key of another connection made the signature, or it is for another connection."""
    for other in islice(registry.connections.values(), MAX_OTHERS):
        if other.id == named or not other.keys.keys or other.source is not None:
            continue
        messages = {
            "other_connection_key": message(signable.lines()),
            "other_connection": message(signable._replace(connection_id=other.id).lines()),
        }
        for found in other.keys.tries(messages, ONLY_PLAIN, beginning):
            if found.message == "other_connection_key":
                text = f'The signature was made with a key of connection "{other.id}", for "{named}".'
            else:
                text = f'The signature was made for connection "{other.id}", but the request names "{named}".'
            yield Finding(found.message, text)
            return


def investigate_other_projects(
    registry: Registry, named: str, rest: tuple[str, str], beginning: bytes
) -> Iterator[Finding]:
    """Yield the same finding for scheme source. `rest` is the source URL and exp."""
    for other in islice(registry.connections.values(), MAX_OTHERS):
        if other.id == named or not other.keys.keys:
            continue
        messages = {
            "other_connection_key": canonical.source(named, *rest),
            "other_connection": canonical.source(other.id, *rest),
        }
        for found in other.keys.tries(messages, ONLY_PLAIN, beginning):
            yield Finding(
                found.message, f'The signature was made with a key of "{other.id}", not of "{named}".'
            )
            return
