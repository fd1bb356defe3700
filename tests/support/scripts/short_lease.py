"""Makes the leases of a gateway short, so that a test need not wait a minute for one to end."""

from mitmproxy import ctx

from presign_proxy.mitm.guard import Guard

LEASE = 1_600_000


class ShortLease:
    def running(self):
        Guard.installed(ctx.master).gateway.limiter._store.lease = LEASE


addons = [ShortLease()]
