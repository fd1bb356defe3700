"""Presigned requests for AWS, as its clients send them and as an attacker bends them."""

# ruff: noqa: E501 - tables of bytes, a row each

from hypothesis import strategies as st

from support.mutations import GATEWAY, H2_FIELDS, MUTATIONS, Draw, H2Sample, Message, Sample, Samples, scar

WAYS = ("direct", "absolute", "intercept", "tunnel", "connect")
MOST = 200
"""Bytes of a body that is hashed before it is sent; the largest of the mutations is longer."""

OWN = (
    b"AWS4-HMAC-SHA256 Credential=AKIAMINE/20270101/%b/aws4_request, SignedHeaders=host;x-amz-date, Signature="
    + b"0" * 64
)
SCOPES = (
    b"us-west-2/iam",
    b"eu-west-1/bedrock",
    b"*/sts",
    b"../..",
    b"us-east-1/s3/x",
    b"US-EAST-1/S3",
    b"us west/s3",
    b"/",
    b"us-west-2/iam%0a",
)

LINES = (
    *(b"Authorization: " + OWN % scope for scope in SCOPES), b"authorization: " + OWN % b"us-east-1/sts", b"Authorization_: " + OWN % b"a/b",
    b"Authorization: AWS4-ECDSA-P256-SHA256 Credential=AKIAMINE/20270101/iam/aws4_request, SignedHeaders=host, Signature=00",
    b"Authorization: AWS AKIAMINE:c2lnbmF0dXJl", b"Authorization: Basic bWluZTptaW5l", b"Proxy-Authorization: " + OWN % b"a/b",
    b"X-Amz-Date: 20270101T000000Z", b"x-amz-date: now", b"X_Amz_Date: 20270101T000000Z", b"X.Amz.Date: 1", b"Date: Thu, 01 Jan 2026 00:00:00 GMT",
    b"X-Amz-Security-Token: mine", b"x-amz-security_token: mine", b"X-AMZ-SECURITY-TOKEN: mine", b"X-Amz-S3session-Token: mine",
    b"X-Amz-Content-Sha256: UNSIGNED-PAYLOAD", b"x-amz-content-sha256: " + b"0" * 64, b"X_Amz_Content_Sha256: UNSIGNED-PAYLOAD",
    b"X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD", b"X-Amz-Content-Sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    b"x-amz-content-sha256: streaming-unsigned-payload-trailer", b"X-Amz-Content-Sha256:", b"Content-Encoding: aws-chunked", b"Content-Encoding: gzip, aws-chunked",
    b"X-Amz-Trailer: x-amz-checksum-crc32", b"X-Amz-Decoded-Content-Length: 3", b"X-Amz-Region-Set: *", b"X-Amz-Signature: " + b"0" * 64,
    b"X-Amz-Credential: AKIAMINE/20270101/us-west-2/iam/aws4_request", b"X-Amz-Algorithm: AWS4-HMAC-SHA256", b"X-Amz-SignedHeaders: host", b"X-Amz-Expires: 604800",
    b"X-Amz-Target: DynamoDB_20120810.Query", b"X-Amz-Target: A\tB", b"x-amz-target: two", b"X_Amz_Target: Three", b"X.Amz.Target: four", b"x_amz_acl: private", b"X-Amz_Meta-A: 3", b"x_amz-meta-z: 4", b"X-Amz-Target:   spaced   out   ",
    b"X-Amz-Meta-A: a   b", b"X-Amz-Meta-A: \"a   b\"", b"x-amz-meta-a: 2", b"X-AMZ-META-A: 1", b"X-Amz-Meta-B:", b"X-Amz-Meta-B: , ,", b"X-Amz-Meta-C: a\tb",
    b"X-Amz-Meta-D: caf\xc3\xa9", b"X-Amz-Meta-E: \xa0e", b"X-Amz-Meta-F: =?UTF-8?Q?f?=", b"X-Amz-Meta-G: a\r\n b", b"X-Amz-Meta-H: a\x0bb", b"X-Amz-: x", b"X-Amz: x",
    b"X-Amz-Meta-;host: x", b"X-Amz-Meta-*: y", b"X-Amz-Meta-%41: z", b"x-amz-acl: public-read", b"X-Amz-Acl : private", b"X-Amz-Copy-Source: /other/object",
    b"x_amz_copy_source: /other/object", b"X-Amz-Metadata-Directive: REPLACE", b"X-Amz-Rename-Source: /other", b"X-Amz-Security-Token: ps1_x",
    b"X-Amzn-Trace-Id: Root=1", b"X-Amz-User-Agent: boto", b"Content-Type: text/plain; charset=utf-8", b"content-type: application/json", b"Content-Type: a\tb", b"Content-Type:",
    b"Content_Type: x", b"Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==", b"Content-MD5: \xff", b"Connection: X-Amz-Target", b"Connection: X-Amz-Date, Authorization",
    b"Connection: x-amz-content-sha256", b"Connection: x-amz-meta-a, content-type", b"Host: bedrock-runtime.eu-west-1.amazonaws.com", b"Amz-Sdk-Request: attempt=1",
    b"User-Agent: aws-cli/2", b"Expect: 100-continue", b"Range: bytes=0-1",
)  # fmt: skip

