"""One request as bytes: its head, names, query, paths, hosts, and who sends it. Pure."""
