"""The decision on a request: recognise, grant, rewrite, mask. Pure."""
