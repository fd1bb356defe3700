"""The registry as the gateway reads it: encrypted, plain, changed, broken; and what is revoked in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from presign_proxy.config.load import Loaded, load
from presign_proxy.config.registry_file.encryption import Passphrase, new_key, parse_key, seal
from presign_proxy.config.registry_file.memory import Memory
from presign_proxy.config.registry_file.open import read_payload
from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.config_problems import ConfigError
from presign_proxy.core.decide import decide
from presign_proxy.core.decision import Deny, Forward
from presign_proxy.signing.keys import signature_id
from presign_proxy.signing.secret import LateSecret, Secret
from presign_proxy.signing.signer import Signer
from support.config import write_config
from support.deciding import NOW, request

SECRET = "sk_0123456789abcdef0123456789abcdef"
OTHER = "sk_fedcba9876543210fedcba9876543210"
KEY = "sk-REALSECRET-0123456789"
TEXT = new_key()
ENVIRON = {"PRESIGN_KEY": TEXT.reveal(), "PHRASE": "correct horse battery staple"}


def entry(**changes: Any) -> dict[str, Any]:
    plain = {
        "upstream": "https://api.example.com",
        "auth": {"type": "bearer", "token": KEY},
        "signing_keys": [{"id": "k1", "secret": SECRET, "added": "2026-06-01T00:00:00Z"}],
    }
    return {**plain, **changes}


def write(directory: Path, content: dict[str, Any] | str, **more: Any) -> Path:
    """A configuration over an encrypted registry of this content; returns the configuration's path."""
    text = content if isinstance(content, str) else lines(content)
    write_private(directory / "connections.enc", seal(text.encode(), parse_key(TEXT)))
    registry = {"file": "connections.enc", "key": {"env": "PRESIGN_KEY"}}
    return write_config({"registry": registry, **more}, directory)


def lines(content: dict[str, Any]) -> str:
    """One connection a line, as the command writes it."""
    connections = ",\n".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in content["connections"].items())
    rest = "".join(f",\n{json.dumps(k)}:{json.dumps(v)}" for k, v in content.items() if k != "connections")
    return f'{{"connections":{{\n{connections}\n}}{rest}\n}}\n'


