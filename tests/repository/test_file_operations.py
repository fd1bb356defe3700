"""Where the package touches files: each place is known, and none of them runs on the event loop of a gateway
that serves. A file system may hang, and everybody would wait with whoever asks it something.
"""

from __future__ import annotations

import ast
from pathlib import Path

from support.places import ROOT
from test_architecture import inner_imports_of

PACKAGE = ROOT / "addon/presign_proxy"
OFFLINE = ("cli.", "explain.")
"""Rooms of the command, which is a process of its own."""
BY_NAME = {"open", "os.open", "os.stat", "os.lstat", "os.listdir", "os.scandir", "os.readlink", "os.unlink"}
BY_NAME |= {"os.rename", "os.replace", "os.mkdir", "os.makedirs", "os.chmod", "os.access", "os.utime"}
BY_NAME |= {
    "os.write",
    "os.read",
    "os.fsync",
    "os.fstat",
    "read_at_most",
    "os.path.exists",
    "os.path.lexists",
    "os.path.isfile",
}
METHODS = {
    "stat",
    "lstat",
    "exists",
    "is_file",
    "is_dir",
    "is_symlink",
    "resolve",
    "readlink",
    "iterdir",
    "glob",
}
METHODS |= {
    "rglob",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "unlink",
    "mkdir",
    "rmdir",
    "touch",
}
METHODS |= {"chmod", "open", "samefile", "symlink_to", "expanduser", "hardlink_to", "rename"}
"""Of a path, wherever it comes from; `replace` is a method of every text."""

READS = "reads the configuration: in the thread of reloads, or before anybody is served"
START = "at the start, before anybody is served"
ALONE = "in a thread of its own, which nobody waits for"
COMMAND = "the command writes it, and no gateway does"
KNOWN: dict[str, tuple[str, set[str]]] = {
    "observe.audit_reader": (
        "the command reads it, and no gateway does",
        {"os.fstat", "os.open", "path.stat"},
    ),
    "limits.stores.counts": ("the command reads it, and no gateway does", {"one.exists", "path.exists"}),
    "observe.rotated_files": (
        "the command reads them, and no gateway does",
        {"directory.iterdir", "one.is_file", "one.stat", "path.exists"},
    ),
    "config.pem_files": (READS, {"read_at_most"}),
    "config.strict_yaml": (READS, {"read_at_most"}),
    "config.salvage": (READS, {"read_at_most"}),
    "config.secret_sources": (READS, {"read_at_most"}),
    "config.secret_commands": ("a program's output, in the thread that waits for its secret", {"os.read"}),
    "config.path": (START, {"Path(path).expanduser"}),
    "config.pasteable_command": (
        READS,
        {"Path(f'{path}{ending}').is_file", "Path(found).samefile", "os.access"},
    ),
    "mitm.lane.dispatch": ("opens a connection to an upstream, and no file", {"pool.open"}),
    "mitm.last_bytes": ("what a socket has received; a socket that has nothing says so", {"os.read"}),
    "file_access": (
        READS,
        {"beside.unlink", "directory.is_dir", "os.fstat", "os.open", "os.path.lexists", "os.read"},
    ),
    "limits.limiter": ("makes a store, which opens its file in its own thread", {"choice.open"}),
    "config.registry_file.notice": (COMMAND, {"path.exists", "path.unlink"}),
    "config.permissions": (
        READS,
        {
            "Path('/proc/self/uid_map').read_bytes",
            "Path('/proc/sys/kernel/overflowuid').read_bytes",
            "current.lstat",
            "current.readlink",
            "directory.lstat",
            "directory.stat",
            "nearest.stat",
            "one.exists",
            "os.fstat",
            "os.open",
            "os.scandir",
            "path.resolve",
            "path.stat",
            "place.stat",
        },
    ),
    "config.presets.builtin": (START, {"Path(__file__).with_name('providers.json').read_text"}),
    "serve.__main__": (START, {"Path(__file__).resolve"}),
    "gateway.ca_directory": (
        START,
        {
            "(directory / _AUTHORITY).exists",
            "directory.mkdir",
            "nearest.is_dir",
            "os.access",
            "os.path.lexists",
        },
    ),
    "observe.audit_file": (ALONE, {"os.fstat", "os.open", "os.write", "path.lstat"}),
    "limits.stores.open": (READS, {"choice.open"}),
    "limits.stores.redis": ("as the module is imported", {"(Path(__file__).parent / 'admit.lua').read_text"}),
    "limits.stores.sqlite_file": (ALONE, {"os.open", "path.stat"}),
    "config.registry_file.storage": (
        READS,
        {
            "(like if like.exists() else like.parent).stat",
            "beside.lstat",
            "draft.unlink",
            "left.unlink",
            "like.exists",
            "os.fstat",
            "os.fsync",
            "os.open",
            "path.is_symlink",
            "path.parent.glob",
        },
    ),
    "config.file_versions": (ALONE, {"path.stat"}),
}
"""By module: why what it does is done where nobody waits for it, and all that it does."""
HARMLESS = {"mitm.lane.dispatch", "mitm.last_bytes", "limits.limiter"}
"""Do nothing with files themselves, and may be used by everybody."""
USERS = {
    "mitm.addon": "looks where mitmproxy's authority is, as mitmdump loads the script",
    "config.load": READS,
    "config.registry_file.edit": COMMAND,
    "gateway.credential_fetch": "resolves secrets in threads of its own",
    "gateway.token_mint": "reads, locks and writes the file of a refresh token in the threads of programs",
    "config.presets.apply": READS,
    "observe.audit_log": "opens its file in the thread of reloads (`opened`); the sink writes in its own",
    "config.live": (
        "has everything read in its thread (`_run`), but for `load`: at the start, and by an option"
    ),
    "config.outside_secrets": READS,
    "config.validation": READS,
    "config.presets.custom": READS,
    "config.secret_programs": "runs them in threads of its own; the thread of reloads waits for them",
    "config.build_credentials": READS,
    "config.tls_certificate": READS,
    "config.upstream_tls": READS,
    "config.registry_file.build": READS,
    "config.gateway_section": READS,
    "config.active_config": "holds what was read",
    "config.registry_file.read": READS,
    "config.registry_file.open": READS,
    "config.reload": "looks and reads in the threads of its lookouts",
    "config.read_files": READS,
    "serve.master": START,
    "config.signing_view": COMMAND,
    "limits.stores.sqlite": ALONE,
}
"""Modules that use one of those above, and why nobody waits for it."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def operations(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if called in BY_NAME or (method in METHODS and not called.startswith("self.")):
                found.add(called)
    return found


def of_gateways() -> dict[str, Path]:
    found = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: path for name, path in found.items() if not name.startswith(OFFLINE)}


def test_a_new_file_operation_has_to_say_in_which_thread_it_is_done() -> None:
    found = {name: done for name, path in of_gateways().items() if (done := operations(path))}
    assert found == {name: done for name, (_, done) in KNOWN.items()}


def test_what_runs_on_the_event_loop_uses_nothing_that_touches_files() -> None:
    touching = KNOWN.keys() - HARMLESS
    found = {name for name, path in of_gateways().items() if inner_imports_of(path) & touching}
    assert found - KNOWN.keys() == USERS.keys()
