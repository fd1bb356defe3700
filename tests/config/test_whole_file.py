"""Half of a file is not used: every cut of every kind of file, and copies that stall for a real gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from presign_proxy.config.registry_file.edit import from_json
from presign_proxy.config.registry_file.encryption import VaultError, new_key, parse_key, seal, unseal
from presign_proxy.config.registry_file.notice import read_notice, write_notice
from presign_proxy.config.registry_file.storage import PrivateFileError, write_private
from presign_proxy.config.strict_yaml import parse
from presign_proxy.config.whole_file import LONG, NEVER, STILL, Form, ending_of, patience
from presign_proxy.config_problems import ConfigError
from support.asking import SECRET, Grant, ask
from support.lab import bearer_connection
from support.process import LOADED
from support.recorder import Recorder
from support.serving import Serve

CONTENT: dict[str, Any] = {
    "gateway": {"hosts": ["presign.local"], "unsigned": "deny", "trusted_proxies": ["10.0.0.0/16"]},
    "connections": {
        "conn_a": {
            "upstream": "https://api.example.com",
            "auth": {"type": "bearer", "token": "sk-REAL-0123456789"},
            "signing_keys": [{"secret": SECRET}],
            "max_lifetime": "7d",
            "limits": [{"rate": "60/minute", "burst": 10}, {"quota": "1000/month"}],
            "allow_no_expiry": False,
            "allow": {"methods": ["GET"], "paths": ["v1/chat/*", "v1/models"]},
        }
    },
    "revoked": {"connections": {"conn_b": "2026-01-01T00:00:00Z"}},
}
BLOCK = yaml.safe_dump(CONTENT, sort_keys=False).encode()
MARKED = BLOCK + b"...\n"
FLOW = b"# all in braces\n" + json.dumps(CONTENT, indent=1).encode() + b"\n"


def form(raw: bytes) -> Form | None:
    """What is known of a file; None where it is none."""
    try:
        document = parse(raw, "f")
    except ConfigError:
        return None
    return document.form if document.data is not None else None


def cuts(raw: bytes) -> Iterator[tuple[int, Form]]:
    for length in range(len(raw)):
        if (found := form(raw[:length])) is not None:
            yield length, found


def whole(raw: bytes) -> Form:
    found = form(raw)
    assert found is not None
    return found


@pytest.mark.parametrize("before", [MARKED, FLOW])
@pytest.mark.parametrize("now", [MARKED, FLOW, BLOCK])
def test_no_half_of_a_file_is_used_after_one_with_an_end_mark(before: bytes, now: bytes) -> None:
    changed = now.replace(b"60/minute", b"50/minute")
    used = [length for length, found in cuts(changed) if patience(found, whole(before)) != NEVER]
    # What is left out at most is the last line break.
    assert used == ([] if now is BLOCK else [len(changed) - 1])
    assert patience(whole(changed), whole(before)) == (NEVER if now is BLOCK else 0)


def test_half_of_a_file_without_an_end_mark_waits_and_longer_where_it_lacks_anything() -> None:
    changed = BLOCK.replace(b"60/minute", b"50/minute")
    waits = {length: patience(found, whole(BLOCK)) for length, found in cuts(changed)}
    assert len(waits) > 50
    # All of it but the last line break ends in the middle of a line, as far as anybody knows.
    assert set(waits.values()) == {LONG}
    assert patience(whole(changed), whole(BLOCK)) == STILL


def test_a_number_that_was_cut_off_widens_no_network() -> None:
    """10.0.0.0/16 is 10.0.0.0/1 for a moment."""
    text = b"gateway:\n  unsigned: deny\n  trusted_proxies:\n  - 10.0.0.0/1"
    before = b"gateway:\n  unsigned: deny\n  trusted_proxies:\n  - 10.0.0.0/24\n"
    assert patience(whole(text), whole(before)) == LONG
    assert patience(whole(text + b"6\n"), whole(before)) == STILL


def test_a_file_that_did_not_change_is_not_waited_for() -> None:
    for raw in (BLOCK, MARKED, FLOW, BLOCK.rstrip()):
        assert patience(whole(raw), whole(raw)) == 0
        assert patience(whole(raw), None) == 0


@pytest.mark.parametrize(
    ("raw", "ending"),
    [
        (b"a: 1\n...\n", "marked"),
        (b"a: 1\n...", "marked"),
        (b"a: 1\n...\n\n \n", "marked"),
        (b"a: 1\n... # the end\n", "marked"),
        (b"a: 1\n...# no end\n", "line"),
        (b"a: 1\n...\n# no end\n", "line"),
        (b"{a: 1}", "marked"),
        (b"\xef\xbb\xbf# x\n\n{\n a: 1\n}\n", "marked"),
        (b"a: 1\n", "line"),
        (b"a: {b: 1}\n", "line"),
        (b"a: b...\n", "line"),
        (b"a: 1\n ...\n", "line"),
        (b"a: {b: 1}", "open"),
        (b"a: 1", "open"),
        (b"", "open"),
    ],
)
def test_how_a_file_ends(raw: bytes, ending: str) -> None:
    assert ending_of(raw) == ending


def test_no_half_of_a_registry_in_json_and_of_an_encrypted_one_can_be_read() -> None:
    raw = json.dumps(CONTENT).encode()
    for length in range(len(raw)):
        with pytest.raises(ConfigError):
            from_json(raw[:length], Path("f"))
    key = parse_key(new_key())
    sealed = seal(raw, key)
    for length in range(len(sealed)):
        with pytest.raises(VaultError):
            unseal(sealed[:length], [key])


def test_no_half_of_a_notice_can_be_read(tmp_path: Path) -> None:
    registry = tmp_path / "registry.json"
    data = {"connections": {"conn_a": {"enabled": False}}, "revoked": CONTENT["revoked"]}
    write_notice(registry, b"content", data, {"conn_a": frozenset({"k1"}), "conn_c": frozenset()})
    notice = tmp_path / "registry.json.revoked"
    raw = notice.read_bytes()
    found = read_notice(notice)
    assert found.taken_back.connections == {"conn_a", "conn_b", "conn_c"}
    assert found.taken_back.keys == {"conn_a/k1"}
    for length in range(len(raw) - 1):
        write_private(notice, raw[:length])
        with pytest.raises(PrivateFileError):
            read_notice(notice)


def test_a_notice_that_others_could_have_written_takes_nobody_out_of_service(tmp_path: Path) -> None:
    registry = tmp_path / "registry.json"
    write_notice(registry, b"", {"connections": {"conn_a": {"enabled": False}}}, {})
    notice = tmp_path / "registry.json.revoked"
    assert read_notice(notice).taken_back.connections == {"conn_a"}
    for path, mode in ((notice, 0o620), (tmp_path, 0o777)):
        before = path.stat().st_mode & 0o7777
        path.chmod(mode)
        with pytest.raises(PrivateFileError, match="by others"):
            read_notice(notice)
        path.chmod(before)


# -- before a real gateway ---------------------------------------------------------------------------------


@pytest.fixture(params=["with an end mark", "without"])
def stalling(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: Recorder
) -> Iterator[tuple[Serve, str, Callable[[], int]]]:
    """A gateway, its configuration as text, and what a request gets that the ceiling forbids."""
    entry = bearer_connection(upstream.url, SECRET) | {"allow": {"methods": ["GET"], "paths": ["v1/chat/*"]}}
    text = yaml.safe_dump({"connections": {"conn_a": entry}}, sort_keys=False)
    text += "...\n" if request.param == "with an end mark" else ""
    (tmp_path / "g").mkdir(mode=0o700)
    with Serve(tmp_path / "g", {}, start_from=text) as gateway:
        yield gateway, text, lambda: ask(gateway.port, Grant("conn_a").target("v1/models")).status


@pytest.mark.slow
def test_a_copy_that_stalls_before_the_ceiling_lifts_it_for_nobody(
    stalling: tuple[Serve, str, Callable[[], int]],
) -> None:
    """The first half was YAML, and said less."""
    gateway, text, forbidden = stalling
    assert forbidden() == 403
    changed = text.replace("upstream:", "cookies: pass\n    upstream:")
    half = changed.index("    allow:")
    with gateway.config.open("w") as file:
        file.write(changed[:half])
        file.flush()
        ends = time.monotonic() + 2.5
        while time.monotonic() < ends:
            assert forbidden() == 403
            time.sleep(0.1)
        file.write(changed[half:])
    assert gateway.wait_for_log(LOADED, 10)
    assert forbidden() == 403
    assert ask(gateway.port, Grant("conn_a").target("v1/chat/x")).status == 200
