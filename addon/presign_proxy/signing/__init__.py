"""Signing: what is signed, and how requests carry it. Pure.

A scheme is a module with a function `recognise`. It returns a claim, or None if the request does not use this
scheme. It raises `Malformed` if the request uses the scheme with wrong grammar.
"""
