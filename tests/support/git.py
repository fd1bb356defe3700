"""Answers of the recording upstream to git, by git: a repository behind the smart HTTP protocol."""

import gzip
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from support.answers import Answer
from support.programs import needs
from support.seen import Seen

AUTHOR = ("-c", "user.name=Somebody", "-c", "user.email=somebody@client.test")
_SERVICES = ("git-upload-pack", "git-receive-pack")


@cache
def _kept() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="git-upstream-")


@cache
def repository() -> Path:
    """A bare repository with one commit, which anybody may push to."""
    path = Path(_kept().name) / "r.git"
    run("init", "--quiet", "--bare", "--initial-branch=main", path)
    run("-C", path, "config", "http.receivepack", "true")
    tree = run("-C", path, "write-tree").strip()
    commit = run("-C", path, *AUTHOR, "commit-tree", "-m", "first", tree).strip()
    run("-C", path, "update-ref", "refs/heads/main", commit)
    return path


def run(*args: str | Path) -> str:
    """Run git; returns what it prints."""
    needs("git")
    done = subprocess.run(["git", *args], capture_output=True, check=False, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def advertise(request: Seen) -> Answer:
    """GET /o/r.git/info/refs?service=…"""
    if (challenge := _challenge(request)) is not None:
        return challenge
    service = request.target.partition("service=")[2]
    if service not in _SERVICES:
        return Answer(403)
    greeting = f"# service={service}\n"
    body = f"{len(greeting) + 4:04x}{greeting}0000".encode() + _serve(
        request, service, "--http-backend-info-refs"
    )
    return Answer(headers=(("Content-Type", f"application/x-{service}-advertisement"),), body=body)


def exchange(request: Seen) -> Answer:
    """POST /o/r.git/git-upload-pack, or git-receive-pack"""
    if (challenge := _challenge(request)) is not None:
        return challenge
    service = request.target.rpartition("/")[2]
    body = request.body or b""
    if request.header("content-encoding") == "gzip":
        body = gzip.decompress(body)
    kind = (("Content-Type", f"application/x-{service}-result"),)
    return Answer(headers=kind, body=_serve(request, service, given=body))


def _challenge(request: Seen) -> Answer | None:
    if request.header("authorization"):
        return None
    return Answer(401, headers=(("WWW-Authenticate", 'Basic realm="git"'),), body=b"")


def _serve(request: Seen, service: str, *options: str, given: bytes = b"") -> bytes:
    argv = ["git", service.removeprefix("git-"), "--stateless-rpc", *options, str(repository())]
    env = os.environ | {"GIT_PROTOCOL": request.header("git-protocol") or ""}
    return subprocess.run(argv, env=env, input=given, capture_output=True, check=True, timeout=60).stdout


GIT: dict[str, Callable[[Seen], Answer]] = {"refs": advertise} | dict.fromkeys(_SERVICES, exchange)
"""By the last segment of the path, as `support.answers.BEHAVIOURS`."""
