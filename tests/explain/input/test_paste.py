"""What people paste, as the request the gateway would see."""

from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presign_proxy.explain.input.paste import Presented, UnreadableUrl, parse
from presign_proxy.explain.input.shell_words import split
from support.deciding import GATEWAY, NOW, SECRET, code, signed
from support.signing import presign_headers, presign_params, token

URL = f"https://{GATEWAY}{signed()}"
HEADERS = presign_headers(SECRET, "conn", NOW + 60, "GET", "v1/*")
LINES = "\n".join(f"{name}: {value}" for name, value in HEADERS.items())
TOKEN = token(SECRET, "conn", NOW + 60, "GET", "v1/*")
BASIC = base64.b64encode(f"x:{TOKEN}".encode()).decode()


def fields(presented: Presented) -> dict[str, str]:
    return {name.decode().lower(): value.decode() for name, value in presented.request.fields}


# Everything that is good: what was pasted, and its kind.
GOOD = {
    "a URL": (URL, "url"),
    "a URL in quotes": (f"'{URL}'", "url"),
    "a URL in angle brackets": (f"<{URL}>", "url"),
    "a URL broken by a mail program": (URL[:60] + "\n  " + URL[60:], "url"),
    "a URL without scheme": (f"{GATEWAY}{signed()}", "url"),
    "a path": (signed(), "url"),
    "a URL with a fragment": (f"{URL}#top", "url"),
    "a path token": (f"http://{GATEWAY}/p/{TOKEN}/v1/models", "url"),
    "a loopback URL": (f"http://127.0.0.1:8080{signed()}", "url"),
    "an address": (f"http://10.1.2.3:8080{signed()}", "url"),
    "localhost": (f"localhost:8080{signed()}", "url"),
    "a URL of the API": (f"https://api.example.com/v1/models?{signed().partition('?')[2]}", "url"),
    "a token in the user name": (f"https://x:{TOKEN}@api.example.com/v1/models", "url"),
    "a token": (TOKEN, "token"),
    "a token behind Bearer": (f"Bearer {TOKEN}", "token"),
    "an environment variable": (f"export OPENAI_API_KEY='{TOKEN}'", "token"),
    "header lines": (LINES, "headers"),
    "header lines as curl -v prints them": ("\n".join(f"> {line}" for line in LINES.splitlines()), "headers"),
    "headers as JSON": (json.dumps(HEADERS), "headers"),
    "what sign --json prints": (json.dumps({"url": URL, "headers": HEADERS}), "headers"),
    "a key token in Authorization": (f"Authorization: Bearer {TOKEN}", "headers"),
    "a request head": (
        f"GET /v1/models HTTP/1.1\r\nHost: api.example.com\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
        "headers",
    ),
    "a gateway's request head": (f"GET {signed()} HTTP/1.1\nHost: {GATEWAY}", "headers"),
    "a proxy's request head": (f"GET http://{GATEWAY}{signed()} HTTP/1.1\nHost: {GATEWAY}", "headers"),
    "curl": (f"curl '{URL}'", "curl"),
    "curl after a prompt": (f'$ curl "{URL}"', "curl"),
    "curl over lines": (f"curl -sS \\\n  -H 'Accept: */*' \\\n  '{URL}'", "curl"),
    "curl piped on": (f"curl -s '{URL}' 2>/dev/null | jq .", "curl"),
    "curl with a redirect first": (f"curl >out.json '{URL}'", "curl"),
    "curl with --url": (f"curl --request GET --url '{URL}' -o /dev/null", "curl"),
    "curl through a proxy": (
        f"curl -x http://127.0.0.1:8080 https://api.example.com/v1/models -H 'Authorization: Bearer {TOKEN}'",
        "curl",
    ),
    "curl with a user": (f"curl -u x:{TOKEN} https://api.example.com/v1/models", "curl"),
    "curl with a lone user": (f"curl --user {TOKEN} https://api.example.com/v1/models", "curl"),
    "curl with a bearer": (f"curl --oauth2-bearer {TOKEN} https://api.example.com/v1/models", "curl"),
    "curl with -G": (f"curl -G '{URL}' -d limit=2 --data-urlencode 'q=a b'", "curl"),
    "curl as browsers copy it": (f"curl $'{URL}' -H 'accept: */*' --compressed", "curl"),
    "curl with dot segments": (f"curl '{URL.replace('/v1/models', '/v1/./x/../models')}'", "curl"),
}


@pytest.mark.parametrize("what", GOOD)
def test_what_is_good_stays_good(what: str) -> None:
    text, kind = GOOD[what]
    presented = parse(text)
    assert presented.kind == kind
    assert code(presented.request) == "forward"


CURL = {
    "curl -X POST": "POST",
    "curl -XDELETE": "DELETE",
    "curl -I": "HEAD",
    "curl -d a=1": "POST",
    "curl -d a=1 -G": "GET",
    "curl --json '{}'": "POST",
    "curl -F a=@file": "POST",
    "curl -T file": "PUT",
    "curl -sSLkX PATCH": "PATCH",
    "curl -sd a=1 -X PUT": "PUT",
}


@pytest.mark.parametrize("command", CURL)
def test_the_method_is_the_one_curl_would_send(command: str) -> None:
    assert parse(f"{command} '{URL}'").request.method.decode() == CURL[command]


