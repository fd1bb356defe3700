"""Version 2 once more, naively: canonical string, carriers and vectors, sharing no code with the product."""

import base64
import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from support.signing import sign

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "data" / "policy_vectors.json").read_text("utf-8")
)
ORDER = ("Client", "Id", "Key", "Max-Body", "Max-Uses", "Not-Before")


class Policy(NamedTuple):
    """A grant of version 2: the four fields, and those of the policy by the last part of their names."""

    secret: str
    terms: dict[str, str]
    connection: str = "conn"
    expires: int | str = 0
    methods: str = "GET"
    paths: str = "v1/*"
    canonical: str | None = None
    """Signed instead of the canonical string."""

    @property
    def text(self) -> str:
        if self.canonical is not None:
            return self.canonical
        return "\n".join(["PRESIGN-HMAC-SHA256-2", *self.lines])

    @property
    def lines(self) -> list[str]:
        four = [self.connection, str(self.expires), self.methods, self.paths]
        return [*four, *(f"{name.lower()}:{self.terms[name]}" for name in ORDER if name in self.terms)]

    @property
    def signature(self) -> str:
        return sign(self.secret, self.text)

    @property
    def fields(self) -> dict[str, str]:
        return {
            "X-Presign-Expires": str(self.expires),
            "X-Presign-Methods": self.methods,
            "X-Presign-Paths": self.paths,
            **{f"X-Presign-{name}": value for name, value in sorted(self.terms.items())},
            "X-Presign-Signature": self.signature,
        }

    @property
    def headers(self) -> dict[str, str]:
        return {"X-Presign-Connection": self.connection} | self.fields

    @property
    def token(self) -> str:
        encoded = base64.urlsafe_b64encode("\n".join(self.lines).encode()).decode().rstrip("=")
        return f"ps2_{encoded}.{self.signature}"

    def target(self, path: str) -> str:
        """The URL without its origin."""
        return f"/api/proxy/{self.connection}/{path}{'&' if '?' in path else '?'}{urlencode(self.fields)}"
