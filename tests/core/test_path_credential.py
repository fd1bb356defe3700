"""A credential in the path of the upstream: where it goes, and that no client sees or leaves it."""

from __future__ import annotations

import pytest

from presign_proxy.core.connection import Connection, Upstream
from presign_proxy.core.decision import Forward
from presign_proxy.core.masking import Mask, mask_for
from presign_proxy.core.path_credential import fits_a_path, is_template, path_credential
from presign_proxy.core.rewrite_response import Reply, rewrite
from presign_proxy.errors import Denied
from presign_proxy.signing.secret import LateSecret, Secret
from support.deciding import UPSTREAM, ask, code, connection, registry, request, sent, signed

TOKEN = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11"
WEBHOOK = "T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"


CLIMBING = (
    "../getMe",
    "..",
    ".",
    "a/../../x",
    "%2e%2e/x",
    "%2E./x",
    ".%2e/x",
    "..;/x",
    "..;a=b/x",
    "%2e%2e%2fx",
    "..%2fx",
    "..%5cx",
    "..\\x",
    "%252e%252e/x",
    "/getMe",
    "a//b",
    "/../x",
    "\uff0e\uff0e/x",
    "%c0%ae%c0%ae/x",
    "..%00/x",
)


def telegram(base: bytes = b"") -> Connection:
    injector = path_credential(base, "/bot{token}", Secret(TOKEN))
    return connection(injector=injector, upstream=Upstream(UPSTREAM, base))


def granted(path: str, known: Connection | None = None, paths: str = "*") -> Forward:
    return sent(request(signed(path, paths=paths)), registry(known or telegram()))


@pytest.mark.parametrize(
    ("base", "template", "path", "leaves"),
    [
        (b"", "/bot{token}", "getMe", f"/bot{TOKEN}/getMe"),
        (b"", "/file/bot{token}", "photos/1.jpg", f"/file/bot{TOKEN}/photos/1.jpg"),
        (b"/base", "/{token}/v1", "a/", f"/base/{TOKEN}/v1/a/"),
        (b"", "/bot{token}", "", f"/bot{TOKEN}"),
        (b"", "/bot{token}", "@other/x", f"/bot{TOKEN}/@other/x"),
        (b"", "/bot{token}", "user@evil.test:80", f"/bot{TOKEN}/user@evil.test:80"),
    ],
)
def test_the_path_of_the_client_stands_behind_the_credential(
    base: bytes, template: str, path: str, leaves: str
) -> None:
    known = connection(
        injector=path_credential(base, template, Secret(TOKEN)), upstream=Upstream(UPSTREAM, base)
    )
    forward = granted(path, known)
    assert forward.sent is not None
    assert forward.sent.path.decode() == leaves
    assert forward.shown.path.decode() == leaves.replace(TOKEN, "presign:conn")
    assert forward.origin == UPSTREAM
    assert forward.facts.path == f"/{path}"


def test_a_webhook_is_the_path_of_its_credential_and_nothing_below_it() -> None:
    known = connection(injector=path_credential(b"", "/services/{token}", Secret(WEBHOOK)))
    forward = granted("", known)
    assert forward.sent is not None
    assert forward.sent.path.decode() == f"/services/{WEBHOOK}"


@pytest.mark.parametrize("path", CLIMBING)
def test_no_path_climbs_out_of_the_credential(path: str) -> None:
    assert code(request(signed(path, paths="*")), registry(telegram())) == "path_not_allowed"


def test_a_signed_pattern_is_compared_without_the_credential() -> None:
    assert granted("getMe", paths="getMe").sent is not None
    with_token = signed("getMe", paths=f"bot{TOKEN}/*")
    assert code(request(with_token), registry(telegram())) == "path_not_allowed"


