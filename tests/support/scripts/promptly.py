"""A script after ours: from now on the flow path is that of `presign serve`, beside mitmdump's own addons."""

from mitmproxy import ctx

from presign_proxy.mitm import patches
from presign_proxy.mitm.guard import Guard
from presign_proxy.mitm.hook_dispatch import prompt


def running() -> None:
    guard = Guard.installed(ctx.master)
    assert guard is not None
    guard.begin = guard.begin or prompt(ctx.master.addons)
    assert guard.begin is not None
    patches.take()