PARAMETERS = (
    b"X-Amz-Algorithm=AWS4-HMAC-SHA256", b"X-Amz-Credential=AKIAMINE%2F20270101%2Fus-west-2%2Fiam%2Faws4_request", b"X-Amz-Date=20270101T000000Z",
    b"X-Amz-Credential=AKIAMINE/20270101/us-east-1/s3/aws4_request", b"X-Amz-Credential=AKIAMINE%252F20270101%252Fa%252Fb%252Faws4_request",
    b"X-Amz-Signature=" + b"0" * 64, b"x-amz-signature=1", b"X%2DAmz%2dSignature=1", b"X_Amz_Signature=1", b"X-Amz-Signature[]=1", b"%58-Amz-Signature=1",
    b"X-Amz-Signature", b"a;X-Amz-Signature=1", b"a%26X-Amz-Signature=1", b"X-Amz-SignedHeaders=host", b"X-Amz-Security-Token=mine", b"X-Amz-Expires=604800",
    b"X-Amz-Content-Sha256=UNSIGNED-PAYLOAD", b"+X-Amz-Date=1", b"X-Amz-Date%00=1", b"x-amz-acl=public-read", b"x-amz-copy-source=/o/k", b"x%2Damz-copy-source=/o/k",
    b"x-amz-website-redirect-location=/x", b"X-Amz-Meta-A=1", b"AWSAccessKeyId=AKIAMINE", b"Signature=c2ln", b"a=1+2", b"a+b=c", b"a=1%2B2", b"a=%20", b"a=+", b"+=+", b"%2B=%20+",
    b"=", b"=x", b"a", b"a=", b"", b"&", b"a=1&a=0", b"b=2&a=1", b"B=1&a=2&A=3", b"a=%ff", b"a=\xff", b"%80=%c0%af", b"a=%e2%82%ac", b"a=%", b"a=%2", b"a=%zz", b"%=%25", b"a=%2525",
    b"a==", b"a=b=c", b"a=/?:@", b"a=%2f%3F", b"a=~!*'()", b"a=%7E%2d", b"a;b=c;d", b"list-type=2&prefix=a%2Fb", b"a=%00", b"a=%0d%0aX:y", b"a=%F0%9F%A6%84", b"a-b=1&a%2Db=0&a_b=2", b"a=\"<>\"",
)  # fmt: skip

SEGMENTS = (
    b"anthropic.claude-v2:1", b"anthropic.claude-v2%3A1", b"a b", b"a%20b", b"a+b", b"a%2Bb", b"%7Ea~", b"%7ea", b"caf%C3%A9", b"caf\xc3\xa9", b"%ff", b"\xff", b"a=b&c", b"a;v=1", b"a%3Bv=1",
    b"!$&'()*,", b"%21%24%26", b"@up", b"%40up", b"..", b".", b"%2e", b"%2E%2e", b"%252e%252e", b"%2f", b"%2F..", b"%5c", b"", b"a//b", b"*", b"[x]", b"%5Bx%5D", b"a%00", b"a%0Ab", b"%25", b"%",
    b"\"quoted\"", b"{id}", b"|", b"^", b"`", b"a\tb", b"-._~", b"%E2%80%A5", b"%uFF0E", b"arn:aws:bedrock:eu-west-1:1:model%2Fx", b"x" * 900,
)  # fmt: skip

PIECES = (
    b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32:NSRBwg==\r\n\r\n", b"3;chunk-signature=" + b"0" * 64 + b"\r\nabc\r\n0;chunk-signature=00\r\n\r\n", b"", b"a" * MOST, b"a" * (MOST + 1),
)  # fmt: skip
"""Bodies: S3's own chunks, and some of the largest size that is hashed."""


