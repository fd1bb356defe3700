"""The presets as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_HEAD: Final = """\
# Presets

Generated from `addon/presign_proxy/config/presets/providers.json`; do not edit. What a
preset does, and how to write your own, is described in [Configuration](configuration.md#presets). A
connection takes `auth: {token: …}`, unless the column says which secrets it asks for, and `vars` for each
variable of the host. Upstreams besides the first one are addressed by their name, as in `@uploads/*`: see
[Several hosts of one provider](several-hosts.md). Which programs and libraries were run through the gateway,
and how, is listed in [Clients](clients.md).

**None of them was tried at the provider itself.** What they hold is from the documentation of each
provider, to which the table links. Those that [Clients](clients.md) names, and all with `oauth2`,
`registry_token` or `aws_sigv4`, were run against stand-ins on one machine; the signatures for AWS agree with
the vectors that AWS publishes. If one does not fit, override what differs, and tell us.

| preset | provider | upstream | auth | vars |
|---|---|---|---|---|
"""


def markdown(presets: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a page with one row per preset, sorted by name."""
    return _HEAD + "".join(_row(name, presets[name]) for name in sorted(presets))


def _row(name: str, preset: Mapping[str, Any]) -> str:
    provider = f"[{preset['name']}]({preset['docs']})" if preset.get("docs") else preset["name"]
    variables = "; ".join(f"`{key}`: {found['about']}" for key, found in preset.get("vars", {}).items())
    others = [f"`@{other}` `{url_of(one)}`" for other, one in preset.get("upstreams", {}).items()]
    leads = ", ".join([f"`{preset['upstream']}`", *others])
    cells = (f"`{name}`", provider, leads, auth_style(preset["auth"]), variables)
    return f"| {' | '.join(cells)} |\n"


def url_of(upstream: str | Mapping[str, Any]) -> str:
    """Return the URL of an upstream besides the default one."""
    return upstream if isinstance(upstream, str) else str(upstream["url"])


def auth_style(auth: Mapping[str, Any]) -> str:
    """Describe the place of the key in a few words."""
    if asks := auth.get("asks"):
        group = {"header": "headers", "query": "params"}.get(auth["type"], auth["type"])
        return f"{group}: " + ", ".join(f"`{name}` ({about})" for name, about in asks.items())
    match auth["type"]:
        case "header":
            return f"`{auth['header']}: {auth.get('prefix', '')}…`"
        case "query":
            return f"`?{auth['param']}=…`"
        case "oauth2":
            return "oauth2: the JSON of a service account"
        case "path":
            return f"`{auth['template'].replace('{token}', '…')}` in the path"
        case "basic" if "username" in auth:
            return f"basic, `{auth['username']}:…`"
        case "basic":
            return f"basic, `…:{auth.get('password', '')}`"
        case kind:
            return str(kind)
