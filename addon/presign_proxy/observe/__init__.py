"""What operators see of a running gateway: the audit log, metrics, health, and the admin listener."""
