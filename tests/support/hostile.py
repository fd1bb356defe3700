"""The cases of `data/hostile.json`: their templates rendered, and their expectations as a value."""

import base64
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from support.lab import SECRETS
from support.signing import base64url, presign_canonical, sign, token

DATA = Path(__file__).resolve().parents[1] / "data" / "hostile.json"
LAB_PORT = "21001"
"""Where the recorder sits in the published file."""

Json = dict[str, Any]


def load() -> list[Json]:
    """All cases, in the order of the file."""
    cases: list[Json] = json.loads(DATA.read_text("utf-8"))["cases"]
    return cases


def _base64(signature: str) -> str:
    return base64.b64encode(bytes.fromhex(signature)).decode()


MUTATIONS: dict[str, Callable[[str], str]] = {
    "truncate32": lambda signature: signature[:32],
    "truncate63": lambda signature: signature[:63],
    "base64": _base64,
    "base64url": lambda signature: _base64(signature).translate(str.maketrans("+/", "-_", "=")),
    "upper": str.upper,
    "flip": lambda signature: signature[:-1] + format(int(signature[-1], 16) ^ 1, "x"),
    "flipfirst": lambda signature: format(int(signature[0], 16) ^ 1, "x") + signature[1:],
    "prefix": lambda signature: "sha256=" + signature,
    "prefix0x": lambda signature: "0x" + signature,
    "double": lambda signature: signature + signature,
    "zeros": lambda signature: "0" * 64,
    "empty": lambda signature: "",
}


class Template:
    """Fills `{…}` in the texts of one case, with the recorder's real port in place of the published one."""

    def __init__(self, spec: Json, port: int, now: int | None = None) -> None:
        self._port = str(port)
        self._now = int(time.time()) if now is None else now
        self._values = self._source(spec) if spec["style"] == "motioness" else self._presign(spec)

    def render(self, text: str) -> str:
        text = text.replace(LAB_PORT, self._port)
        text = re.sub(r"\{REP:(.):([0-9]+)\}", lambda match: match[1] * int(match[2]), text)
        return re.sub(r"\{([A-Z0-9]+)\}", lambda match: self._values[match[1]], text)

    def _moment(self, text: str) -> str:
        kind, number = text[:4], text[4:]
        if kind == "lit:":
            return number
        return str(self._now + int(number) if kind == "now+" else self._now - int(number))

    def _presign(self, spec: Json) -> dict[str, str]:
        cid, expires = spec["cid"], self._moment(spec["expires"])
        default = presign_canonical(cid, expires, spec["methods"], spec["paths"])
        canonical = spec.get("canonical", "").format(**spec | {"expires": expires}) or default
        signature = MUTATIONS[spec["mutate"]](sign(SECRETS[cid], canonical)) if "mutate" in spec else None
        signature = sign(SECRETS[cid], canonical) if signature is None else signature
        fields = {"EXP": expires, "MET": spec["methods"], "PAT": spec["paths"], "SIG": signature}
        values = {name: quote(value, safe="") for name, value in (fields | {"CID": cid}).items()}
        names = {"Expires": "EXP", "Methods": "MET", "Paths": "PAT", "Signature": "SIG"}
        query = "&".join(f"X-Presign-{name}={values[key]}" for name, key in names.items())
        payload = base64url("\n".join((cid, expires, spec["methods"], spec["paths"])))
        tokens = {
            "TOKEN": f"ps1_{payload}.{signature}",
            "OTHER": token(SECRETS[cid], cid, expires, "GET,HEAD,POST", "*"),
        }
        return values | tokens | {"Q": query}

    def _source(self, spec: Json) -> dict[str, str]:
        project, exp = spec["project"], self._moment(spec["exp"])
        src = spec["src"].replace(LAB_PORT, self._port)
        pattern = spec.get("canonical", "{project}:{src}:{exp}")
        signature = sign(SECRETS[project], pattern.format(project=project, src=src, exp=exp))
        signature = MUTATIONS[spec["mutate"]](signature) if "mutate" in spec else signature
        encoded = base64url(src)
        middle = len(encoded) // 2
        return {
            "EXP": quote(exp, safe=""),
            "SIG": quote(signature, safe=""),
            "CID": project,
            "Q": f"sig={quote(signature, safe='')}&exp={quote(exp, safe='')}",
            "B64": encoded,
            "B64STD": encoded.translate(str.maketrans("-_", "+/")),
            "B64NONCANON": _non_canonical(encoded),
            "B64HEAD": encoded[:middle],
            "B64TAIL": encoded[middle:],
        }


def _non_canonical(encoded: str) -> str:
    """The same bytes for a lax decoder: unused trailing bits set, else padding where none belongs."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    if len(encoded) % 4 in (2, 3):
        return encoded[:-1] + alphabet[alphabet.index(encoded[-1]) | 1]
    return encoded + "===="


@dataclass(frozen=True)
class Outcome:
    """What one attack came to, as its client saw it."""

    result: str
    """A status, or `closed` or `hang`."""
    received: bytes
    code: str | None = None
    """The product's own name for its refusal, from `X-Presign-Error`."""
    milliseconds: float = 0.0


# A refusal that SPEC §5 names is right where the file lists a 403, if it comes with the code that belongs
# to it: without one it is somebody else's answer.
SPEC_REFUSALS = {"400": "malformed", "404": "not_found", "413": "too_large", "431": "too_large"}


def acceptable(outcome: Outcome, expect: Json) -> bool:
    """Whether the client's outcome is one of those listed, or one that the file's note allows for.

    Where the case names the product's code, an answer of the gateway has to bear it.
    """
    expected = expect["client"]
    if "code" in expect:
        return outcome.result in expected and (outcome.result == "closed" or outcome.code == expect["code"])
    if outcome.result in expected:
        return True
    return (
        "403" in expected and outcome.code is not None and SPEC_REFUSALS.get(outcome.result) == outcome.code
    )
