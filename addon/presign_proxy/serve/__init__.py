"""`presign serve`: a supervisor that holds the sockets, and workers that serve on them."""
