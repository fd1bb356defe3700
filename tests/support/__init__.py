"""What the tests share: an independent signer, a recording upstream, a real mitmproxy, and raw clients."""
