"""Parsers that turn pasted text into a request."""
