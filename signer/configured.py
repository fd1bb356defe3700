"""In place of what reads the configuration in presign-proxy: presign-signer reads none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import click

from .place import Place


def view_of(place: Place, name: str) -> NoReturn:  # noqa: ARG001 - the interface of presign-proxy's
    raise click.UsageError(
        "this is presign-signer, which reads no configuration: say --secret-env or --secret-file;"
        " `pip install presign-proxy` has `presign sign` by connection"
    )


def owners_of(place: Place, url: str) -> NoReturn:
    view_of(place, url)


def preset_of(place: Place, name: str) -> Mapping[str, Any]:  # noqa: ARG001
    return {}


def base_path_of(place: Place, name: str) -> str:  # noqa: ARG001
    return ""


def gateway_of(place: Place) -> None:
    """The gateway's URL is that of --base or the environment."""


def keys_of(place: Place) -> Mapping[str, list[str]]:  # noqa: ARG001
    return {}


def names_of(place: Place) -> Iterable[str]:  # noqa: ARG001
    return ()