def problems(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load(path, ENVIRON)
    text = str(error.value)
    assert KEY not in text
    assert SECRET not in text
    assert TEXT.reveal() not in text
    return text


def code(loaded: Loaded, connection: str = "conn", secret: str = SECRET, expires_at: int = NOW + 60) -> str:
    """What a request with this key gets."""
    grant = Signer(connection, secret).sign(["GET"], ["v1/*"], expires_at=expires_at)
    decision = decide(loaded.registry, request(grant.url("v1/models", "").encode()), NOW, "req_1")
    return decision.code if isinstance(decision, Deny) else "granted"


# -- reading ------------------------------------------------------------------------------------------


def test_an_encrypted_registry_adds_its_connections(tmp_path: Path) -> None:
    path = write(tmp_path, {"connections": {"conn": entry()}}, connections={"conn_plain": entry()})
    loaded = load(path, ENVIRON)
    assert sorted(loaded.registry.connections) == ["conn", "conn_plain"]
    assert code(loaded) == "granted"


def test_a_passphrase_opens_it_too(tmp_path: Path) -> None:
    path = write(tmp_path, {"connections": {}})
    sealed = seal(lines({"connections": {"conn": entry()}}).encode(), Passphrase(Secret(ENVIRON["PHRASE"])))
    write_private(tmp_path / "connections.enc", sealed)
    assert "encrypted with a passphrase, but the configuration names none" in problems(path)
    keys = [{"env": "PRESIGN_KEY"}, {"passphrase": {"env": "PHRASE"}}]
    path = write_config({"registry": {"file": "connections.enc", "key": keys}}, tmp_path)
    assert code(load(path, ENVIRON)) == "granted"


def test_the_key_comes_from_a_private_file_or_a_program(tmp_path: Path) -> None:
    write(tmp_path, {"connections": {"conn": entry()}})
    key = tmp_path / "registry.key"
    key.write_text(f"{new_key().reveal()}\n{TEXT.reveal()}\n")
    key.chmod(0o600)
    for source in ({"file": "registry.key"}, {"exec": ["cat", "registry.key"]}):
        path = write_config({"registry": {"file": "connections.enc", "key": source}}, tmp_path)
        assert code(load(path, {"PATH": "/usr/bin:/bin"})) == "granted"
    key.chmod(0o644)
    path = write_config({"registry": {"file": "connections.enc", "key": {"file": "registry.key"}}}, tmp_path)
    assert "the file registry.key: the file is readable by others: chmod go-r" in problems(path)


@pytest.mark.parametrize(
    ("registry", "why"),
    [
        ({"file": "connections.enc"}, "needs a key"),
        ({"file": "connections.yaml", "key": {"env": "PRESIGN_KEY"}}, "has to end in .enc"),
        ({"file": "connections.enc", "key": {"env": "MISSING"}}, "variable MISSING is not set or empty"),
        ({"file": "connections.enc", "key": {"env": "PHRASE"}}, "holds more than 4 keys|43 characters"),
        ({"file": "connections.enc", "key": {"file": "missing"}}, "missing: no such file"),
        ({"file": "connections.enc", "key": {"exec": ["false"]}}, "program false ended with exit code 1"),
        ({"file": "connections.enc", "key": {"exec": ["./nothing"]}}, "program nothing no such file"),
        ({"file": "connections.enc", "key": {"exec": []}}, "exec has to be a list of texts"),
        ({"file": "connections.enc", "key": {"exec": "cat key"}}, "exec has to be a list of texts"),
        ({"file": "connections.enc", "key": "A" * 43}, "has to be {env: NAME}"),
        ({"file": "connections.enc", "key": {"passphrase": "words"}}, "has to be {env: NAME}"),
        ({"file": "connections.enc", "key": []}, "a list of 1 to 4"),
        ({"file": "nowhere.enc", "key": {"env": "PRESIGN_KEY"}}, "no such file or directory; is the path"),
    ],
)
def test_a_registry_that_cannot_be_opened_is_one_clear_error(
    tmp_path: Path, registry: dict[str, Any], why: str
) -> None:
    write(tmp_path, {"connections": {"conn": entry()}})
    text = problems(write_config({"registry": registry}, tmp_path))
    assert any(part in text for part in why.split("|")), text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("", "is not JSON at line 1, column 1"),
        ("[]", "is not JSON"),
        ('{"connections": {}} x', "something follows the end"),
        ('{"connections": {}, "connections": {}}', "a key is given twice"),
        ('{"connections": {"a": {}, "a": {}}}', "a key is given twice"),
        ('{"connections": {"a": {"b": 1, "b": 1}}}', "a key is given twice"),
        ('{"connections": {"a": NaN}}', "NaN"),
        ('{"connections": ' + "[" * 100_000, "'{' is expected"),
        ('{"connections": {"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"connections": {"a": 1', "is expected"),
        ('{"connections": {"a/b": {}}}', "connections.a/b"),
        ('{"gateway": {}}', "gateway: is not a key that is known here"),
        ('{"revoked": {"urls": {"x": {}}}}', "revoked.urls"),
        (
            '{"connections": {"conn": {"upstream": "x", "colour": 1}}}',
            "connections.conn.colour: is not a key",
        ),
    ],
)
def test_a_payload_that_is_no_registry_is_explained(tmp_path: Path, payload: str, why: str) -> None:
    assert why in problems(write(tmp_path, payload))


def test_a_plain_registry_in_json_is_told_of_by_line_and_column(tmp_path: Path) -> None:
    write_private(tmp_path / "c.json", lines({"connections": {"conn": entry(colour=1)}}).encode())
    path = write_config({"registry": {"file": "c.json"}}, tmp_path)
    assert "c.json:2:" in problems(path)
    assert "connections.conn.colour: is not a key that is known here" in problems(path)


