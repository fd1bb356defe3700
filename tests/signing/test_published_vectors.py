"""Our own cryptographic calls against published vectors: those of the standards, and Wycheproof's."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from presign_proxy.config.registry_file.encryption import VaultError, VaultKey, _decrypt, unseal
from presign_proxy.signing.keys import KeyRing, SigningKey, mac
from presign_proxy.signing.secret import Secret
from support import thirdparty

Vector = dict[str, Any]

RFC_4231 = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (b"\xaa" * 20, b"\xdd" * 50, "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
    (
        bytes(range(1, 26)),
        b"\xcd" * 50,
        "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
    ),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
]
# The GCM specification's test cases 13 and 14, and its 16 with additional data: key, nonce, aad, plain,
# ciphertext, tag.
_KEY16 = "feffe9928665731c6d6a8f9467308308" * 2
_AAD16 = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
_PLAIN16 = (
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
)
_CIPHER16 = (
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
    "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
)
GCM = [
    ("00" * 32, "00" * 12, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"),
    (
        "00" * 32,
        "00" * 12,
        "",
        "00" * 16,
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ),
    (
        _KEY16,
        "cafebabefacedbaddecaf888",
        _AAD16,
        _PLAIN16,
        _CIPHER16,
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ),
]


@pytest.mark.parametrize(("key", "message", "tag"), RFC_4231)
def test_a_signature_is_that_of_the_standard(key: bytes, message: bytes, tag: str) -> None:
    assert mac(key, message).hex() == tag


@pytest.mark.parametrize(("key", "nonce", "aad", "plain", "ciphertext", "tag"), GCM)
def test_a_file_is_decrypted_as_the_standard_has_it(
    key: str, nonce: str, aad: str, plain: str, ciphertext: str, tag: str
) -> None:
    inputs = tuple(map(bytes.fromhex, (key, nonce, aad)))
    sealed, good = bytes.fromhex(ciphertext), bytes.fromhex(tag)
    assert _decrypt(*inputs, [sealed], good) == bytes.fromhex(plain)
    assert _decrypt(*inputs, [sealed[at : at + 1] for at in range(len(sealed))], good) == bytes.fromhex(plain)
    for bit in range(128):
        bad = (int.from_bytes(good) ^ 1 << bit).to_bytes(16)
        assert _decrypt(*inputs, [sealed], bad) is None


# -- C2SP/wycheproof ------------------------------------------------------------------------------------


def vectors(name: str) -> Iterator[tuple[Vector, Vector]]:
    """Each vector with its group."""
    path = thirdparty.folder("wycheproof", "testvectors_v1") / f"{name}_test.json"
    for group in json.loads(path.read_text("utf-8"))["testGroups"]:
        for vector in group["tests"]:
            yield group, vector


def test_signatures_agree_with_wycheproof() -> None:
    """Full tags of 256 bits, for keys of every length: we know no shorter ones, and refuse them all, also
    where they begin a good tag. Through the ring go those keys that are text, as ours always are.
    """
    counted = {"valid": 0, "invalid": 0, "truncated": 0, "through the ring": 0}
    for group, vector in vectors("hmac_sha256"):
        key, message = bytes.fromhex(vector["key"]), bytes.fromhex(vector["msg"])
        full = group["tagSize"] == 256
        good = full and vector["result"] == "valid"
        counted["truncated" if not full else vector["result"]] += 1
        assert (mac(key, message).hex() == vector["tag"]) == good, vector
        try:
            text = key.decode("utf-8")
        except UnicodeDecodeError:
            continue
        counted["through the ring"] += 1
        ring = KeyRing((SigningKey("other", Secret("x" * 32)), SigningKey("k", Secret(text))))
        found = ring.verify(message, vector["tag"], 0)
        assert (found is not None and found.id == "k") == good, vector
    print(counted)
    assert counted["valid"] >= 30
    assert counted["invalid"] >= 40
    assert counted["truncated"] >= 80


def test_decryption_agrees_with_wycheproof() -> None:
    """Keys of 256 bits, nonces of 96, tags of 128: ours are no other. The additional data of a JWE is its
    protected header, which no vector has, so these go to the function below it.
    """
    counted = {"valid": 0, "invalid": 0}
    for group, vector in vectors("aes_gcm"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        key, nonce, aad, plain, sealed, tag = (
            bytes.fromhex(vector[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        expected = plain if vector["result"] == "valid" else None
        counted[vector["result"]] += 1
        for pieces in ([sealed], [sealed[:1], sealed[1:7], sealed[7:]]):
            assert _decrypt(key, nonce, aad, pieces, tag) == expected, vector
    print(counted)
    assert counted["valid"] >= 30
    assert counted["invalid"] >= 15


def test_wycheproof_in_a_file_opens_only_if_it_is_of_our_kind() -> None:
    """The same keys, nonces and plaintexts as a JWE, sealed by another implementation; vectors of other
    sizes make files that are refused before anything is decrypted.
    """
    opened = refused = 0
    for group, vector in vectors("aes_gcm"):
        key, nonce, plain = (bytes.fromhex(vector[name]) for name in ("key", "iv", "msg"))
        ours = (group["keySize"], group["ivSize"]) == (256, 96)
        protected = b64(b'{"alg":"dir","enc":"A256GCM"}')
        if not ours and group["keySize"] != 256:
            continue
        if ours:
            sealed = AESGCM(key).encrypt(nonce, plain, protected)
            body, tag = sealed[:-16], sealed[-16:]
        else:
            body, tag = bytes.fromhex(vector["ct"]), bytes.fromhex(vector["tag"])
        file = b".".join((protected, b"", b64(nonce), b64(body), b64(tag)))
        opener = VaultKey(Secret(b64(key).decode()), "any")
        if ours:
            assert unseal(file, [opener]) == plain, vector
            flipped = b64(bytes((tag[0] ^ 1,)) + tag[1:])
            for changed in (flipped, b64(tag[:12]), b64(tag + b"\0"), b""):
                with pytest.raises(VaultError):
                    unseal(file.rpartition(b".")[0] + b"." + changed, [opener])
            opened += 1
        else:
            with pytest.raises(VaultError):
                unseal(file, [opener])
            refused += 1
    print(f"opened {opened}, refused for their size {refused}")
    assert opened >= 60
    assert refused >= 20


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
