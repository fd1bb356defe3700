"""What a machine may lack that is no program."""

import os
import socket

import pytest


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root")
needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
