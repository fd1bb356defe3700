"""The registry's file: read, changed, encrypted and stored."""
