"""Bodies of responses: unpacked, masked, and broken off where they cannot be read."""

import gzip
import zlib

import pytest

from presign_proxy.core.content_coding import DecodingError
from presign_proxy.core.masking import Mask
from presign_proxy.core.response_body import Body
from support.deciding import KEY


@pytest.mark.parametrize(
    "pack", [gzip.compress, zlib.compress, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])]
)
def test_a_compressed_echo_is_unpacked_and_masked(pack) -> None:
    text = b"key: " + KEY.encode() + b"!" * 200_000
    packed = pack(text)
    body = Body(Mask([KEY.encode()]), encoded=True)
    out = [piece for at in range(0, len(packed), 7) for piece in body.feed(packed[at : at + 7])] + list(
        body.finish()
    )
    assert b"".join(out) == text.replace(KEY.encode(), b"*" * len(KEY))
    assert max(map(len, out)) <= 65536 + 100


def test_a_truncated_or_false_encoding_breaks_off() -> None:
    for data in (gzip.compress(b"x" * 1000)[:-4], b"not gzip at all"):
        body = Body(Mask([KEY.encode()]), encoded=True)
        with pytest.raises(DecodingError):
            list(body.feed(data)) + list(body.finish())


@pytest.mark.parametrize("chunk", [64 * 1024, 512 * 1024])
def test_members_without_content_cost_no_more_than_their_bytes(chunk: int) -> None:
    """What is left of a chunk was copied at each of their ends."""
    empty = gzip.compress(b"", mtime=0)
    body = Body(Mask([KEY.encode()]), encoded=True)
    members = chunk // len(empty)
    pieces = list(body.feed(empty * members))
    assert not any(pieces)
    assert len(pieces) > members // 20, "others have their turn between two of them"
    assert list(body.feed(gzip.compress(b"end"))) == [b"end"]
    assert not list(body.finish())