def aws_requests(samples: Samples, over_tls: str) -> st.SearchStrategy[Sample]:
    """Requests to connections that sign for AWS. Args: over_tls: the one that is reached through the gateway only."""

    @st.composite
    def sample(draw: Draw) -> Sample:
        name = draw(st.sampled_from([*samples.plain]))
        at_gateway = ("direct", "absolute", "connect")
        way = draw(st.sampled_from(at_gateway if name == over_tls else WAYS))
        message, done = samples.presigned(draw, way, name), []
        for _ in range(draw(st.sampled_from((0, 1, 1, 2, 2, 3, 4)))):
            bend = draw(st.sampled_from(BENDS))
            bend(draw, message)
            done.append(bend.__name__.lstrip("_"))
        if draw(st.integers(0, 3)) == 0:
            mutate = draw(st.sampled_from(MUTATIONS))
            mutate(draw, message)
            done.append(mutate.__name__.lstrip("_"))
        data = bytes(message)
        if draw(st.integers(0, 9)) == 0:
            data += bytes(samples.presigned(draw, way, name))
            done.append("pipeline")
        if draw(st.integers(0, 9)) == 0:
            data = scar(draw, data)
            done.append("scar")
        return Sample(way, name, data, tuple(done))

    return sample()


def aws_h2_requests(samples: Samples) -> st.SearchStrategy[H2Sample]:
    """The same as header lists of HTTP/2, to the gateway."""

    @st.composite
    def sample(draw: Draw) -> H2Sample:
        message = samples.presigned(draw, "connect", draw(st.sampled_from([*samples.plain])))
        for _ in range(draw(st.sampled_from((0, 1, 1, 2, 2, 3)))):
            draw(st.sampled_from((_line, _line, _parameter, _segment)))(draw, message)
        pairs = [line.decode("latin-1").partition(":") for line in message.fields]
        fields = [(name.lower(), value.strip(" ")) for name, _, value in pairs]
        fields = [
            field for field in fields if field[0] not in ("host", "transfer-encoding", "content-length")
        ]
        pseudo = [(":method", message.method.decode()), (":scheme", "https")]
        pseudo += [(":path", message.target.decode("latin-1")), (":authority", GATEWAY)]
        listed = [*pseudo, *fields]
        if draw(st.integers(0, 7)) == 0:
            listed.insert(draw(st.integers(0, len(listed))), draw(st.sampled_from(H2_FIELDS)))
        bodies = (b"abc", *PIECES) if message.method in (b"POST", b"PUT") else (None, None, b"", b"abc")
        body = draw(st.sampled_from(bodies))
        return H2Sample(GATEWAY, "", tuple(listed), body)

    return sample()


def _line(draw: Draw, message: Message) -> None:
    for _ in range(draw(st.sampled_from((1, 1, 2, 3)))):
        message.fields.insert(draw(st.integers(1, len(message.fields))), draw(st.sampled_from(LINES)))


def _parameter(draw: Draw, message: Message) -> None:
    path, mark, query = message.target.partition(b"?")
    pieces = query.split(b"&") if mark else []
    for _ in range(draw(st.sampled_from((1, 1, 2, 4)))):
        pieces.insert(draw(st.integers(0, len(pieces))), draw(st.sampled_from(PARAMETERS)))
    message.target = path + b"?" + b"&".join(pieces)


def _segment(draw: Draw, message: Message) -> None:
    path, mark, query = message.target.partition(b"?")
    message.target = (
        path + draw(st.sampled_from((b"/", b"/", b""))) + draw(st.sampled_from(SEGMENTS)) + mark + query
    )


def _pieces(draw: Draw, message: Message) -> None:
    body = draw(st.sampled_from(PIECES))
    message.method = draw(st.sampled_from((b"PUT", b"POST")))
    message.fields = [line for line in message.fields if line[:7].lower() not in (b"content", b"transfe")]
    if draw(st.booleans()):
        message.fields.append(b"Content-Length: %d" % len(body))
        message.body = body
        return
    message.fields.append(b"Transfer-Encoding: chunked")
    halves = [half for half in (body[: len(body) // 2], body[len(body) // 2 :]) if half]
    message.body = b"".join(b"%x\r\n%b\r\n" % (len(half), half) for half in halves)
    message.body += draw(
        st.sampled_from(
            (b"0\r\n\r\n", b"0\r\nX-Amz-Meta-A: late\r\n\r\n", b"0\r\nAuthorization: late\r\n\r\n")
        )
    )


BENDS = (_line, _line, _line, _parameter, _parameter, _segment, _pieces)
