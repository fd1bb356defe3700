"""Signatures as AWS publishes them: of its signing test suite, and of the pages about S3.

Each is a request as it is sent, with the signature that its headers must get.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from support.sigv4 import Sent

DOCUMENTED: Final = {
    "AKIDEXAMPLE": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AKIAIOSFODNN7EXAMPLE": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}
SUITE_TIME: Final = 1440938160  # 2015-08-30T12:36:00Z
S3_TIME: Final = 1369353600  # 2013-05-24T00:00:00Z
_ALPHANUMERIC = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
EMPTY: Final = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
TOKEN: Final = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"


class Vector(NamedTuple):
    request: Sent
    normalise: bool = True


def _suite(
    target: str, signature: str, *fields: tuple[str, str], method: str = "GET", normalise: bool = True
) -> Vector:
    """One of the suite: for the service `service`, whose key and time never differ."""
    sent = [("Host", "example.amazonaws.com"), *fields, ("X-Amz-Date", "20150830T123600Z")]
    names = ";".join(sorted({name.lower() for name, _ in sent}))
    scope = "AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
    target = target.encode().decode("latin-1")
    return Vector(Sent(method, target, [*sent, ("Authorization", authorization)]), normalise)


def _s3(
    method: str,
    target: str,
    signature: str,
    *fields: tuple[str, str],
    payload: str = EMPTY,
    body: bytes = b"",
) -> Vector:
    sent = [("Host", "examplebucket.s3.amazonaws.com"), *fields]
    sent += [("x-amz-content-sha256", payload), ("x-amz-date", "20130524T000000Z")]
    names = ";".join(sorted(name.lower() for name, _ in sent))
    scope = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
    authorization = f"AWS4-HMAC-SHA256 Credential={scope},SignedHeaders={names},Signature={signature}"
    return Vector(Sent(method, target, [*sent, ("Authorization", authorization)], body))


SUITE: Final = {
    "get-vanilla": _suite("/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
    "get-header-key-duplicate": _suite(
        "/",
        "c9d5ea9f3f72853aea855b47ea873832890dbdd183b4468f858259531a5138ea",
        *[("My-Header1", value) for value in ("value2", "value2", "value1")],
    ),
    "get-header-value-trim": _suite(
        "/",
        "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ("My-Header1", " value1"),
        ("My-Header2", ' "a   b   c"'),
    ),
    "get-header-value-order": _suite(
        "/",
        "08c7e5a9acfcfeb3ab6b2185e75ce8b1deb5e634ec47601a50643f830c755c01",
        *[("My-Header1", value) for value in ("value4", "value1", "value3", "value2")],
    ),
    "get-space": _suite(
        "/example space/", "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741"
    ),
    "get-utf8": _suite("/ሴ", "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85"),
    "get-unreserved": _suite(
        f"/-._~{_ALPHANUMERIC}", "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f"
    ),
    "get-vanilla-query-order-key-case": _suite(
        "/?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    ),
    "get-vanilla-query-order-encoded": _suite(
        "/?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
        "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
    ),
    "get-vanilla-query-unreserved": _suite(
        f"/?-._~{_ALPHANUMERIC}=-._~{_ALPHANUMERIC}",
        "9c3e54bfcdf0b19771a7f523ee5669cdf59bc7cc0884027167c21bb143a40197",
    ),
    "get-vanilla-utf8-query": _suite(
        "/?ሴ=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"
    ),
    "get-vanilla-with-session-token": _suite(
        "/",
        "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
        ("X-Amz-Security-Token", TOKEN),
    ),
    "post-header-key-case": _suite(
        "/", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b", method="POST"
    ),
    "post-vanilla-query": _suite(
        "/?Param1=value1", "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11", method="POST"
    ),
    "get-relative-relative-normalized": _suite(
        "/example1/example2/../..", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    ),
    "get-slashes-normalized": _suite(
        "//example//", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"
    ),
    "get-slashes-unnormalized": _suite(
        "//example//",
        "87cca117541a147f6df867677d98a7d80dff226d2bfca9e4ffa899665623c7e5",
        normalise=False,
    ),
}
S3: Final = {
    "GET an object": _s3(
        "GET",
        "/test.txt",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ("Range", "bytes=0-9"),
    ),
    "PUT an object": _s3(
        "PUT",
        "/test%24file.text",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        payload="44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
        body=b"Welcome to Amazon S3.",
    ),
    "GET the lifecycle of a bucket": _s3(
        "GET", "/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    ),
    "GET a list": _s3(
        "GET", "/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    ),
}
