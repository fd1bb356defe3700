"""What must never be found in anything that mitmproxy shows or writes, in every form it could take there."""

import base64
import itertools
import json
import re
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import quote, quote_plus

from support.signing import base64url, sign

FOREVER = 4102444800
"""2100-01-01: an expiry that no test lives to see."""
LONG_AGO = 1714808400

Field = tuple[str, str]


def forms(secret: str) -> frozenset[bytes]:
    """A secret raw, in base64 at all three alignments, percent-encoded in part and in full, JSON, hex."""
    raw = secret.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), json.dumps(secret)[1:-1].encode()}
    for quoted in (quote(secret, safe=""), quote(secret), quote_plus(secret)):
        found |= {quoted.encode(), re.sub(r"%..", lambda match: match[0].lower(), quoted).encode()}
    found |= {fully_quoted(secret).encode(), fully_quoted(secret).upper().encode()}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found |= {_aligned(raw, before, encode) for before in range(3)}
    return frozenset(found)


def fully_quoted(text: str) -> str:
    """Every byte percent-encoded."""
    return "".join(f"%{octet:02x}" for octet in text.encode())


def _aligned(raw: bytes, before: int, encode: Callable[[bytes], bytes]) -> bytes:
    """base64 of the bytes behind `before` others, without the digits that neighbours have a part in."""
    return encode(bytes(before) + raw)[-(-before * 4 // 3) : (before + len(raw)) * 8 // 6]


class Traces:
    """Looks for secrets in bytes."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._forms = {form: secret for secret in secrets for form in forms(secret)}

    def found_in(self, data: bytes) -> list[str]:
        """The first secrets that stand there, and what surrounds them; empty is what a test wants to see."""
        found = (
            f"{secret} in {_around(data, form)!r}" for form, secret in self._forms.items() if form in data
        )
        return list(itertools.islice(found, 5))


def _around(data: bytes, form: bytes) -> bytes:
    at = data.index(form)
    return data[max(0, at - 160) : at + len(form) + 40]


class Issuer:
    """Signs for some connections and keeps what it gave out: none of it may turn up anywhere."""

    def __init__(self, signing_secrets: dict[str, str]) -> None:
        self._secrets = signing_secrets
        self.issued: set[str] = set()

    def fields(
        self, cid: str, *, expires: int = FOREVER, methods: str = "*", paths: str = "*"
    ) -> dict[str, str]:
        """The four `X-Presign-*` fields."""
        text = f"PRESIGN-HMAC-SHA256\n{cid}\n{expires}\n{methods}\n{paths}"
        signature = sign(self._secrets[cid], text)
        self.issued.add(signature)
        values = {"Expires": str(expires), "Methods": methods, "Paths": paths, "Signature": signature}
        return {f"X-Presign-{name}": value for name, value in values.items()}

    def query(self, cid: str, **grant: Any) -> str:
        """The query carrier, percent-encoded in full."""
        fields = self.fields(cid, **grant)
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items())

    def url(self, cid: str, path: str, **grant: Any) -> str:
        """A target in gateway form; `path` without leading slash."""
        return f"/api/proxy/{cid}/{path}?{self.query(cid, **grant)}"

    def headers(self, cid: str, **grant: Any) -> list[Field]:
        """The header carrier, which names its connection."""
        fields = self.fields(cid, **grant)
        return [("X-Presign-Connection", cid), *fields.items()]

    def token(self, cid: str, *, expires: int = FOREVER, methods: str = "*", paths: str = "*") -> str:
        fields = self.fields(cid, expires=expires, methods=methods, paths=paths)
        payload = base64url(f"{cid}\n{expires}\n{methods}\n{paths}")
        token = f"ps1_{payload}.{fields['X-Presign-Signature']}"
        self.issued.add(token)
        return token

    def source(self, project: str, url: str, exp: int = FOREVER) -> str:
        """A target of scheme source."""
        signature = sign(self._secrets[project], f"{project}:{url}:{exp}")
        self.issued.add(signature)
        return f"/v1/{project}/{base64url(url)}.png?sig={signature}&exp={exp}"
