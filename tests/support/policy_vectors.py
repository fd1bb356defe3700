"""Makes tests/data/policy_vectors.json from the specification alone (`python policy_vectors.py > …`).

Each vector says what was signed and with what, every intermediate value, and what comes of it: `forward`, or
the code of the refusal. It imports nothing of the product or its tests.
"""

import base64
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlencode

ORDER = ("client", "id", "key", "max_body", "max_uses", "not_before")
NAMES = {name: "X-Presign-" + name.replace("_", "-").title() for name in ORDER}
SECRETS = {"k1": "sk_policy_vectors_first_0123456789", "k2": "sk_policy_vectors_second_0123456789"}
CONNECTION, PATH, NOW = "conn_vector", "v1/models", 1_800_000_000
GRANT = {"connection": CONNECTION, "expires": str(NOW + 3600), "methods": "GET,POST", "paths": "v1/*"}

LABEL_1, LABEL_2 = "PRESIGN-HMAC-SHA256", "PRESIGN-HMAC-SHA256-2"


def lines_of(terms: dict[str, str]) -> list[str]:
    return [f"{name.replace('_', '-')}:{terms[name]}" for name in ORDER if name in terms]


def base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def vector(about: str, terms: dict[str, str], outcome: str, **more: Any) -> dict[str, Any]:
    """One grant. `more`: `canonical`, signed in place of the canonical string; `key`, which signs; `request`,
    what is asked; `fields` and `token`, in place of those that the grant makes.
    """
    four = [GRANT["connection"], GRANT["expires"], GRANT["methods"], GRANT["paths"]]
    lines = lines_of(terms)
    canonical = more.get("canonical", "\n".join([LABEL_2, *four, *lines]))
    key = more.get("key", "k1")
    signature = hmac.new(SECRETS[key].encode(), canonical.encode(), hashlib.sha256).hexdigest()
    fields = [(f"X-Presign-{name.title()}", GRANT[name]) for name in ("expires", "methods", "paths")]
    fields += [(NAMES[name], terms[name]) for name in ORDER if name in terms]
    fields += [("X-Presign-Signature", signature)]
    fields = [tuple(pair) for pair in more.get("fields", fields)]
    fields = [(name, signature if value == "{signature}" else value) for name, value in fields]
    token = more.get("token", f"ps2_{base64url(chr(10).join([*four, *lines]))}.{{signature}}")
    asked = {"method": "GET", "path": PATH, "client": "203.0.113.9", "now": NOW, "content_length": None}
    return {
        "about": about,
        "grant": GRANT,
        "terms": terms,
        "signed_with": key,
        "canonical": canonical,
        "signature": signature,
        "url": f"/api/proxy/{CONNECTION}/{PATH}?{urlencode(fields)}",
        "headers": dict([("X-Presign-Connection", CONNECTION), *fields]),
        "token": token.replace("{signature}", signature),
        "request": asked | more.get("request", {}),
        "outcome": outcome,
    }


ALL = {
    "not_before": str(NOW - 60),
    "client": "2001:db8::/32,203.0.113.0/24",
    "max_body": "1048576",
    "key": "k1",
    "id": "nightly-import",
}


def fields_of(terms: dict[str, str]) -> list[tuple[str, str]]:
    four = [(f"X-Presign-{name.title()}", GRANT[name]) for name in ("expires", "methods", "paths")]
    named = [(NAMES.get(name, name), value) for name, value in terms.items()]
    return [*four, *named, ("X-Presign-Signature", "{signature}")]


FOUR = [GRANT[name] for name in ("connection", "expires", "methods", "paths")]
V1 = "\n".join([LABEL_1, *FOUR])
V2 = "\n".join([LABEL_2, *FOUR, *lines_of(ALL)])


def lined(*lines: str) -> str:
    """A canonical string with these lines in place of the policy's."""
    return "\n".join([LABEL_2, *FOUR, *lines])


