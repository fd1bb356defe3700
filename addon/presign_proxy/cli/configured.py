"""Connections of the configuration, for the verbs of a signer, read the fast way if possible.

The fast way (`signing_view`) imports no pydantic and builds no model, which together take longer than all
the rest of `presign sign`. If it gives no result, `Workspace` reads everything, and reports what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..config.path import ENVIRONMENT
from ..config_problems import ConfigError, Foreseen
from .hints import quoted
from .place import Failure, Place
from .quick_yaml import import_yaml

import_yaml()  # before another module imports yaml

from ..config import signing_view  # noqa: E402 - it imports yaml
from ..config.signing_view import SigningView  # noqa: E402 - it imports yaml

if TYPE_CHECKING:
    from ..core.connection import Connection, SourceRules
    from .workspace import Workspace


def need_configuration(place: Place) -> None:
    """Raise Failure if there is none, and nothing says where it is or where a secret alone is."""
    if not place.is_configured:
        raise Failure(
            f"{place.path}: no such file. If the gateway's configuration is elsewhere, name its file with"
            f" --config PATH or ${ENVIRONMENT}; to sign with a signing secret alone, name it with"
            f" --secret-env NAME or --secret-file PATH; for a new gateway, {quoted('init')} makes the file"
        )


def view_of(place: Place, name: str) -> SigningView:
    """Return the connection of that name. Raises Failure, ConfigError."""
    need_configuration(place)
    if place.exists and (view := signing_view.view_of(place.path, place.environ, name)):
        return view
    from .workspace import Workspace

    return view_in(Workspace(place.path, place.environ), name)


def view_in(workspace: Workspace, name: str) -> SigningView:
    """Return the connection of that name in a workspace. Raises Failure, ConfigError."""
    from ..http.hosts import is_loopback

    entry = workspace.entry(name)
    found = workspace.connection(entry)
    return SigningView(
        name,
        found.keys,
        found.ceiling,
        found.enabled,
        found.revoked,
        found.source.formats if found.source else None,
        found.source is None or found.source.signed,
        _preset(workspace, name),
        workspace.revocations.ids,
        found.upstream is not None and is_loopback(found.upstream.origin.host),
        workspace.config.gateway.url,
        frozenset(shape.decode() for shape in found.key_forms.shapes),
    )


def preset_of(place: Place, name: str) -> Mapping[str, Any]:
    """Return the preset of a connection; {} if it has none, or the configuration cannot be read."""
    preset = signing_view.preset_of(place.path, place.environ, name)
    if preset is not None:
        return preset
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    with suppress(ConfigError):
        return _preset(workspace, name) if name in workspace.entries else {}
    return {}


def _preset(workspace: Workspace, name: str) -> Mapping[str, Any]:
    preset = workspace.entries[name].data.get("preset")
    return workspace.presets.known.get(preset, {}) if isinstance(preset, str) else {}


def gateway_of(place: Place) -> str | None:
    """Return the gateway's URL, if the configuration names it and can be read."""
    with suppress(signing_view.NotPlain, Foreseen, ValueError):
        return signing_view.Files(place.path, place.environ).gateway
    from .workspace import Workspace

    with suppress(ConfigError):
        return Workspace(place.path, place.environ).config.gateway.url
    return None


def base_path_of(place: Place, name: str) -> str:
    """Return the base path of a connection's upstream; empty if there is none. Raises ConfigError."""
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    upstream = workspace.connection(workspace.entry(name)).upstream if name in workspace.entries else None
    return upstream.base.decode() if upstream else ""


def path_below(place: Place, name: str, url: str) -> str | None:
    """Return the path of a URL of the API below its connection; None if the URL leads to no upstream of it.

    Raises Failure, ConfigError.
    """
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    return _below(workspace.connection(workspace.entry(name)), url)


def upstreams_of(place: Place, name: str) -> list[str]:
    """Return the URLs of a connection's upstreams, without a final slash. Raises Failure, ConfigError."""
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    return [one.url for one in workspace.connection(workspace.entry(name)).destinations]


def _below(connection: Connection, url: str) -> str | None:
    """Return a URL's path below the connection, with the name of its upstream; None if it leads to none."""
    leads = [one for one in connection.destinations if url.startswith(f"{one.url}/")]
    if not leads:
        return None
    upstream = max(leads, key=lambda one: len(one.base))
    path = url[len(upstream.url) + 1 :]
    if upstream.name:
        return f"@{upstream.name}/{path}"
    return f"%40{path[1:]}" if connection.upstreams and path.startswith("@") else path


def source_rules_of(place: Place, name: str) -> SourceRules | None:
    """Return which sources a connection admits; None for an API, or if its configuration has errors."""
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    with suppress(Foreseen):
        return workspace.connection(workspace.entry(name)).source
    return None


def owners_of(place: Place, url: str) -> list[str]:
    """Return the connections with an upstream that is the beginning of a URL. Raises Failure, ConfigError."""
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ)
    owners = []
    for name, entry in workspace.entries.items():
        if _below(workspace.connection(entry), url) is not None:
            owners.append(name)
    return owners


def keys_of(place: Place) -> dict[str, list[str]]:
    """Return the ids of the signing keys by connection, for completion in a shell. Raises ConfigError."""
    entries: Mapping[str, Any]
    try:
        entries = signing_view.Files(place.path, place.environ).entries
    except (signing_view.NotPlain, Foreseen, ValueError):
        from .workspace import Workspace

        full = Workspace(place.path, place.environ).entries
        entries = {name: entry.data for name, entry in full.items()}
    return {
        name: [key.get("id") or f"k{at}" for at, key in enumerate(entry.get("signing_keys") or (), 1)]
        for name, entry in entries.items()
    }


def names_of(place: Place) -> Iterable[str]:
    """Return the names of all connections, for completion in a shell. Raises ConfigError."""
    with suppress(signing_view.NotPlain, Foreseen, ValueError):
        return signing_view.Files(place.path, place.environ).entries
    from .workspace import Workspace

    return Workspace(place.path, place.environ).entries
