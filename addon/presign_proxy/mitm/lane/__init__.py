"""The express lane: presigned HTTP/1.1 without flows. Bytes in, the same decision, bytes out.

What is not simple is handed to mitmproxy's own layer at the beginning of a request, before anything of it
was sent anywhere, so that the flow path remains the one place for everything else.
"""
