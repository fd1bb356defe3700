"""What is signed, and how it is carried. Pure.

A scheme is a module with a function `recognise`: None where the request is not of this scheme, a claim where
it is, `Malformed` where it is and its grammar is wrong.
"""