# -- reading again ------------------------------------------------------------------------------------


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    memory = Memory()
    connections = {f"conn_{n}": entry() for n in range(20)}
    first = load(write(tmp_path, {"connections": connections}), ENVIRON, memory=memory).registry
    connections["conn_7"] = entry(enabled=False)
    del connections["conn_8"]
    connections = {"conn_new": entry(), **connections}
    second = load(write(tmp_path, {"connections": connections}), ENVIRON, memory=memory).registry
    same = {name for name, one in second.connections.items() if first.connections.get(name) is one}
    assert same == connections.keys() - {"conn_7", "conn_new"}
    assert not second.connections["conn_7"].enabled
    assert "conn_8" not in second.connections


def test_a_connection_whose_secret_is_elsewhere_is_always_read_again(tmp_path: Path) -> None:
    memory = Memory()
    token = tmp_path / "token"
    token.write_text(KEY)
    content = {"connections": {"conn": entry(auth={"type": "bearer", "token": {"file": "token"}})}}
    path = write(tmp_path, content)
    first = load(path, ENVIRON, memory=memory).registry.connections["conn"]
    token.write_text("sk-ROTATED-0123456789")
    second = load(path, ENVIRON, memory=memory).registry.connections["conn"]
    assert second.injector.rendered() == (b"sk-ROTATED-0123456789",)
    assert first.injector.rendered() == (KEY.encode(),)


def test_a_content_is_told_from_others_by_the_file_as_it_is_on_the_disk(tmp_path: Path) -> None:
    key = parse_key(new_key())
    plain = b'{"connections": {}}'
    for name, raw, openers in (("plain.json", plain, None), ("some.enc", seal(plain, key), [key])):
        write_private(tmp_path / name, raw)
        found = read_payload(tmp_path / name, openers)
        assert found == (plain, hashlib.sha256(raw).hexdigest()[:32])


@pytest.mark.parametrize("indent", [None, 2])
def test_the_layout_of_the_payload_does_not_matter(tmp_path: Path, indent: int | None) -> None:
    memory = Memory()
    content = {"revoked": {}, "connections": {f"conn_{n}": entry() for n in range(3)}}
    for _ in range(2):
        loaded = load(write(tmp_path, json.dumps(content, indent=indent)), ENVIRON, memory=memory)
        assert len(loaded.registry.connections) == 3
    # A digest that matches must not hide what follows on the line.
    text = lines({"connections": {"conn": entry()}})
    load(write(tmp_path, text), ENVIRON, memory=memory)
    assert "is expected" in str(wrong(write(tmp_path, text.replace("}\n}", "} junk\n}")), memory))
    again = load(
        write(tmp_path, text.replace('"}]}\n', '"}]},\n"conn_b":' + json.dumps(entry()) + "\n")), ENVIRON
    )
    assert len(again.registry.connections) == 2


def wrong(path: Path, memory: Memory) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load(path, ENVIRON, memory=memory)
    return error.value


# -- what is revoked ----------------------------------------------------------------------------------

AT = "2026-11-01T00:00:00Z"


def revoked(tmp_path: Path, **what: Any) -> Loaded:
    later = [
        {"id": "k2", "secret": OTHER, "added": "2026-10-01T00:00:00Z"},
        {"id": "k1", "secret": SECRET, "added": "2026-06-01T00:00:00Z"},
    ]
    content = {
        "connections": {
            "conn": entry(signing_keys=later),
            "conn_b": entry(),
            "conn_old": entry(signing_keys=[{"secret": SECRET}]),
        },
        "revoked": what,
    }
    return load(write(tmp_path, content, connections={"conn_c": entry()}), ENVIRON)


