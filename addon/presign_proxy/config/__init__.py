"""The configuration: files are read, checked, built into connections, and reloaded while the gateway runs."""