def test_the_header_is_the_one_curl_would_send() -> None:
    text = "curl -A me -e https://r.test -b a=b --compressed -H 'X-A:  b ' -H 'X-Empty;' -H 'Accept:' -d a=1 "
    found = fields(parse(text + URL.partition("&")[0]))
    del found["host"]
    assert found == {
        "user-agent": "me",
        "referer": "https://r.test",
        "cookie": "a=b",
        "accept-encoding": "deflate, gzip",
        "content-type": "application/x-www-form-urlencoded",
        "x-a": "b",
        "x-empty": "",
    }
    assert fields(parse(f"curl -u {TOKEN} '{URL}'"))["authorization"].startswith("Basic ")
    assert fields(parse("curl --json '{}' https://a.test/"))["content-type"] == "application/json"
    assert fields(parse("curl -F a=b https://a.test/"))["content-type"].startswith("multipart/form-data")


def test_the_query_is_the_one_curl_would_send() -> None:
    text = "curl -G 'https://a.test/?x=1' -d a=1 --data-urlencode 'q=a b&c' --url-query z=é"
    assert parse(text).request.target == b"/?x=1&a=1&q=a%20b%26c&z=%C3%A9"


def test_an_ampersand_without_quotes_ends_the_command() -> None:
    presented = parse(f"curl {URL}")
    assert presented.request.target.endswith(f"X-Presign-Expires={NOW + 60}".encode())
    assert "quotes" in presented.assumed[0]


def test_a_token_is_taken_as_a_path_token_and_says_so() -> None:
    presented = parse(TOKEN)
    assert presented.request.target == f"/p/{TOKEN}/v1/".encode()
    assert presented.path_assumed
    assert [word for word in ("path token", "/v1/", "GET") if word not in " ".join(presented.assumed)] == []
    given = parse(TOKEN, path="v1/models?limit=2", method="POST", gateway="http://127.0.0.1:8080")
    assert given.request.target == f"/p/{TOKEN}/v1/models?limit=2".encode()
    assert (given.request.method, given.path_assumed) == (b"POST", False)
    assert given.request.listener == ("127.0.0.1", 8080)


@pytest.mark.parametrize(
    ("paths", "path"),
    [("*", "/"), ("repos/*/issues", "/repos/x/issues"), ("v1/über", "/v1/%C3%BCber"), ("../x", "/")],
)
def test_a_path_is_made_up_that_the_signature_allows(paths: str, path: str) -> None:
    presented = parse(token(SECRET, "conn", NOW + 60, "GET", paths))
    assert presented.request.target.decode().endswith(path)


def test_the_method_that_was_signed_is_assumed() -> None:
    for methods, expected in (("POST", b"POST"), ("DELETE,GET", b"GET"), ("*", b"GET"), ("get", b"GET")):
        assert parse(f"https://{GATEWAY}{signed(methods=methods)}").request.method == expected


def test_headers_go_where_they_are_said_to_go() -> None:
    params = presign_params(SECRET, "conn", NOW + 60, "GET", "v1/*")
    lines = "\n".join(f"{name}: {value}" for name, value in params.items())
    with pytest.raises(UnreadableUrl, match="name no connection"):
        parse(lines)
    presented = parse(lines, url="https://api.example.com/v1/models")
    assert code(presented.request) == "forward"
    assert parse(LINES).request.target == b"/api/proxy/conn/v1/"
    assert parse(LINES, path="/v1/x").request.target == b"/api/proxy/conn/v1/x"


def test_a_gateway_listens_at_addresses_unless_the_url_is_the_apis_own() -> None:
    assert parse(f"http://[::1]:8080{signed()}").request.listener == ("::1", 8080)
    assert parse("http://127.0.0.1:9000/x?X-Presign-Expires=1").request.listener is None
    assert parse("https://a.test/api/proxy/x/y").request.listener is None
    assert parse("curl -x localhost:8080 http://127.0.0.1:9000/x").request.listener == ("localhost", 8080)


BAD = {
    "nothing": "",
    "words": "my url is broken",
    "another scheme": "ftp://a.test/x",
    "a host that is none": "https://a..b/x",
    "a port that is none": "https://a.test:99999/x",
    "a variable": 'curl "https://a.test/$TOKEN"',
    "a bare variable": "curl https://a.test/ -H Authorization:$TOKEN",
    "a command substitution": "curl https://a.test/`id`",
    "an open quote": "curl 'https://a.test/",
    "an unknown option": "curl --frobnicate https://a.test/",
    "an unknown letter": "curl -Z https://a.test/",
    "an option without its value": "curl https://a.test/ -H",
    "a header without a colon": "curl https://a.test/ -H nothing",
    "headers from a file": "curl https://a.test/ -H @file",
    "a query from a file": "curl https://a.test/ -G -d @file",
    "an encoded query from a file": "curl https://a.test/ -G --data-urlencode a@file",
    "two URLs": "curl https://a.test/ https://b.test/",
    "no URL": "curl -s",
    "a glob": "curl 'https://a.test/{a,b}'",
    "lines that are no headers": f"{LINES}\nnothing",
    "JSON of something else": '{"a": 1}',
    "half a JSON object": '{"a": "b"',
    "a value no header carries": '{"X-Presign-Paths": " v1/*"}',
    "a surrogate": "https://a.test/\ud800",
    "too much": "https://a.test/" + "a" * 300_000,
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_read_is_refused_and_not_misread(what: str) -> None:
    with pytest.raises(UnreadableUrl) as refused:
        parse(BAD[what])
    assert "a.test" not in str(refused.value)


@given(
    st.text(max_size=200),
    st.sampled_from(["", "curl ", "https://", "ps1_", "{", "X-A: ", "/", "GET / HTTP/1.1\n"]),
)
def test_no_text_raises_anything_else(text: str, start: str) -> None:
    with suppress(UnreadableUrl):
        parse(start + text)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=5))
def test_quoted_words_are_split_as_a_shell_splits_them(words: list[str]) -> None:
    import shlex

    assert split(shlex.join(words)).words == tuple(words)
