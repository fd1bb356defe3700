"""The published formats: what a request claims, before anything of it is believed.

Each scheme is a `recognise` function: None where the request is not of this scheme, a claim where it is,
`Malformed` where it is and its grammar is wrong.
"""
