"""An independent, naive signer. It shares no code with the product: two readings of the seeds meet here."""

import base64
import hashlib
import hmac
from urllib.parse import urlencode


def sign(secret: str, text: str) -> str:
    """HMAC-SHA256 of `text` under the whole secret, as 64 hex digits."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def presign_canonical(connection_id: str, expires: int | str, methods: str, paths: str) -> str:
    """The five lines of the seed that a presign signature covers."""
    return "\n".join(["PRESIGN-HMAC-SHA256", connection_id, str(expires), methods, paths])


def presign_params(
    secret: str,
    connection_id: str,
    expires: int | str,
    methods: str,
    paths: str,
    canonical: str | None = None,
) -> dict[str, str]:
    """The four `X-Presign-*` fields. `canonical` replaces the string that is signed, never the fields."""
    text = presign_canonical(connection_id, expires, methods, paths) if canonical is None else canonical
    return {
        "X-Presign-Expires": str(expires),
        "X-Presign-Methods": methods,
        "X-Presign-Paths": paths,
        "X-Presign-Signature": sign(secret, text),
    }


def presign_query(
    secret: str,
    connection_id: str,
    expires: int | str,
    methods: str,
    paths: str,
    canonical: str | None = None,
) -> str:
    """The fields as a query string, percent-encoded as the Python recipe does it."""
    return urlencode(presign_params(secret, connection_id, expires, methods, paths, canonical))


def presign_target(
    secret: str, connection_id: str, path: str, expires: int | str, methods: str, paths: str
) -> str:
    """The seed's URL form without its origin: `/api/proxy/{id}/{path}?…`."""
    return (
        f"/api/proxy/{connection_id}/{path}?{presign_query(secret, connection_id, expires, methods, paths)}"
    )


def presign_headers(
    secret: str,
    connection_id: str,
    expires: int | str,
    methods: str,
    paths: str,
    canonical: str | None = None,
) -> dict[str, str]:
    """The header carrier: the four fields, and `X-Presign-Connection`, which names the connection."""
    params = presign_params(secret, connection_id, expires, methods, paths, canonical)
    return {"X-Presign-Connection": connection_id} | params


def token(
    secret: str,
    connection_id: str,
    expires: int | str,
    methods: str,
    paths: str,
    canonical: str | None = None,
) -> str:
    """`ps1_` + base64url(id LF expires LF methods LF paths) + `.` + the signature of the URL form."""
    params = presign_params(secret, connection_id, expires, methods, paths, canonical)
    payload = "\n".join([connection_id, str(expires), methods, paths])
    return f"ps1_{base64url(payload)}.{params['X-Presign-Signature']}"


def source_url(
    secret: str,
    project_key: str,
    src: str,
    exp: int | str,
    image_format: str = "webp",
    canonical: str | None = None,
) -> str:
    """The source scheme's URL without its origin: `/v1/{project}/{base64url(src)}.{format}?sig=…&exp=…`."""
    text = f"{project_key}:{src}:{exp}" if canonical is None else canonical
    return f"/v1/{project_key}/{base64url(src)}.{image_format}?sig={sign(secret, text)}&exp={exp}"


def base64url(text: str) -> str:
    """URL-safe base64 of the UTF-8 bytes, without padding."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
