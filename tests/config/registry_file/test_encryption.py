"""The encrypted registry: what JOSE libraries make of it; what hostile files, crashes and full disks do."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwe
from joserfc.jwk import OctKey

from presign_proxy.config.registry_file.encryption import (
    Passphrase,
    VaultError,
    VaultKey,
    new_key,
    parse_key,
    seal,
    unseal,
)
from presign_proxy.config.registry_file.storage import PrivateFileError, lock, read_private, write_private
from presign_proxy.signing.secret import Secret
from support.serving import environment

PAYLOAD = b'{"connections": {}}'
PHRASE = Passphrase(Secret("correct horse battery staple"))


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def key() -> VaultKey:
    return parse_key(new_key())


@pytest.fixture(scope="module")
def by_phrase() -> bytes:
    return seal(PAYLOAD, PHRASE)


def jose(key: VaultKey) -> OctKey:
    return OctKey.import_key({"kty": "oct", "k": key.secret.reveal()})


def with_header(sealed: bytes, **changes: object) -> bytes:
    """The file under another protected header; None takes a parameter out."""
    first, _, rest = sealed.partition(b".")
    header = json.loads(base64.urlsafe_b64decode(first + b"==")) | changes
    header = {name: value for name, value in header.items() if value is not None}
    return b64(json.dumps(header).encode()).encode() + b"." + rest


# -- the format ---------------------------------------------------------------------------------------


def test_joserfc_opens_what_we_wrote(key: VaultKey) -> None:
    opened = jwe.decrypt_compact(seal(PAYLOAD, key).decode(), jose(key), algorithms=["dir", "A256GCM"])
    assert opened.plaintext == PAYLOAD
    assert opened.protected == {"alg": "dir", "enc": "A256GCM", "cty": "json", "kid": jose(key).thumbprint()}


@pytest.mark.parametrize("kid", [True, False])
def test_we_open_what_joserfc_wrote(key: VaultKey, *, kid: bool) -> None:
    header = {"alg": "dir", "enc": "A256GCM"} | ({"kid": key.kid} if kid else {})
    text = jwe.encrypt_compact(header, PAYLOAD, jose(key), algorithms=["dir", "A256GCM"])
    assert unseal(text.encode(), [parse_key(new_key()), key]) == PAYLOAD


def test_joserfc_opens_a_file_with_the_key_that_a_passphrase_gave(by_phrase: bytes) -> None:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    header = json.loads(base64.urlsafe_b64decode(by_phrase.split(b".")[0] + b"=="))
    cost = header["argon2id"]
    salt = base64.urlsafe_b64decode(cost["salt"] + "==")
    derived = Argon2id(
        salt=salt, length=32, iterations=cost["t"], lanes=cost["p"], memory_cost=cost["m"]
    ).derive(PHRASE.secret.reveal().encode())
    opened = jwe.decrypt_compact(
        by_phrase.decode(),
        OctKey.import_key({"kty": "oct", "k": b64(derived)}),
        registry=jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False),
    )
    assert opened.plaintext == PAYLOAD
    assert (cost["m"], cost["t"], cost["p"]) == (65536, 3, 4)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([0, 1, 786431, 786432, 786433, 1_600_000]))
def test_what_is_sealed_is_unsealed(tail: bytes, filler: int) -> None:
    key = parse_key(new_key())
    payload = b"x" * filler + tail
    assert unseal(seal(payload, key), [key]) == payload


@pytest.mark.slow
def test_a_hundred_thousand_saves_never_share_a_nonce(key: VaultKey) -> None:
    assert len({seal(b"{}", key).split(b".")[2] for _ in range(100_000)}) == 100_000


def test_every_save_under_a_passphrase_has_a_salt_and_a_nonce_of_its_own(by_phrase: bytes) -> None:
    parts = [by_phrase.split(b"."), *(seal(PAYLOAD, PHRASE).split(b".") for _ in range(3))]
    assert [len({one[place] for one in parts}) for place in (0, 2)] == [4, 4]


# -- hostile files ------------------------------------------------------------------------------------


def test_no_byte_can_be_changed(key: VaultKey) -> None:
    sealed = seal(PAYLOAD, key)
    for at in range(len(sealed)):
        for bit in (1, 4, 32):
            changed = sealed[:at] + bytes([sealed[at] ^ bit]) + sealed[at + 1 :]
            with pytest.raises(VaultError):
                unseal(changed, [key])


def test_no_byte_can_be_cut_off_or_added(key: VaultKey) -> None:
    sealed = seal(PAYLOAD, key)
    for end in range(len(sealed)):
        with pytest.raises(VaultError):
            unseal(sealed[:end], [key])
    for added in (b"\n", b"A", b"=", b".", b"\x00", b" "):
        for changed in (sealed + added, added + sealed):
            with pytest.raises(VaultError):
                unseal(changed, [key])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"alg": "A256KW"}, "alg is not dir"),
        ({"alg": "none"}, "alg is not dir"),
        ({"enc": "A128GCM"}, "alg is not dir"),
        ({"alg": None}, "alg is not dir"),
        ({"zip": "DEF"}, "parameter that is not known"),
        ({"crit": ["exp"]}, "parameter that is not known"),
        ({"kid": "../../etc"}, "kid is not readable"),
        ({"kid": 7}, "kid is not readable"),
        ({"kid": "other"}, "is encrypted with the key other; the configuration has"),
        ({"kid": None}, "was changed"),
        ({"argon2id": {}}, "out of bounds"),
    ],
)
def test_a_header_that_was_forged_is_refused(key: VaultKey, changes: dict[str, object], why: str) -> None:
    with pytest.raises(VaultError, match=why):
        unseal(with_header(seal(PAYLOAD, key), **changes), [key])


@pytest.mark.parametrize(
    "cost",
    [
        {"m": 2**31},
        {"m": 8},
        {"t": 10**9},
        {"t": 0},
        {"p": 2**20},
        {"p": 0},
        {"m": True},
        {"m": "65536"},
        {"t": 3.0},
        {"salt": ""},
        {"salt": "AAAA"},
        {"salt": "A" * 4000},
        {"salt": "é" * 22},
        {"salt": 7},
        {"more": 1},
    ],
    ids=str,
)
def test_hostile_parameters_are_refused_before_anything_is_derived(
    by_phrase: bytes, cost: dict[str, object]
) -> None:
    header = json.loads(base64.urlsafe_b64decode(by_phrase.split(b".")[0] + b"=="))
    began = time.process_time()
    with pytest.raises(VaultError):
        unseal(with_header(by_phrase, argon2id=header["argon2id"] | cost), [PHRASE])
    # One derivation is hundreds of milliseconds of CPU time; the hostile ones would be hours.
    assert time.process_time() - began < 60


def test_a_header_that_names_a_parameter_twice_is_refused(key: VaultKey) -> None:
    rest = seal(PAYLOAD, key).partition(b".")[2]
    twice = b64(b'{"alg":"dir","enc":"A256GCM","enc":"A256GCM"}').encode()
    with pytest.raises(VaultError, match="header is not readable"):
        unseal(twice + b"." + rest, [key])


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"....", b"a.b.c.d.e", b"\xff" * 50, b"." * 10_000, b"A" * 100_000]
)
def test_what_is_no_registry_is_refused(key: VaultKey, content: bytes) -> None:
    with pytest.raises(VaultError):
        unseal(content, [key, PHRASE])


def test_the_wrong_key_and_the_wrong_passphrase_are_told_apart_from_nothing_else(
    key: VaultKey, by_phrase: bytes
) -> None:
    other = parse_key(new_key())
    with pytest.raises(
        VaultError, match=f"encrypted with the key {key.kid}; the configuration has {other.kid}"
    ):
        unseal(seal(PAYLOAD, key), [other])
    with pytest.raises(VaultError, match="names only a passphrase"):
        unseal(seal(PAYLOAD, key), [PHRASE])
    with pytest.raises(VaultError, match="the passphrase is wrong, or"):
        unseal(by_phrase, [Passphrase(Secret("wrong"))])
    with pytest.raises(VaultError, match="names none"):
        unseal(by_phrase, [key])
    assert unseal(by_phrase, [key, Passphrase(Secret("wrong")), PHRASE]) == PAYLOAD


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "A" * 43,
        "é" * 43,
        b64(bytes(range(32))) + "=",
        b64(bytes(range(31))),
        b64(bytes(range(33))),
        b64(bytes(31) + b"\x01"),
        b64(bytes(range(32)))[:-1] + "B",
    ],
)
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(VaultError) as error:
        parse_key(Secret(text))
    assert not text or text not in str(error.value)


# -- the file -----------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "connections.enc"
    write_private(path, b"old")
    return path


def test_the_file_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("mode", "why"), [(0o640, "readable"), (0o604, "readable"), (0o620, "writable")])
def test_a_file_that_others_can_open_is_refused(file: Path, mode: int, why: str) -> None:
    file.chmod(mode)
    with pytest.raises(PrivateFileError, match=f"is {why} by others: chmod"):
        read_private(file)


def test_a_file_of_a_gigabyte_is_refused_before_it_is_read(file: Path) -> None:
    os.truncate(file, 1 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(PrivateFileError, match="is larger than"):
        read_private(file)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    real = tmp_path / "real"
    write_private(real, b"x")
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("link", "dangling"):
        with pytest.raises(PrivateFileError, match="symbolic link"):
            read_private(tmp_path / name)
        with pytest.raises(PrivateFileError, match="symbolic link"):
            write_private(tmp_path / name, b"y")
    for name in ("dir", "fifo"):
        with pytest.raises(PrivateFileError, match="not a file"):
            read_private(tmp_path / name)
    with pytest.raises(PrivateFileError, match="no such file"):
        read_private(tmp_path / "missing")
    with pytest.raises(PrivateFileError):
        write_private(tmp_path / "dir", b"y")
    assert real.read_bytes() == b"x"
    assert not list(tmp_path.glob(".*.draft"))


def test_a_full_disk_leaves_the_old_file(file: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", WRITE_UNDER_LIMIT, str(file)],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert child.stdout == "refused: cannot be written: file too large\n", child.stderr
    assert file.read_bytes() == b"old"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


WRITE_UNDER_LIMIT = """
import resource, signal, sys
from pathlib import Path
from presign_proxy.config.registry_file.storage import PrivateFileError, write_private
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    write_private(Path(sys.argv[1]), bytes(4 << 20))
except PrivateFileError as error:
    print(f"refused: {error}")