GOOD = [
    vector("all but max_uses", ALL, "forward"),
    vector("only a first second", {"not_before": str(NOW)}, "forward"),
    vector("only an IPv4 network", {"client": "203.0.113.0/24"}, "forward"),
    vector("one address", {"client": "203.0.113.9/32"}, "forward"),
    vector("an IPv6 network", {"client": "2001:db8::/32"}, "forward", request={"client": "2001:db8:1::1"}),
    vector("everybody", {"client": "0.0.0.0/0,::/0"}, "forward"),
    vector(
        "IPv4 inside IPv6 is IPv4",
        {"client": "203.0.113.0/24"},
        "forward",
        request={"client": "::ffff:203.0.113.9"},
    ),
    vector("no body, none sent", {"max_body": "0"}, "forward"),
    vector("a body of exactly the size", {"max_body": "10"}, "forward", request={"content_length": 10}),
    vector("the key that signed", {"key": "k2"}, "forward", key="k2"),
    vector("only a name", {"id": "a"}, "forward"),
    vector("the longest name", {"id": "a" * 64}, "forward"),
]
COUNTED = [
    vector("ten uses", {"max_uses": "10"}, "forward"),
    vector("every field", ALL | {"max_uses": "3"}, "forward"),
]
DENIED = [
    vector("one second too early", {"not_before": str(NOW + 1)}, "not_yet_valid"),
    vector("expired before it began", ALL | {"not_before": "999999999999"}, "not_yet_valid"),
    vector("too late", ALL, "expired", request={"now": NOW + 3601}),
    vector("another network", {"client": "198.51.100.0/24"}, "client_not_allowed"),
    vector("the next address", {"client": "203.0.113.8/32"}, "client_not_allowed"),
    vector("IPv6 alone", {"client": "::/0"}, "client_not_allowed"),
    vector("a body of one byte too many", {"max_body": "10"}, "too_large", request={"content_length": 11}),
    vector("any body where none may be", {"max_body": "0"}, "too_large", request={"content_length": 1}),
    vector("another method", ALL, "method_not_allowed", request={"method": "PUT"}),
]
INVALID = [
    vector("another key than the one named", {"key": "k1"}, "invalid", key="k2"),
    vector("a key that is not there", {"key": "k3"}, "invalid"),
    vector("the label of version 1", ALL, "invalid", canonical=V2.replace(LABEL_2, LABEL_1)),
    vector("the five lines of version 1", ALL, "invalid", canonical=V1),
    vector("a newline at the end", ALL, "invalid", canonical=V2 + "\n"),
    vector("CR LF", ALL, "invalid", canonical=V2.replace("\n", "\r\n")),
    vector("the policy before the grant", ALL, "invalid", canonical="\n".join(
        [LABEL_2, *lines_of(ALL), *FOUR])),
    vector("the fields in reverse order", ALL, "invalid", canonical=lined(*reversed(lines_of(ALL)))),
    vector("values without their names", ALL, "invalid", canonical=lined(
        *(ALL[name] for name in ORDER if name in ALL))),
    vector("a line for an absent field", ALL, "invalid", canonical=lined(
        *lines_of(ALL | {"max_uses": ""}))),
    vector("names as in the query", ALL, "invalid", canonical=lined(
        *(f"{NAMES[name]}:{ALL[name]}" for name in ORDER if name in ALL))),
    vector("names with a low line", ALL, "invalid", canonical=lined(
        *(f"{name}:{ALL[name]}" for name in ORDER if name in ALL))),
    vector("a blank behind the colon", ALL, "invalid", canonical=lined(
        *(line.replace(":", ": ", 1) for line in lines_of(ALL)))),
    vector("a value under another name", {"id": "a"}, "invalid", canonical=lined("key:a")),
    vector("a field added afterwards", {"id": "a"}, "invalid", canonical=V1),
    vector("a field taken off afterwards", {"id": "a"}, "invalid", canonical=lined("id:a", "max-uses:1")),
    vector("a wider network than was signed", {"client": "0.0.0.0/0"}, "invalid", canonical=lined(
        "client:203.0.113.0/24")),
]  # fmt: skip


def wrong(name: str, value: str) -> dict[str, Any]:
    return vector(f"{name} {value!r}", {name: value}, "malformed")


