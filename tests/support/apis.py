"""The APIs of people's clients under their real names, and what may arrive there."""

import re
from typing import Any

import pytest

from support.asking import SECRET, Grant
from support.aws import AWS
from support.git import GIT
from support.lab import REAL_SECRET, bearer_connection
from support.llm import LLM
from support.proxy import Mitm
from support.seen import Seen
from support.stripe_api import STRIPE

NAMES = (
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
    "api.github.com",
    "github.com",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "dynamodb.us-east-1.amazonaws.com",
    "s3.us-east-1.amazonaws.com",
    "api.stripe.com",
    "files.stripe.com",
    "api.tls.test",
)
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE")
API = Grant("conn_api")

# Where a request is addressed, and what it carries, for any client that speaks URLs and headers.
PLACES: dict[str, tuple[str, dict[str, str]]] = {
    "gateway, query": ("http://presign.local" + API.target("v1/models"), {}),
    "https gateway, query": ("https://presign.local" + API.target("v1/models"), {}),
    "https gateway, headers": ("https://presign.local/api/proxy/conn_api/v1/models", API.headers),
    "API, query": (f"https://api.tls.test/v1/models?{API.query}", {}),
    "API, headers": ("https://api.tls.test/v1/models", API.headers),
    "API, headers without a name": ("https://api.tls.test/v1/models", API.unnamed),
    "API, token": ("https://api.tls.test/v1/models", {"Authorization": f"Bearer {API.token}"}),
}

# What every client here sends along, and no upstream may see.
BAGGAGE = {
    "Cookie": "session=sk-client-cookie",
    "X-Forwarded-For": "192.0.2.7",
    "X-Forwarded-Host": "client.test",
}
OWN_KEY = "sk-client-own-key"
LEAKS = re.compile(rb"presign|ps1_|sk-client|sk_signing|proxy-|cookie|forwarded", re.IGNORECASE)

Credential = tuple[str, str]
"""The lower-case name of a header, or `?` and the name of a parameter; and the value."""

BEARER: Credential = ("authorization", f"Bearer {REAL_SECRET}")
_SLOTS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "private-token")
_AMZ = re.compile(r"x-amz-(?:date|security-token|content-sha256|signature|credential|algorithm)")

ANSWERS = LLM | AWS | GIT | STRIPE
"""Of these APIs, by the last segment of the path, as `support.answers.BEHAVIOURS`."""


def connections() -> dict[str, Any]:
    """One for each of the APIs, each with the credential that the API takes."""
    signing = {"signing_keys": [{"secret": SECRET}]}
    preset = signing | {"auth": {"token": REAL_SECRET}}
    gemini = "https://generativelanguage.googleapis.com"
    dynamodb = "https://dynamodb.us-east-1.amazonaws.com"
    by_query = {"type": "query", "params": {"key": REAL_SECRET}}
    by_header = {"type": "header", "headers": {"X-Api-Key": REAL_SECRET}}
    by_password = {"type": "basic", "username": "x-access-token", "password": REAL_SECRET}
    return {
        "conn_api": bearer_connection("https://api.tls.test", SECRET),
        "conn_openai": {"preset": "openai"} | preset,
        "conn_anthropic": {"preset": "anthropic"} | preset,
        "conn_gemini": {"preset": "gemini"} | preset,
        "conn_gemini_query": {"upstream": gemini, "auth": by_query} | signing,
        "conn_github": {"preset": "github"} | preset,
        "conn_stripe": {"preset": "stripe"} | preset,
        "conn_git": {"upstream": "https://github.com", "auth": by_password} | signing,
        "conn_bedrock": bearer_connection("https://bedrock-runtime.us-east-1.amazonaws.com", SECRET),
        "conn_dynamodb": {"upstream": dynamodb, "auth": by_header} | signing,
        "conn_s3": bearer_connection("https://s3.us-east-1.amazonaws.com", SECRET),
    }


def trust_only(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the client one variable to find the gateway's CA by: the one that the documentation names."""
    for name in CA_VARIABLES:
        if name != variable:
            monkeypatch.delenv(name)


def with_password(proxy: Mitm) -> str:
    """The proxy's URL with a user and a password, so that clients send Proxy-Authorization."""
    return proxy.url.replace("http://", "http://client:sk-client-proxy@")


def check_sent(request: Seen, credential: Credential = BEARER) -> None:
    """The upstream saw its one real key, under its own name, and nothing of the client's secrets."""
    query = request.target.partition("?")[2].split("&")
    sent = [(name.lower(), value) for name, value in request.headers if name.lower() in _SLOTS]
    sent += [("?key", piece.removeprefix("key=")) for piece in query if piece.startswith("key=")]
    assert sent == [credential]
    assert not LEAKS.search(request.raw), request.raw
    assert not [name for name, _ in request.headers if _AMZ.fullmatch(name.lower())], request.raw
    assert request.everything.count(credential[1].encode()) == 1
    assert request.tls
    assert [request.sni] == request.all("host")
