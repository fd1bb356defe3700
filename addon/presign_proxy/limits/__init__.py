"""Limits: how often, how much and how many at once; what is counted, and how a count is judged."""
