"""Ways out of a directory: none leaves the prefix that was signed, however the upstream decodes."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest

from presign_proxy.core.decision import Forward
from presign_proxy.errors import Denied
from presign_proxy.http.paths import canonical_path
from support import thirdparty
from support.deciding import NOW, SECRET, ask, connection, registry, request
from support.signing import presign_headers
from support.upstreams import overlong, readings, resolved, stays_below

PREFIX = (b"v1", b"files")
GRANT = [
    (name.encode(), value.encode())
    for name, value in presign_headers(SECRET, "conn", NOW + 60, "GET", "v1/files/*").items()
]
KNOWN = registry(connection())


def forms(payload: bytes) -> Iterator[bytes]:
    """The payload behind the prefix: with a slash and without, as it is and percent-encoded once more."""
    for slash, form in product((b"/", b""), (payload, quote_from_bytes(payload, safe="").encode())):
        yield b"/v1/files" + slash + form


def outcome(path: bytes) -> str:
    """What became of a path signed for `v1/files/*`: refused, forwarded, or what is wrong with that."""
    asked = request(b"/api/proxy/conn" + path, *GRANT)
    decision = ask(asked, KNOWN)
    try:
        canonical = canonical_path(path.partition(b"?")[0])
    except Denied:
        return (
            "refused"
            if not isinstance(decision, Forward)
            else f"{path!r}: the function refuses, the core does not"
        )
    if not isinstance(decision, Forward):
        return "refused"
    if decision.sent.path != canonical:
        return f"{path!r}: forwarded {decision.sent.path!r}, not {canonical!r}"
    return "forwarded" if stays_below(canonical, *PREFIX) else f"{path!r}: leaves the prefix as {canonical!r}"


def count(payloads: Iterator[bytes]) -> dict[str, int]:
    """How many forms were refused and forwarded; fails where one gets out."""
    counted = {"payloads": 0, "refused": 0, "forwarded": 0}
    wrong = []
    for payload in payloads:
        counted["payloads"] += 1
        for path in forms(payload):
            became = outcome(path)
            if became in counted:
                counted[became] += 1
            else:
                wrong.append(became)
    assert not wrong, f"{len(wrong)}: " + "\n".join(wrong[:50])
    return counted


# -- the upstreams themselves: a model that finds nothing proves nothing --------------------------------


@pytest.mark.parametrize(
    "path",
    [
        b"/v1/files/../x",
        b"/v1/files/%2e%2e/x",
        b"/v1/files/%252e%252e%252fx",
        b"/v1/files/..%5cx",
        b"/v1/files\\..\\..\\x",
        b"/v1/files/..;a=b/x",
        b"/v1/files/..%3b/x",
        b"/v1/files/%c0%ae%c0%ae/x",
        b"/v1/files/..%c0%afx",
        b"/v1/files/%e0%80%ae%e0%80%ae/x",
        b"/v1/files/%f0%80%80%ae%f0%80%80%ae/x",
        b"/v1/files/..%c0%2fx",
        b"/v1/files/%u002e%u002e%u2215x",
        b"/v1/files/%25u002e%25u002e/x",
        b"/v1/files/%uff0e%uff0e/x",
        "/v1/files/．．/x".encode(),
        "/v1/files/‥/x".encode(),
        "/v1/files/..∕x".encode(),
        b"/v1/files/..%00/x",
        b"/v1/files/..%23/x",
        b"/v1/files/..%20/x",
        b"/../x",
    ],
)
def test_the_upstreams_here_are_careless(path: bytes) -> None:
    assert not stays_below(path, *PREFIX)


def test_the_upstreams_here_leave_ordinary_paths_alone() -> None:
    for path in (b"/v1/files/a", b"/v1/files/a/b..c/...", "/v1/files/é/%25".encode(), b"/v1/files/a;v=1/b"):
        assert stays_below(path, *PREFIX)
        assert b"/v1/files/" + path.split(b"/", 3)[3] in set(readings(path))
    assert overlong("aé☃😀".encode()) == "aé☃😀".encode()
    assert resolved(b"/a/./b/../c") == [b"a", b"c"]


# -- our own payloads -----------------------------------------------------------------------------------

DOTS = [
    *(
        "..",
        ".",
        "...",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "%252e%252e",
        "%25252e%25252e",
        "%%32%65%%32%65",
        "%u002e%u002e",
    ),
    *("%uff0e%uff0e", "%25u002e%25u002e", "%c0%ae%c0%ae", "%e0%80%ae%e0%80%ae", "%f0%80%80%ae%f0%80%80%ae"),
    *("%c0%2e%c0%2e", "%25c0%25ae%25c0%25ae", "．．", "%ef%bc%8e%ef%bc%8e", "‥", "․․", "。。", "%e2%80%a4."),
    *(
        "..;",
        "..;a=b",
        "..%3b",
        "..%253b",
        ".;/.",
        "..%00",
        "..%2500",
        "..%09",
        "..%0d%0a",
        ".. ",
        "..%20",
        ".%20.",
    ),
    *(
        "..?",
        "..%3f",
        "..%253f",
        "..#",
        "..%23",
        "..%2523",
        "....//..",
        ".../",
        "..%ff",
        "\x2e\x2e",
        "..\x7f",
    ),
]
SLASHES = [
    *(
        "/",
        "//",
        "/./",
        "\\",
        "%2f",
        "%2F",
        "%252f",
        "%25252f",
        "%5c",
        "%255c",
        "%u2215",
        "%u2216",
        "%25u2215",
    ),
    *(
        "%c0%af",
        "%c1%9c",
        "%e0%80%af",
        "%c0%2f",
        "%25c0%25af",
        "／",
        "%ef%bc%8f",
        "＼",
        "∕",
        "⁄",
        "%e2%81%84",
    ),
    *("/;/", ";/", "%3b/", "%00/", "/%00", "?/", "%3f/", "%23/", "%09/", "/%20/", "%0a/"),
]


def ours() -> Iterator[bytes]:
    for dots, slash, rounds, end in product(DOTS, SLASHES, (1, 3), ("x", "passwd%00.png")):
        yield ((dots + slash) * rounds + end).encode()


def test_no_spelling_of_dots_and_slashes_leaves_its_prefix() -> None:
    counted = count(ours())
    print(counted)
    assert counted["payloads"] > 6_000
    assert counted["forwarded"]


# -- swisskyrepo/PayloadsAllTheThings -------------------------------------------------------------------


def payloads(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.glob("*.txt")):
        yield from filter(None, path.read_bytes().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inside", "least"), [("Directory Traversal/Intruder", 23_000), ("File Inclusion/Intruders", 7_000)]
)
def test_no_payload_of_the_traversal_lists_leaves_its_prefix(inside: str, least: int) -> None:
    counted = count(payloads(thirdparty.folder("PayloadsAllTheThings", inside)))
    print(inside, counted)
    assert counted["payloads"] >= least
    assert counted["refused"] > counted["forwarded"]
