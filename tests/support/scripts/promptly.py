"""A script after ours: from now on hooks begin at once, as under `presign serve`."""

from mitmproxy import ctx

from presign_proxy.dispatch import prompt
from presign_proxy.guard import Guard


def running() -> None:
    guard = Guard.installed(ctx.master)
    assert guard is not None
    guard.begin = prompt(ctx.master.addons)
    assert guard.begin is not None
