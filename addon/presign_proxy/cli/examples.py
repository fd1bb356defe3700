"""Examples of each verb for its help: whole command lines, which a test runs.

In `"$URL"` is a URL that `presign sign` has printed; conn_openai, conn_github and conn_acme are connections.
"""

from __future__ import annotations

from typing import Final

EXAMPLES: Final = {
    "": (
        "presign init",
        "presign connections add --preset openai",
        "presign sign conn_openai v1/models",
        'presign explain "$URL"',
        "presign serve",
    ),
    "init": ("presign init", "presign init --key-env PRESIGN_KEY"),
    "connections": ("presign connections add --preset openai", "presign connections list"),
    "connections list": ("presign connections list", "presign connections list --json"),
    "connections show": ("presign connections show conn_openai",),
    "connections add": (
        "presign connections add --preset anthropic",
        "presign connections add conn_crm --upstream https://crm.example/api --auth bearer",
        "presign connections add --preset mistral --credential-env MISTRAL_KEY --limit '60/minute per url'",
    ),
    "connections import": (
        "presign connections import keys.env",
        "presign connections import keys.env --preset OUR_KEY=gitlab",
        "presign connections import keys.json",
    ),
    "connections set": (
        "presign connections set conn_openai max_lifetime=7d allow.paths='v1/*'",
        "presign connections set conn_openai max_lifetime=",
    ),
    "connections edit": ("EDITOR=true presign connections edit conn_openai",),
    "connections rotate": (
        "presign connections rotate conn_openai --retire-after 30d",
        "presign connections rotate conn_acme --leaked",
        "presign connections rotate conn_acme --drop k1",
        "presign connections rotate conn_openai --credential",
    ),
    "connections disable": (
        "presign connections disable conn_openai",
        "presign connections disable conn_openai --now",
    ),
    "connections enable": ("presign connections enable conn_openai",),
    "connections remove": ("presign connections remove conn_github",),
    "presets": ("presign presets", "presign presets openai"),
    "sign": (
        "presign sign conn_openai v1/models",
        "presign sign conn_openai v1/chat/completions --methods POST --expires '2 hours'",
        "presign sign conn_openai --paths 'v1/*' --methods GET,POST --as key",
        "presign sign https://api.github.com/user --as curl",
    ),
    "convert": ('presign convert "$URL" --as token', 'presign convert "$URL" --as headers'),
    "verify": ('presign verify "$URL"',),
    "explain": ('presign explain "$URL"', "presign explain --at 2027-01-01T00:00:00Z - < url.txt"),
    "check": ("presign check", "presign check --listen 127.0.0.1:8080 --json"),
    "revoke": (
        'presign revoke "$URL"',
        'presign revoke "$URL" --now',
        "presign revoke --key conn_acme/k1",
        "presign revoke --connection conn_github --undo",
        "presign revoke --list",
    ),
    "run": (
        "presign run conn_openai -- python app.py",
        "presign run conn_openai conn_github --expires '2 hours' -- sh ci.sh",
    ),
    "ca": ("presign ca > authorities.pem", "presign ca --bundle all.pem", "presign ca --instructions"),
    "status": ("presign status", "presign status --json"),
    "usage": ("presign usage", "presign usage conn_openai --json"),
    "audit": (
        "presign audit --since 1h --status 4xx",
        "presign audit --connection conn_openai --last 20 --follow",
    ),
    "rekey": ("presign rekey", "presign rekey --drop-old"),
    "encrypt": ("presign encrypt plain.json --replace",),
    "decrypt": ("presign decrypt --out plain.json",),
    "serve": ("presign serve", "presign serve --listen '*:8443' --workers 4 --drain 1m"),
    "demo": ("presign demo", "presign demo --once"),
    "completion": ('eval "$(presign completion bash)"',),
    "schema": ("presign schema > config.schema.json",),
    "example": ("presign example",),
    "script-path": ('mitmdump -s "$(presign script-path)"',),
}
"""By verb, without `presign`. The command itself is the empty name."""
