"""The schema of the configuration file."""
