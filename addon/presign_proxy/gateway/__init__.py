"""The running gateway, as far as it needs no mitmproxy."""
