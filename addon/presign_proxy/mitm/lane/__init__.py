"""The lane: presigned HTTP/1.1 without flows. Bytes in, the same decision, bytes out.

A request that is not simple is handed to mitmproxy's own layer at its beginning, before anything of it was
sent anywhere. So the flow path remains the one place for everything else. The lane reads what comes next.
"""
