"""Presets: what is known of a provider, as data."""