"""

WRITE_FOR_EVER = """
import sys
from pathlib import Path
from presign_proxy.config.registry_file.storage import lock, write_private
path, number = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    number += 1
    with lock(path):
        write_private(path, b"%d " % number * 40_000 + b"end")
"""


def test_a_writer_that_is_killed_at_any_moment_leaves_a_whole_file(file: Path) -> None:
    write_private(file, b"0 " * 40_000 + b"end")
    numbers = set()
    for round_ in range(24):
        argv = [sys.executable, "-c", WRITE_FOR_EVER, str(file)]
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, env=environment())
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.003 * round_)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        words = read_private(file).split(b" ")
        assert words[-1] == b"end"
        assert len(words) == 40_001
        assert len(set(words[:-1])) == 1
        numbers.add(words[0])
    assert len(numbers) > 3  # the writers did get to write
    with lock(file):
        pass
    assert sorted(path.name for path in file.parent.iterdir()) == [f".{file.name}.lock", file.name]


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "count"
    write_private(path, b"0")
    argv = [sys.executable, "-c", COUNT, str(path)]
    children = [subprocess.Popen(argv, env=environment()) for _ in range(4)]
    assert [child.wait() for child in children] == [0] * 4
    assert read_private(path) == b"200"


COUNT = """
import sys
from pathlib import Path
from presign_proxy.config.registry_file.storage import lock, read_private, write_private
path = Path(sys.argv[1])
for _ in range(50):
    with lock(path):
        write_private(path, b"%d" % (int(read_private(path)) + 1))
"""
