"""How people have their machine trust the gateway's authority: text, which the command only prints."""

from __future__ import annotations

import shlex
from pathlib import Path


def instructions(file: Path) -> list[str]:
    """Return the instructions for each system, as lines. `file` holds the certificate in PEM form."""
    pem = shlex.quote(str(file))
    return [
        "A machine that trusts this authority accepts whatever certificate the gateway makes, for any host.",
        "For one program, use `presign run` or `presign sign --as env` instead: they change no machine.",
        "",
        "Debian, Ubuntu, Alpine:",
        f"  sudo cp {pem} /usr/local/share/ca-certificates/presign.crt && sudo update-ca-certificates",
        "Fedora, RHEL:",
        f"  sudo cp {pem} /etc/pki/ca-trust/source/anchors/presign.pem && sudo update-ca-trust",
        "Arch:",
        f"  sudo trust anchor --store {pem}",
        "macOS:",
        "  sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain \\",
        f"    {pem}",
        "Windows (as administrator):",
        f'  certutil -addstore -f Root "{file}"',
        "Java (for all programs of one Java; its password is changeit unless you have changed it):",
        f"  keytool -importcert -cacerts -noprompt -alias presign -storepass changeit -file {pem}",
        "Firefox, which has a store of its own:",
        "  Settings > Privacy & Security > Certificates > View Certificates > Authorities > Import,",
        "  and trust it to identify websites. Or, for all users, policies.json:",
        '  {"policies": {"Certificates": {"ImportEnterpriseRoots": true}}}',
        "Chrome and Chromium on Linux:",
        f"  certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n presign -i {pem}",
    ]
