"""Presets: the known facts about providers, as data."""