def led(name: str, value: str, status: int, path: str = "v1/a", base: bytes = b"") -> str:
    forward = granted(path, telegram(base))
    mask = mask_for(forward.connection.injector)
    got = rewrite(Reply(status, b"OK", ((name.encode(), value.encode()),)), forward, mask)
    return dict(got.sent.fields)[name.encode()].decode()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (f"https://api.example.com/bot{TOKEN}/v2?a=1#b", "/v2?a=1"),
        (f"//api.example.com/bot{TOKEN}/v2", "/v2"),
        (f"/bot{TOKEN}/v2", "/v2"),
        ("c", "/v1/c"),
        ("../c", "/c"),
        (f"/bot{TOKEN}", "/"),
    ],
)
def test_a_redirect_below_the_credential_leads_through_the_gateway_without_it(value: str, path: str) -> None:
    for base in (b"", b"/base"):
        moved = value.replace("/bot", f"{base.decode()}/bot")
        got = led("Location", moved, 302, base=base)
        assert got.startswith(f"/api/proxy/conn{path}"), got
        assert TOKEN not in got
        assert "X-Presign-Signature=" in got
        assert code(request(got.partition("#")[0]), registry(telegram(base))) == "forward"


@pytest.mark.parametrize(
    "value", ["/other", "../../other", f"/bot{TOKEN}x/a", f"/x/bot{TOKEN}/a", "/api/proxy/x"]
)
def test_a_redirect_beside_the_credential_leads_to_no_connection_of_the_gateway(value: str) -> None:
    got = led("Location", value, 302)
    assert got.startswith("https://api.example.com/")
    assert TOKEN not in got
    assert "X-Presign" not in got


@pytest.mark.parametrize("name", ["Location", "Link", "Content-Location", "Operation-Location", "X-Echo"])
@pytest.mark.parametrize(
    "escaped", [TOKEN, TOKEN.replace(":", "%3A"), TOKEN.replace(":", "%3a"), TOKEN.encode().hex()]
)
def test_no_header_of_an_answer_takes_the_token_along(name: str, escaped: str) -> None:
    url = f"https://api.example.com/bot{escaped}/v2"
    for status in (200, 201, 302):
        assert escaped not in led(name, f"<{url}>; rel=next" if name == "Link" else url, status)


def test_a_redirect_at_the_apis_own_url_has_no_credential_in_its_path() -> None:
    query = signed(paths="*").partition("?")[2] + "&X-Presign-Connection=conn"
    at = {"host": "api.example.com", "scheme": "https"}
    forward = sent(request(f"/getMe?{query}", **at), registry(telegram()))
    reply = Reply(302, b"Found", ((b"Location", f"/bot{TOKEN}/getYou".encode()),))
    got = dict(rewrite(reply, forward, Mask(())).sent.fields)[b"Location"].decode()
    assert got == f"/getYou?{query}"


def test_the_last_segment_of_a_webhook_is_masked_alone_too() -> None:
    mask = mask_for(path_credential(b"", "/services/{token}", Secret(WEBHOOK)))
    last = WEBHOOK.rpartition("/")[2].encode()
    assert last not in mask.mask(b"no_service: " + last)


@pytest.mark.parametrize(
    "text", ["a/../b", "..", ".", "a//b", "/a", "a/", "a b", "a%2Fb", "a?b", "a#b", "a\\b", "ä", "", "a\n"]
)
def test_a_secret_that_a_path_cannot_carry_is_never_sent(text: str) -> None:
    """A program may print it, long after the configuration was checked."""
    assert not fits_a_path(text)
    late = LateSecret(("program",), 60)
    forward = ask(
        request(signed("getMe", paths="*")),
        registry(connection(injector=path_credential(b"", "/{token}", late), late=(late,))),
    )
    assert isinstance(forward, Forward)
    assert forward.sent is None
    with pytest.raises(Denied, match="upstream"):
        forward.filled(lambda _: Secret(text))


@pytest.mark.parametrize(
    "text",
    [
        "bot{token}",
        "/bot{token}/",
        "/bot",
        "/{token}/{token}",
        "/{path}/{token}",
        "/../{token}",
        "//{token}",
        "/%2e%2e/{token}",
        "/{token}?x=1",
        "/{token}#x",
        "/ü/{token}",
        "/a b/{token}",
        "/\\{token}",
        "",
        "/",
    ],
)
def test_a_template_is_a_canonical_path_with_one_place(text: str) -> None:
    assert not is_template(text)


@pytest.mark.parametrize(
    "text", ["/bot{token}", "/services/{token}", "/{token}", "/v1/{token}/x", "/a@b/{token}"]
)
def test_templates_of_real_apis_are_templates(text: str) -> None:
    assert is_template(text)
