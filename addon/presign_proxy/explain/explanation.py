"""Explanations as data and as lines for a terminal: what the gateway would do with a request, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

Outcome = Literal["ok", "refused", "note"]

_MARKS: Final[dict[Outcome, str]] = {"ok": "ok", "refused": "!!", "note": "--"}
# A signature id, which may be shown, has 32 digits.
_SIGNATURE = re.compile(r"(?<![0-9A-Fa-f])([0-9A-Fa-f]{8})[0-9A-Fa-f]{25,}")
_TOKEN = re.compile(r"(ps[0-9]_.{4})[A-Za-z0-9_+/=.-]{9,}")
_WIDTH: Final = 11


class Step(NamedTuple):
    """One step of the gateway's decision and its outcome. `lines` are further details, one per line."""

    name: str
    outcome: Outcome
    text: str
    lines: tuple[str, ...] = ()


class Finding(NamedTuple):
    """One recognised mistake: its stable name, and a sentence that says what to do."""

    name: str
    text: str


class Conclusion(NamedTuple):
    """The decision of `core.decide`.

    For a holder without a configuration, "good" means that the signature is right and covers the request, and
    "unknown" that only the signature could not be checked; `detail` says why. "pass" means that it carries no
    presign; `detail` says under which setting it passes, unless it always does. "preflight" means that the
    gateway answers a browser's question about a page of another origin.

    `status` and `code` are None unless the request is refused. `detail` is the text for the audit log.
    `message` is the text that the client would read, empty if there is none.
    """

    decision: Literal["forward", "deny", "pass", "preflight", "good", "unknown"]
    status: int | None = None
    code: str | None = None
    detail: str | None = None
    message: str = ""
    credential: bool | None = None
    """Whether a request that is forwarded gets a credential; None if it is not forwarded."""

    @property
    def granted(self) -> bool:
        """True if the gateway grants or permits it, or if it is good as far as its holder can know."""
        return self.decision in ("forward", "preflight", "good")


class Claimed(NamedTuple):
    """What was recognised of the presign. Values that are unknown or do not apply are None."""

    scheme: str | None = None
    carrier: str | None = None
    connection: str | None = None
    key: str | None = None
    signature_id: str | None = None
    expires: int | None = None


class Leaving(NamedTuple):
    """The request that the upstream would receive: header fields by name, credentials as placeholders."""

    method: str
    url: str
    fields: tuple[str, ...]
    stripped: tuple[str, ...]
    added: tuple[str, ...]


class Explanation(NamedTuple):
    """The verdict, the steps in the gateway's order, and the mistakes, if any."""

    verdict: Conclusion
    claimed: Claimed
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    leaving: Leaving | None = None

    def to_json(self) -> dict[str, object]:
        """Return the explanation as objects, lists and texts for JSON."""
        return {
            "verdict": self.verdict._asdict(),
            "claimed": self.claimed._asdict(),
            "steps": [step._asdict() | {"lines": list(step.lines)} for step in self.steps],
            "findings": [finding._asdict() for finding in self.findings],
            "forward": None
            if self.leaving is None
            else {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in self.leaving._asdict().items()
            },
        }


def render(explanation: Explanation) -> list[str]:
    """Return lines for a terminal: one for each step, marked `ok`, `!!` or `--`; no colours."""
    lines = [headline(explanation.verdict), ""]
    for step in explanation.steps:
        lines.append(f"  {_MARKS[step.outcome]}  {step.name.ljust(_WIDTH)}  {step.text}")
        lines += [f"{' ' * (_WIDTH + 8)}{line}" for line in step.lines]
    if explanation.findings:
        lines += ["", "What went wrong:"]
        lines += [f"  *  {finding.text}" for finding in explanation.findings]
    return lines


def headline(verdict: Conclusion) -> str:
    if verdict.decision == "forward":
        how = "without a credential" if verdict.credential is False else "with the credential"
        return f"Granted: the gateway forwards it {how}."
    if verdict.decision == "good":
        return "Good: the given secret made the signature, and it covers this request."
    if verdict.decision == "unknown":
        return f"Cannot be verified {verdict.detail}. Nothing else speaks against this request."
    if verdict.decision == "preflight":
        return "A preflight: the gateway tells the browser that the page may send the request."
    if verdict.decision == "pass":
        how = verdict.detail or "the gateway passes it on as it is, without any credential"
        return f"Not presigned: {how}."
    return f"Refused: {verdict.status} {verdict.code}: {verdict.detail}."


def shown(text: str) -> str:
    """Return a text that is safe to show: no whole signature or token, no control characters."""
    return _TOKEN.sub(r"\1…", _SIGNATURE.sub(r"\1…", printable(text)))


def printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def listed(texts: Iterable[str]) -> str:
    return ", ".join(texts)
