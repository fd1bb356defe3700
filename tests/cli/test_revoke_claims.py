"""`presign revoke` claims nothing that is not so: only what a key here has signed is revoked."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from support.shell import Done, Shell

SECRET = "sk_revoked_0123456789abcdef0123456789abcdef"
OTHER = "sk_another_0123456789abcdef0123456789abcdef"
CDN = "sk_cdn_0123456789abcdef0123456789abcdef0123"
CONFIG = f"""\
gateway: {{hosts: [presign.local]}}
registry: {{file: registry.json}}
connections:
  conn_own:
    upstream: http://127.0.0.1:9/v1
    auth: {{type: bearer, token: sk-KEY-0123456789}}
    signing_keys: [{{id: new, secret: {SECRET}}}]
  conn_there:
    upstream: http://127.0.0.1:10
    auth: {{type: bearer, token: sk-KEY-0123456789}}
    signing_keys: [{{secret: {{env: ELSEWHERE}}}}]
  pk_cdn:
    scheme: source
    mode: signed
    formats: [jpg]
    signing_keys: [{{secret: {CDN}}}]
"""


@pytest.fixture
def home(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    write(shell, CONFIG)
    registry = shell.directory / "registry.json"
    registry.touch(0o600)
    registry.write_text('{"connections": {}}')
    return shell


def write(shell: Shell, config: str) -> None:
    path = shell.directory / "config.yaml"
    path.touch(0o600)
    path.write_text(config)


def signed(home: Shell, *more: str, secret: str = SECRET, name: str = "conn_own", path: str = "a") -> str:
    """A URL that somebody mints who has nothing but a secret."""
    done = home.presign("sign", name, path, "--secret-env", "S", *more, S=secret)
    assert done.code == 0, done.all
    return done.out.strip()


def revoked(home: Shell) -> list[str]:
    return list(json.loads((home.directory / "registry.json").read_text()).get("revoked", {}).get("urls", {}))


def damaged(text: str) -> str:
    """With another last digit of its signature."""
    return text[:-1] + ("0" if text[-1] != "0" else "1")


def is_refused(home: Shell, done: Done) -> None:
    assert done.code == 1, done.all
    assert "othing was revoked" in done.err or "nothing was revoked" in done.err
    assert "is revoked;" not in done.all
    assert revoked(home) == []


@pytest.mark.parametrize("form", ["url", "token"])
def test_a_damaged_signature_is_not_said_to_be_revoked(form: str, home: Shell) -> None:
    url = damaged(signed(home, "--as", form))
    is_refused(home, home.presign("revoke", url))


def test_a_made_up_url_is_not_said_to_be_revoked(home: Shell) -> None:
    fields = "X-Presign-Expires=0&X-Presign-Methods=GET&X-Presign-Paths=a"
    url = f"http://127.0.0.1:8080/api/proxy/conn_own/a?{fields}&X-Presign-Signature={'ab' * 32}"
    is_refused(home, home.presign("revoke", url))


def test_a_url_that_another_key_made_is_not_said_to_be_revoked(home: Shell) -> None:
    is_refused(home, home.presign("revoke", signed(home, secret=OTHER)))


def test_a_damaged_source_url_is_not_said_to_be_revoked(home: Shell) -> None:
    url = signed(home, "--format", "jpg", secret=OTHER, name="pk_cdn", path="https://cdn.acme.com/a.jpg")
    is_refused(home, home.presign("revoke", url))


def test_a_url_of_a_connection_that_is_not_here_is_not_said_to_be_revoked(home: Shell) -> None:
    done = home.presign("revoke", signed(home, name="conn_onw"))
    is_refused(home, done)
    assert "did you mean conn_own?" in done.err


def test_a_refusal_is_json_where_json_was_asked_for(home: Shell) -> None:
    done = home.presign("revoke", damaged(signed(home)), "--json")
    assert done.code == 1
    assert json.loads(done.out).keys() == {"error"}


def test_a_signature_on_a_changed_url_is_revoked_by_the_command_that_the_refusal_names(home: Shell) -> None:
    """Somebody may have changed a copy, so that its owner does not revoke the one that is good."""
    url = signed(home, "--expires", "30d")
    expires = re.search(r"X-Presign-Expires=([0-9]+)", url)
    assert expires
    done = home.presign("revoke", url.replace(expires[1], "1000000000"))
    is_refused(home, done)
    (hint,) = re.findall(r"`([^`]+)`", done.err)
    assert home.bash(hint).code == 0
    assert home.presign("revoke", "0" * 32).code == 0  # what has expired is forgotten: this has not
    assert home.presign("verify", url).out.startswith("Refused: 403 revoked")


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("url", "http://127.0.0.1:8080"),
        ("url", "https://gateway.example.org"),
        ("token", "http://presign.local"),
    ],
)
def test_what_was_signed_is_revoked_wherever_it_leads(text: str, base: str, home: Shell) -> None:
    url = signed(home, "--as", text, "--base", base)
    done = home.presign("revoke", url)
    assert (done.code, done.err) == (0, "")
    assert len(revoked(home)) == 1
    other = signed(home, "--as", text, "--expires", "2h")
    assert home.presign("verify", other).code == 0


def test_a_url_of_the_api_itself_is_revoked(home: Shell) -> None:
    """In the form in which it goes through the proxy, naming no connection."""
    query = signed(home).partition("?")[2]
    assert home.presign("revoke", f"http://127.0.0.1:9/v1/a?{query}", ELSEWHERE=OTHER).code == 0
    assert len(revoked(home)) == 1


def test_a_source_url_is_revoked(home: Shell) -> None:
    url = signed(home, "--format", "jpg", secret=CDN, name="pk_cdn", path="https://cdn.acme.com/a.jpg")
    assert home.presign("revoke", url).code == 0
    assert len(revoked(home)) == 1


def test_a_url_of_a_key_that_has_ended_is_revoked_and_said_to_have_been_refused(home: Shell) -> None:
    url = signed(home)
    write(home, CONFIG.replace(f"{{id: new, secret: {SECRET}}}", old_and_new()))
    done = home.presign("revoke", url)
    assert done.code == 0
    assert "It was no longer valid: its key conn_own/old has ended." in done.err
    assert len(revoked(home)) == 1


def old_and_new() -> str:
    ended = f"{{id: old, secret: {SECRET}, not_after: 2020-01-01T00:00:00Z}}"
    return f"{{id: new, secret: {OTHER}}}, {ended}"


def test_a_url_of_a_key_that_was_dropped_is_not_said_to_be_revoked(home: Shell) -> None:
    url = signed(home)
    write(home, CONFIG.replace(SECRET, OTHER))
    done = home.presign("revoke", url)
    is_refused(home, done)
    assert "with a dropped one" in done.err


def test_a_url_that_has_expired_is_said_to_have_been_refused(home: Shell) -> None:
    url = signed(home, "--expires", "1s")
    while "Granted" in home.presign("verify", url).out:
        time.sleep(0.1)
    done = home.presign("revoke", url)
    assert done.code == 0
    assert "It was no longer valid: it has expired." in done.err


def test_a_url_whose_key_is_not_to_be_had_here_is_revoked_and_said_to_be_unchecked(home: Shell) -> None:
    """In an incident, on a machine that has the registry and not the secrets."""
    done = home.presign("revoke", signed(home, name="conn_there"))
    assert done.code == 0
    assert "could not be checked" in done.err
    assert "ELSEWHERE" in done.err
    assert len(revoked(home)) == 1


def test_what_was_revoked_is_taken_back_also_after_its_key_has_gone(home: Shell) -> None:
    url = signed(home)
    assert home.presign("revoke", url).code == 0
    write(home, CONFIG.replace(SECRET, OTHER))
    assert home.presign("revoke", url, "--undo").code == 0
    assert revoked(home) == []


def test_a_key_that_is_not_there_is_not_said_to_be_revoked(home: Shell) -> None:
    done = home.presign("revoke", "--key", "conn_own/nwe")
    is_refused(home, done)
    assert "conn_own has no key nwe: did you mean new?" in done.err
    assert home.presign("revoke", "--key", "conn_own/new").code == 0
