"""What people paste, read as a request."""