def test_nothing_is_revoked_by_an_empty_list(tmp_path: Path) -> None:
    loaded = revoked(tmp_path)
    assert {code(loaded, name) for name in loaded.registry.connections} == {"granted"}


def test_one_url_is_revoked_by_its_signature_id(tmp_path: Path) -> None:
    grant = Signer("conn", SECRET).sign(["GET"], ["v1/*"], expires_at=NOW + 60)
    loaded = revoked(tmp_path, urls={signature_id(grant.signature): {"at": AT, "expires": NOW + 60}})
    assert code(loaded) == "revoked"
    assert code(loaded, expires_at=NOW + 61) == "granted"
    assert code(loaded, "conn_b") == "granted"


def test_one_key_is_revoked_and_its_neighbour_is_not(tmp_path: Path) -> None:
    loaded = revoked(tmp_path, keys={"conn/k1": AT})
    assert (code(loaded), code(loaded, secret=OTHER)) == ("revoked", "granted")
    assert code(loaded, "conn_b") == "granted"


def test_a_connection_is_revoked_also_one_of_the_configuration(tmp_path: Path) -> None:
    loaded = revoked(tmp_path, connections={"conn_c": AT, "conn": AT})
    assert [code(loaded, name) for name in ("conn", "conn_b", "conn_c")] == ["revoked", "granted", "revoked"]


def test_every_key_added_before_an_instant_is_revoked_and_those_of_unknown_age(tmp_path: Path) -> None:
    loaded = revoked(tmp_path, added_before={"*": "2026-09-01T00:00:00Z"})
    assert (code(loaded), code(loaded, secret=OTHER)) == ("revoked", "granted")
    assert {code(loaded, name) for name in ("conn_b", "conn_c", "conn_old")} == {"revoked"}
    loaded = revoked(tmp_path, added_before={"conn": "2026-11-01T00:00:00Z"})
    assert (code(loaded), code(loaded, secret=OTHER), code(loaded, "conn_b")) == (
        "revoked",
        "revoked",
        "granted",
    )


def test_a_key_added_at_the_very_instant_is_not_revoked(tmp_path: Path) -> None:
    assert code(revoked(tmp_path, added_before={"*": "2026-06-01T00:00:00Z"}), "conn_b") == "granted"
    assert code(revoked(tmp_path, added_before={"*": "2026-06-01T00:00:01Z"}), "conn_b") == "revoked"


def test_an_expired_url_says_expired_and_a_bad_signature_says_nothing(tmp_path: Path) -> None:
    loaded = revoked(tmp_path, connections={"conn": AT})
    assert code(loaded, expires_at=NOW - 1) == "expired"
    assert code(loaded, secret="sk_somebody_else_0123456789abcdef") == "invalid"


def test_two_keys_with_one_secret_are_refused(tmp_path: Path) -> None:
    twins = [{"id": "k1", "secret": SECRET}, {"id": "k2", "secret": SECRET}]
    text = problems(write(tmp_path, {"connections": {"conn": entry(signing_keys=twins)}}))
    assert "signing_keys.1.secret: another key of this connection has the same secret" in text


@pytest.mark.parametrize(("count", "is_read"), [(1, True), (4, True), (5, False)])
def test_a_registry_has_so_many_keys_and_no_more(count: int, is_read: bool, tmp_path: Path) -> None:
    write(tmp_path, {"connections": {"conn": entry()}})
    texts = [*(new_key().reveal() for _ in range(count - 1)), TEXT.reveal()]
    path = write_config({"registry": {"file": "connections.enc", "key": {"env": "KEYS"}}}, tmp_path)
    if is_read:
        assert code(load(path, {"KEYS": "\n".join(texts)})) == "granted"
    else:
        with pytest.raises(ConfigError, match="KEYS is not set or empty, or holds more than 4 keys"):
            load(path, {"KEYS": "\n".join(texts)})


# -- many ---------------------------------------------------------------------------------------------


