"""From files to connections: read, checked, built, and read again while the gateway runs."""