UNGRAMMATICAL = [
    *(wrong("not_before", value) for value in ("0", "-1", "+1", "01", "1.0", "1e3", " 1", "1800000000000")),
    *(wrong("not_before", value) for value in ("soon", "\u0661", "1\n")),
    *(wrong("max_uses", value) for value in ("0", "-1", "01", "1.0", "ten", "1000000000000")),
    *(wrong("client", value) for value in (
        "203.0.113.9", "203.0.113.9/24", "203.0.113.0/24,198.51.100.0/24", "203.0.113.0/24,203.0.113.0/24",
        "203.0.113.0/024", "203.0.113.0/33", "203.0.113.0/", "203.0.113.0/24,", ",203.0.113.0/24",
        "203.0.113.0/24, 203.0.114.0/24", "203.0.113/24", "0xcb.0.113.0/24", "203.0.113.0/255.255.255.0",
        "2001:DB8::/32", "2001:db8:0::/32", "2001:0db8::/32", "::ffff:203.0.113.0/120",
        "::ffff:cb00:7100/120", "fe80::%eth0/64", "example.com", "*",
    )),
    *(wrong("max_body", value) for value in ("-1", "01", "1K", "1.0", "1000000000000")),
    *(wrong("key", value) for value in ("a/b", "a b", "a,b", "\u00fc", "a" * 65)),
    *(wrong("id", value) for value in ("a.b", "a/b", "a b", "\u00fc", "a" * 65)),
]  # fmt: skip
FOUR_LINES = base64url("\n".join(FOUR))
ALL_LINES = base64url("\n".join([*FOUR, *lines_of(ALL)]))


def wrong_token(about: str, *lines: str) -> dict[str, Any]:
    """A token with these lines behind the four, signed as it stands."""
    payload = base64url("\n".join([*FOUR, *lines]))
    token = f"ps2_{payload}.{{signature}}"
    return vector(about, {}, "malformed", token=token, canonical=lined(*lines))


CONFUSED = [
    vector("an empty field", {}, "malformed", fields=fields_of({"id": ""})),
    vector("an empty field beside others", {}, "malformed", fields=fields_of({"id": "a", "client": ""})),
    vector("a field twice", {}, "malformed", fields=fields_of({"id": "a", "X-Presign-Id": "a"})),
    vector("an unknown field", {}, "malformed", fields=fields_of({"X-Presign-Max-Bytes": "1"})),
    vector("a field in other case", {}, "malformed", fields=fields_of({"X-Presign-ID": "a"})),
]
TOKENS = [
    vector("ps2_ with four lines", {}, "malformed", token=f"ps2_{FOUR_LINES}.{{signature}}", canonical=V1),
    vector("ps1_ with a policy", ALL, "malformed", token=f"ps1_{ALL_LINES}.{{signature}}"),
    vector("ps2_ with padding", ALL, "malformed", token=f"ps2_{ALL_LINES}=.{{signature}}"),
    wrong_token("ps2_ with an empty line", ""),
    wrong_token("ps2_ with an empty line at the end", "id:a", ""),
    wrong_token("ps2_ with a field that is not known", "id:a", "max-bytes:1"),
    wrong_token("ps2_ with a field of version 1", "expires:0"),
    wrong_token("ps2_ with an empty value", "id:"),
    wrong_token("ps2_ with a name alone", "id"),
    wrong_token("ps2_ with a field twice", "id:a", "id:a"),
    wrong_token("ps2_ with a field twice, and two values", "id:a", "id:b"),
    wrong_token("ps2_ with fields that are not sorted", "key:k1", "id:a"),
    wrong_token("ps2_ with a name in upper case", "Id:a"),
    wrong_token("ps2_ with a name as in the query", "X-Presign-Id:a"),
    wrong_token("ps2_ with a blank", "id: a"),
    wrong_token("ps2_ with the values alone", "a"),
    wrong_token("ps2_ with more lines than there are fields", *lines_of(ALL | {"max_uses": "1"}), "z:1"),
    wrong_token("ps2_ with CR LF", "id:a\r", "key:k1"),
]

if __name__ == "__main__":
    print(
        json.dumps(
            {
                "about": "presign-proxy: signed policy, label PRESIGN-HMAC-SHA256-2; docs/signed-policy.md",
                "secrets": SECRETS,
                "upstream": "https://api.example.com",
                "every_carrier": GOOD + DENIED + INVALID + UNGRAMMATICAL,
                "query": CONFUSED,
                "token": TOKENS,
                "counted": COUNTED,
            },
            indent=1,
            ensure_ascii=True,
        )
    )