def test_a_request_that_names_no_connection_finds_the_only_one_below_its_path(tmp_path: Path) -> None:
    bases = {"conn_a": "/a", "conn_ab": "/a/b", "conn_c": "/c", "conn_c2": "/c"}
    content = {name: entry(upstream=f"https://api.example.com{base}") for name, base in bases.items()}
    registry = load(write(tmp_path, {"connections": content}), ENVIRON).registry
    origin = registry.connections["conn_a"].upstream.origin
    found = {
        path: (one.id if (one := registry.addressed(origin, path.encode())) else None)
        for path in ("/a/x", "/a/b/x", "/a/bx", "/ax", "/c/x", "/a", "/a/", "/", "", "/%61/x", "/a/../c/x")
    }
    assert found == {
        "/a/x": "conn_a",
        "/a/b/x": None,
        "/a/bx": "conn_a",
        "/ax": None,
        "/c/x": None,
        "/a": None,
        "/a/": "conn_a",
        "/": None,
        "": None,
        "/%61/x": "conn_a",
        "/a/../c/x": "conn_a",
    }


# -- secrets of programs ------------------------------------------------------------------------------


def test_a_credential_of_a_program_is_not_fetched_at_start(tmp_path: Path) -> None:
    argv = ["sh", "-c", "touch ran; echo x"]
    content = {"connections": {"conn": entry(auth={"type": "bearer", "token": {"exec": argv, "ttl": "1m"}})}}
    loaded = load(write(tmp_path, content), ENVIRON)
    (late,) = loaded.registry.connections["conn"].late
    assert isinstance(late, LateSecret)
    assert (list(late.argv), late.ttl) == (argv, 60)
    assert not (tmp_path / "ran").exists()
    grant = Signer("conn", SECRET).sign(["GET"], ["v1/*"], expires_at=NOW + 60)
    decision = decide(loaded.registry, request(grant.url("v1/models", "").encode()), NOW, "req_1")
    assert isinstance(decision, Forward)
    assert decision.sent is None
    filled = decision.filled(lambda secret: Secret("sk-fetched") if secret is late else secret)
    assert (b"Authorization", b"Bearer sk-fetched") in filled.sent.fields
    with pytest.raises(LookupError):
        late.reveal()


def test_a_signing_secret_of_a_program_is_there_at_start(tmp_path: Path) -> None:
    content = {"connections": {"conn": entry(signing_keys=[{"secret": {"exec": ["printf", SECRET]}}])}}
    assert code(load(write(tmp_path, content), {**ENVIRON, "PATH": "/usr/bin:/bin"})) == "granted"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["sh", "-c", "exit 3"], "the program sh ended with exit code 3"),
        (["sh", "-c", "head -c 70000 /dev/zero"], "the program sh printed more than 65536 bytes"),
        (["printf", "a\\nb"], "line break"),
        (["printf", "\\377"], "is not UTF-8"),
        (["true"], "is not set or empty"),
        (["sh", "-c", "echo sk-LEAK >&2; exit 1"], "exit code 1"),
        (["sh", "-c", "sleep 60"], "did not end within 1 s"),
        (["sh", "-c", "exec >&-; sleep 60"], "did not end within 1 s"),
        (["sh", "-c", "(sleep 60) & "], "did not end within 1 s"),
        (["sk-LEAK-no-such-program"], "no such file"),
        (["x", "sk-LEAK"], "no such file"),
    ],
    ids=str,
)
def test_a_program_that_fails_is_told_of_without_its_arguments(
    tmp_path: Path, argv: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("presign_proxy.config.secret_commands.TIMEOUT", 1.0)
    content = {"connections": {"conn": entry(signing_keys=[{"secret": {"exec": argv}}])}}
    with pytest.raises(ConfigError) as error:
        load(write(tmp_path, content), {**ENVIRON, "PATH": "/usr/bin:/bin"})
    assert why in str(error.value)
    assert "LEAK" not in str(error.value).replace("the program sk-LEAK-no-such-program", "")
