"""A fast view of one connection for a signer, read without building the whole configuration.

Only the parts that a signature depends on are parsed: signing keys, ceiling, formats and revocations. Of the
other members of the entry only the JSON type is checked. Other connections and sections are ignored. If
something has not the plain form, the result is None, and the caller loads the whole configuration, which
reports what is wrong. If both ways accept a connection, they return the same connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..config_problems import Foreseen
from ..core.ceiling import Ceiling
from ..core.revocations import Revocations
from ..http.patterns import UPSTREAM_NAME
from ..regexes import late
from ..signing import grammar
from ..signing.keys import MAX_KEYS, KeyRing
from ..signing.secret import Secret
from ..signing.tokens import SHAPE
from .permissions import writable_by_others
from .plain_entries import MEMBERS, REVOCABLE, SECTIONS
from .presets.builtin import providers, upstreams_of
from .registry_file.edit import Draft
from .registry_file.open import openers_of
from .secret_sources import resolve
from .signing_parts import ceiling, key_ring
from .strict_yaml import read
from .values import (
    GATEWAY_URL,
    REGISTRY_FILE,
    KeySource,
    SecretSource,
    duration,
    instant,
    key_sources,
    secret_source,
)

_ID = late(grammar.CONNECTION_ID)
_KEY_ID = late(grammar.KEY_ID)
_METHOD = late(rf"\*|{grammar.METHOD}")
_EXTENSION = late(grammar.EXTENSION)
_FILE = late(REGISTRY_FILE)
_URL = late(GATEWAY_URL)
_UPSTREAM = late(UPSTREAM_NAME)
_SHAPE = late(SHAPE)


class NotPlain(Exception):
    """Raised if only a full load can judge the configuration."""


class SigningView(NamedTuple):
    """The parts of a connection that a signer needs, with revocations applied.

    `formats` is None for scheme presign. A project whose mode is not `signed` lists its origins instead.
    `revoked_ids` are `{connection}/{id}` of revoked presigns that have an id.
    """

    id: str
    keys: KeyRing
    ceiling: Ceiling
    enabled: bool = True
    revoked: bool = False
    formats: frozenset[str] | None = None
    signed: bool = True
    preset: Mapping[str, Any] = {}
    revoked_ids: frozenset[str] = frozenset()
    local: bool = False
    """True if its upstream is on this machine."""
    gateway: str | None = None
    """The gateway's URL, if the configuration names it."""
    shapes: frozenset[str] = frozenset()
    """The texts that may stand before its key tokens."""


class _Key(NamedTuple):
    id: str | None
    secret: SecretSource
    added: int | None
    not_after: int | None
    weak: bool


class _Allow(NamedTuple):
    methods: list[str]
    paths: list[str]
    every_path: bool


class _Ceiling(NamedTuple):
    allow: _Allow
    max_lifetime: int | None
    allow_no_expiry: bool
    head_as_get: bool
    allow_encoded_slash: bool
    upstreams: list[str]


class _Registry(NamedTuple):
    file: str
    key: tuple[KeySource, ...] | None


class Files:
    """The unparsed entries of a configuration and of the registry that it names.

    The constructor raises NotPlain, or an error that a full load raises too.
    """

    def __init__(self, path: Path, environ: Mapping[str, str]) -> None:
        if writable_by_others(path):
            raise NotPlain
        self.base = path.parent
        data = _dict(read(path).data)
        _only(data.keys() <= SECTIONS)
        self.entries = dict(_dict(data.get("connections", {})))
        self.gateway = _gateway(_dict(data.get("gateway", {})))
        self.revoked: dict[str, Any] = {}
        if "registry" in data:
            self._add(_registry(data["registry"]), environ)

    def _add(self, place: _Registry, environ: Mapping[str, str]) -> None:
        draft = Draft.read(self.base / place.file, openers_of(place, self.base, environ))
        self.entries |= draft.connections
        self.revoked = _dict(draft.content("revoked"))


def view_of(path: Path, environ: Mapping[str, str], name: str) -> SigningView | None:
    """Return the connection of that name; None if only a full load can judge it."""
    try:
        files = Files(path, environ)
        entry = _dict(files.entries.get(name))
        revocations, preset = _revocations(files.revoked), _preset(entry)
        view = _view(
            name, {**_ceiling_of(preset), **entry, **upstreams_of(entry, preset)}, files.base, environ
        )
    except (NotPlain, Foreseen, ValueError):
        return None
    return view._replace(
        keys=revocations.applied_to(name, view.keys),
        revoked=name in revocations.connections,
        preset=preset,
        revoked_ids=revocations.ids,
        gateway=files.gateway,
    )


def preset_of(path: Path, environ: Mapping[str, str], name: str) -> Mapping[str, Any] | None:
    """Return the preset of a connection; {} without preset or connection; None in the cases of `view_of`."""
    try:
        return _preset(_dict(Files(path, environ).entries.get(name, {})))
    except (NotPlain, Foreseen, ValueError):
        return None


def _only(plain: bool) -> None:
    if not plain:
        raise NotPlain


