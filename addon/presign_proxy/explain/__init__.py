"""Explanations: what the gateway would do with a request, and why. Offline."""
