"""The parts of the running gateway that do not need mitmproxy."""
