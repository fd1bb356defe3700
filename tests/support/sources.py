"""Signed source URLs for the project of `support.deciding`."""

import base64

from support.deciding import NOW, SECRET
from support.signing import sign

PNG = "https://cdn.acme.com/hero.png"


def source(
    src: str = PNG, exp: int | str = NOW + 60, form: str = "png", project: str = "pk", text: str | None = None
) -> str:
    """A signed source URL for project `pk`."""
    encoded = base64.urlsafe_b64encode(src.encode()).rstrip(b"=").decode()
    signature = sign(SECRET, text or f"{project}:{src}:{exp}")
    return f"/v1/{project}/{encoded}.{form}?sig={signature}&exp={exp}"
