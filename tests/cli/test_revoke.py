"""`presign revoke`, called as its user calls it: what ends up in the registry, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from presign_proxy.cli import expired_revocations, revocation_target
from presign_proxy.cli import revoke as revoking
from presign_proxy.cli.main import main
from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.signing.keys import signature_id
from presign_proxy.units import instant
from support.asking import SECRET, Grant
from support.config import write_config

SID = "0123456789abcdef" * 2
ENTRY: dict[str, Any] = {
    "upstream": "https://api.example.com",
    "auth": {"type": "bearer", "token": "sk-REALSECRET-0123456789"},
    "signing_keys": [{"id": "k1", "secret": SECRET}],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config({"registry": {"file": "registry.json"}}, tmp_path)
    put(tmp_path, {})
    return tmp_path


def put(place: Path, revoked: Any, **connections: Any) -> None:
    content = {"connections": {"conn": ENTRY, **connections}, "revoked": revoked}
    write_private(place / "registry.json", json.dumps(content).encode())


def revoke(*arguments: str, given: str = "") -> Result:
    return CliRunner().invoke(main, ["revoke", *arguments], input=given, env={"NO_COLOR": "1"})


def revoked(place: Path) -> Any:
    return json.loads((place / "registry.json").read_bytes()).get("revoked", {})


def done(*arguments: str, given: str = "") -> str:
    found = revoke(*arguments, given=given)
    assert found.exit_code == 0, found.output
    return found.stdout


def is_now(text: str) -> bool:
    return (
        time.strftime("%Y-%m-%dT%H:", time.gmtime())
        <= text
        <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
    )


def test_a_signature_id_is_revoked_and_that_is_taken_back(place: Path) -> None:
    assert done(SID) == f"The URL with signature id {SID} is revoked; gateways notice within a second.\n"
    (found,) = revoked(place)["urls"].values()
    assert set(found) == {"at"}
    assert is_now(found["at"])
    said = done(SID, "--undo")
    assert said == f"The URL with signature id {SID} is no longer revoked; gateways notice within a second.\n"
    assert revoked(place) == {}
    again = revoke(SID, "--undo")
    assert (again.exit_code, again.stderr) == (1, f"presign: {SID} is not revoked\n")


def test_a_url_is_revoked_by_its_signature_until_a_day_after_its_end(place: Path) -> None:
    grant = Grant("conn")
    sid = signature_id(grant.headers["X-Presign-Signature"])
    done(f" https://presign.local{grant.target('v1/models')}\n")
    assert revoked(place)["urls"][sid]["expires"] == grant.expires
    done("-", "--undo", given=f"https://presign.local{grant.target('v1/models')}\n")
    assert revoked(place) == {}


def test_what_is_no_url_is_told_how_one_looks(place: Path) -> None:
    found = revoke(SID[:-1])
    assert found.exit_code == 1
    assert found.stderr.endswith("; a signature id has 32 hex digits, see the audit log\n")
    assert revoked(place) == {}


def test_who_pastes_the_id_of_a_request_is_told_where_its_signature_id_is(place: Path) -> None:
    put(place, {})
    result = revoke("req_0123456789ab")
    assert result.exit_code == 1
    assert "the id of a request, not of a URL: " in result.output
    assert "presign explain req_0123456789ab` shows its signature id" in result.output
    assert not revoked(place)


@pytest.mark.parametrize(
    ("arguments", "section", "what", "said"),
    [
        (("--key", "conn/k1"), "keys", "conn/k1", "The key conn/k1"),
        (("--id", "conn/order-7"), "ids", "conn/order-7", "Everything signed as conn/order-7"),
        (("--connection", "conn"), "connections", "conn", "The connection conn"),
    ],
)
def test_a_key_a_name_and_a_connection_are_revoked_and_that_is_taken_back(
    arguments: tuple[str, ...], section: str, what: str, said: str, place: Path
) -> None:
    assert done(*arguments) == f"{said} is revoked; gateways notice within a second.\n"
    assert set(revoked(place)) == {section}
    assert is_now(revoked(place)[section][what])
    assert json.loads(done(*arguments, "--undo", "--json")) == {"revoked": False, "what": section, "id": what}
    assert revoked(place) == {}
    assert json.loads(done(*arguments, "--json")) == {"revoked": True, "what": section, "id": what}


@pytest.mark.parametrize(
    ("arguments", "what", "said"),
    [
        ((), "*", "Every key that was added before 2026-01-02T03:04:05Z"),
        (("--connection", "conn"), "conn", "Every key of conn that was added before 2026-01-02T03:04:05Z"),
    ],
)
def test_keys_of_one_connection_or_of_all_are_revoked_by_their_age(
    arguments: tuple[str, ...], what: str, said: str, place: Path
) -> None:
    before = ("--added-before", "2026-01-02T03:04:05Z")
    assert done(*before, *arguments) == f"{said} is revoked; gateways notice within a second.\n"
    assert revoked(place) == {"added_before": {what: "2026-01-02T03:04:05Z"}}
    assert done(*before, *arguments, "--undo").startswith(said)
    assert revoked(place) == {}


def test_to_revoke_takes_nothing_back_that_was_revoked(place: Path) -> None:
    done("--added-before", "2026-03-01T00:00:00Z")
    assert "before 2026-03-01" in done("--added-before", "2026-01-01T00:00:00Z")
    assert revoked(place) == {"added_before": {"*": "2026-03-01T00:00:00Z"}}
    done("--added-before", "2026-04-01T00:00:00Z")
    assert revoked(place) == {"added_before": {"*": "2026-04-01T00:00:00Z"}}


def test_an_instant_in_the_future_would_revoke_keys_yet_to_be_added(place: Path) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 30))
    found = revoke("--added-before", soon)
    assert found.exit_code == 2
    assert "lies in the future" in found.stderr
    assert revoke("--added-before", "tomorrow").exit_code == 2
    assert revoked(place) == {}


@pytest.mark.parametrize("late", [0.0, 1.0])
def test_this_very_second_is_not_the_future(
    late: float, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revocation_target.time, "time", lambda: 1_800_000_000 - late)
    assert revocation_target._instant("2027-01-15T08:00:00Z") == "2027-01-15T08:00:00Z"
    monkeypatch.setattr(revocation_target.time, "time", lambda: 1_800_000_000 - 1.5)
    with pytest.raises(click.UsageError):
        revocation_target._instant("2027-01-15T08:00:00Z")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (SID, "--key", "conn/k1"),
        (SID, "--id", "conn/a"),
        (SID, "--connection", "conn"),
        (SID, "--added-before", "2026-01-01T00:00:00Z"),
        ("--key", "conn/k1", "--id", "conn/a"),
        ("--key", "conn/k1", "--connection", "conn"),
        ("--key", "conn"),
        ("--key", "conn/"),
        ("--id", "conn"),
        ("--id", "conn/a b"),
        ("--connection", "a b"),
    ],
)
def test_one_thing_is_revoked_at_a_time_and_named_as_it_is_written(
    arguments: tuple[str, ...], place: Path
) -> None:
    assert revoke(*arguments).exit_code == 2
    assert revoked(place) == {}


@pytest.mark.parametrize("arguments", [("--key", "con/k1"), ("--id", "con/a"), ("--connection", "con")])
def test_a_mistyped_connection_is_told_of_but_can_be_taken_back(
    arguments: tuple[str, ...], place: Path
) -> None:
    found = revoke(*arguments)
    assert found.exit_code == 1
    assert revoked(place) == {}
    before = revoke("--added-before", "2026-01-01T00:00:00Z", "--connection", "con")
    assert before.exit_code == 1
    section = {"--key": "keys", "--id": "ids", "--connection": "connections"}[arguments[0]]
    put(place, {section: {arguments[1]: "2026-01-01T00:00:00Z"}})
    assert revoke(*arguments, "--undo").exit_code == 0
    assert revoked(place) == {}


def test_what_is_over_is_forgotten_a_day_after_its_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000
    ends = {"a": now - 86_401, "b": now - 86_400, "c": now + 5, "d": None, "e": 1, "f": 0}
    at = instant(now)
    urls = {
        name * 32: {"at": at} if end is None else {"at": at, "expires": end} for name, end in ends.items()
    }

    class Held:
        def revoked(self, what: str) -> dict[str, Any]:
            assert what == "urls"
            return urls

    expired_revocations.forget_expired(Held(), now)  # type: ignore[arg-type]
    assert {name[0] for name in urls} == {"b", "c", "d", "f"}


def test_a_clock_that_is_ahead_forgets_no_live_revocation(place: Path) -> None:
    """Somebody revokes on a laptop whose clock is years ahead, as it is after its battery was empty."""
    live = {"at": "2026-01-01T00:00:00Z", "expires": int(time.time()) + 86_400}
    put(place, {"urls": {"a" * 32: live, "b" * 32: live, "c" * 32: live}})
    program = (
        "import time; now = time.time; time.time = lambda: now() + 3e8\n"
        "import sys; from presign_proxy.cli.main import main; main(sys.argv[1:])"
    )
    for name in ("d", "e"):
        done = subprocess.run(
            [sys.executable, "-c", program, "revoke", name * 32, "--config", str(place / "config.yaml")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert set(revoked(place)["urls"]) == {name * 32 for name in "abcde"}


def test_null_in_the_registry_is_as_if_it_were_not_there(place: Path) -> None:
    put(place, {"urls": {SID: {"at": "2026-01-01T00:00:00Z", "expires": None}}})
    assert revoke("--key", "conn/k1").exit_code == 0
    assert SID in revoked(place)["urls"]


def test_a_list_that_is_wrong_is_told_of_and_left(place: Path) -> None:
    put(place, {"urls": {SID: 7}})
    before = (place / "registry.json").read_bytes()
    found = revoke("--key", "conn/k1")
    assert found.exit_code == 1
    assert isinstance(found.exception, SystemExit), "a sentence, and no traceback"
    assert "revoked.urls" in found.stderr
    assert (place / "registry.json").read_bytes() == before


def test_of_two_instants_the_later_one_holds() -> None:
    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    assert revoking._later(None, early) == early
    assert revoking._later({"at": late}, early) == early
    assert revoking._later(early, late) == revoking._later(late, early) == late
    with pytest.raises(revoking.Failure, match=r"^the instant in the registry "):
        revoking._later("junk", late)
