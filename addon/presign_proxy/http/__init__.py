"""One request as bytes: head, names, query, paths, hosts, and the client's address. Pure."""
