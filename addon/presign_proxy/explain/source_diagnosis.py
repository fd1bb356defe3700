"""Diagnosis of a refused request of scheme source."""

from __future__ import annotations

from collections.abc import Iterator

from ..signing import canonical
from ..signing.source_scheme import Source
from . import misspellings
from .case import Case
from .explanation import Finding
from .input import lenient
from .input.lenient import LooseSource
from .signature_mismatch import Suspect, investigate, investigate_other_projects
from .signer_mistakes import source_messages


def diagnose_source(case: Case) -> list[Finding]:
    """Return the recognised mistakes in a source URL without a good signature."""
    loose = _loose(case)
    if loose is None:
        return []
    found = list(_arrangement(case, loose))
    if loose.sig is None or loose.exp is None:
        return found
    exp, sig = misspellings.expires(loose.exp, "exp"), misspellings.signature(loose.sig, "sig")
    found += [read.finding for read in (exp, sig) if read.finding is not None]
    if sig.meant is None:
        return found
    made = _investigated(case, loose, exp.meant or loose.exp, bytes.fromhex(sig.meant))
    if not made and not found:
        text = (
            "No usual mistake explains the signature: it was made with another secret, or over another URL "
            "or exp."
        )
        made = [Finding("unexplained", text)]
    return found + made


def _loose(case: Case) -> LooseSource | None:
    claim = case.claim
    if isinstance(claim, Source):
        encoded = claim.url if claim.format is None else ""
        found = lenient.read_source(case.request) if claim.format is not None else None
        return found or LooseSource(
            claim.project, claim.url, claim.format or "", claim.signature, claim.exp, encoded
        )
    return lenient.read_source(case.request)


def _arrangement(case: Case, loose: LooseSource) -> Iterator[Finding]:
    project = case.registry.get(loose.project, "source")
    rules = project.source if project else None
    if loose.entities:
        yield Finding("html_entities", "The URL was copied out of HTML: write & for each &amp;.")
    if loose.sig is not None and loose.exp is None:
        text = (
            "The URL ends after its first parameter: a shell cuts at an & without quotes. Put the URL in "
            "quotes."
        )
        yield Finding("cut_at_ampersand", text)
    elif loose.sig is None and (loose.exp is not None or (rules and rules.signed)):
        yield Finding("fields_missing", "The URL has no sig: signed sources need sig and exp.")
    if loose.sig is not None and rules and not rules.signed:
        yield Finding(
            "other_mode", "The project is in allowlist mode: its URLs carry the source in plain text."
        )
    if (loose.sig is not None and "=" in loose.encoded) or "%3D" in loose.encoded.upper():
        yield Finding("token_padding", "The base64url of the source has padding: leave the = out.")


def _investigated(case: Case, loose: LooseSource, exp: str, beginning: bytes) -> list[Finding]:
    project = case.registry.get(loose.project, "source")
    sent = canonical.source(loose.project, loose.url, loose.exp or "")
    repaired = canonical.source(loose.project, loose.url, exp)
    tried = source_messages(loose.project, loose.url, exp, loose.encoded)
    misspelled = misspellings.expires(loose.exp or "").finding is not None
    suspect = Suspect(project, sent, repaired, tried, beginning, misspelled=misspelled)
    found = investigate(suspect, case.now)
    rest = (loose.url, exp)
    return found or list(investigate_other_projects(case.registry, loose.project, rest, beginning))