def _dict(found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise NotPlain
    return found


def _registry(section: Any) -> _Registry:
    _only(_dict(section).keys() <= {"file", "key"} and isinstance(section.get("file"), str))
    _only(_FILE.fullmatch(section["file"]) is not None)
    return _Registry(section["file"], key_sources(section["key"]) if "key" in section else None)


def _gateway(section: dict[str, Any]) -> str | None:
    if "url" not in section:
        return None
    _only(isinstance(section["url"], str) and _URL.fullmatch(section["url"]) is not None)
    return str(section["url"])


def _preset(entry: dict[str, Any]) -> Mapping[str, Any]:
    """Return the built-in preset of an entry, {} if it names none. A custom preset needs a full load."""
    if "preset" not in entry:
        return {}
    _only(isinstance(entry["preset"], str) and entry["preset"] in providers())
    return providers()[entry["preset"]]


def _ceiling_of(preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a preset that belong to the ceiling."""
    return {key: preset[key] for key in ("allow_encoded_slash", "key_shapes") if key in preset}


def _view(name: str, entry: dict[str, Any], base: Path, environ: Mapping[str, str]) -> SigningView:
    scheme = entry.get("scheme", "presign")
    _only(_ID.fullmatch(name) is not None and isinstance(scheme, str) and scheme in MEMBERS)
    members = MEMBERS[scheme]
    _only(all(member in members and type(value) in members[member] for member, value in entry.items()))
    enabled, listed = entry.get("enabled", True), entry.get("signing_keys", [])
    # The keys are read last: a program that prints one may ask its user for something.
    if scheme == "source":
        # An allowlist needs no key, and its other rules need a full load.
        _only(entry.get("mode") == "signed" and _texts(entry.get("formats"), _EXTENSION, 2**16))
        formats = frozenset(entry["formats"])
        return SigningView(name, _keys(listed, base, environ), Ceiling(), enabled, formats=formats)
    _only("auth" in entry and ("upstream" in entry or "preset" in entry))
    above = ceiling(_ceiling(entry), _refuse)
    local = "upstream" in entry and _is_local(entry["upstream"])
    shapes = entry.get("key_shapes", [])
    _only(not shapes or _texts(shapes, _SHAPE, 16))
    keys = _keys(listed, base, environ)
    return SigningView(name, keys, above, enabled, local=local, shapes=frozenset(shapes))


def _is_local(upstream: str) -> bool:
    from ..http.hosts import is_loopback, parse_authority  # here, because presets (never local) need no check

    origin = parse_authority(upstream.partition("://")[2].partition("/")[0], "https")
    return origin is not None and is_loopback(origin.host)


def _refuse(*_: object) -> None:
    raise NotPlain


def _keys(entries: list[Any], base: Path, environ: Mapping[str, str]) -> KeyRing:
    _only(1 <= len(entries) <= MAX_KEYS)

    def secret_of(_: int, source: SecretSource) -> Secret:
        return resolve(source, base, environ)

    return key_ring([_key(_dict(entry)) for entry in entries], secret_of, _refuse, lambda *_: None)


def _key(entry: dict[str, Any]) -> _Key:
    _only(entry.keys() <= {"id", "secret", "added", "not_after", "weak"} and "secret" in entry)
    _only("id" not in entry or _texts([entry["id"]], _KEY_ID, 1))
    _only(type(entry.get("weak", False)) is bool)
    added, not_after = (instant(entry[what]) if what in entry else None for what in ("added", "not_after"))
    return _Key(entry.get("id"), secret_source(entry["secret"]), added, not_after, entry.get("weak", False))


def _ceiling(entry: dict[str, Any]) -> _Ceiling:
    allow = entry.get("allow", {})
    methods, paths = allow.get("methods", ["*"]), allow.get("paths", ["*"])
    _only(allow.keys() <= {"methods", "paths"} and _texts(methods, _METHOD, 64) and _texts(paths, None, 1024))
    return _Ceiling(
        _Allow(methods, paths, "paths" not in allow),
        duration(entry["max_lifetime"]) if "max_lifetime" in entry else None,
        entry.get("allow_no_expiry", True),
        entry.get("head_as_get", False),
        entry.get("allow_encoded_slash", False),
        _upstreams(entry.get("upstreams", {})),
    )


def _upstreams(entries: dict[Any, Any]) -> list[str]:
    _only(all(isinstance(name, str) and _UPSTREAM.fullmatch(name) for name in entries))
    return list(entries)


def _texts(found: Any, form: re.Pattern[str] | None, most: int) -> bool:
    """Return whether something is a list of 1 to `most` texts that all match the form."""
    if not isinstance(found, list) or not 1 <= len(found) <= most:
        return False
    return all(isinstance(text, str) and (form is None or form.fullmatch(text)) for text in found)


def _revocations(revoked: dict[str, Any]) -> Revocations:
    """Parse the section `revoked` of a registry as a full load does, without URLs: a signer needs none."""
    _only(revoked.keys() <= {*REVOCABLE, "now"})
    # `now` revokes nothing by itself: it says what else was ended.
    _only(_dict(revoked.get("now", {})).keys() <= REVOCABLE)
    found = {what: _dict(revoked.get(what, {})) for what in REVOCABLE - {"urls"}}
    instants = {what: {name: instant(at) for name, at in names.items()} for what, names in found.items()}
    return Revocations(
        keys=frozenset(instants["keys"]),
        connections=frozenset(instants["connections"]),
        added_before=instants["added_before"],
        ids=frozenset(instants["ids"]),
    )
