"""The decision: recognise, grant, rewrite, mask. Pure."""
