"""Limits on rates, totals and concurrent requests: the rules, the counters, and how a counter decides."""
