"""Files are read without waiting for ever: a pipe in the place of one may have nobody at its other end."""

import os
import threading
from pathlib import Path

import pytest

from presign_proxy import file_access
from presign_proxy.file_access import read_at_most


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    assert read_at_most(tmp_path / "file", 100)[0] == b"0123456789"
    assert read_at_most(tmp_path / "file", 4)[0] == b"0123"


def test_a_pipe_that_a_program_fills_in_pieces_is_read_whole(tmp_path: Path) -> None:
    """As `<(…)` of a shell, or a manager of secrets that mounts them."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def fill() -> None:
        with pipe.open("wb", buffering=0) as file:
            for _ in range(3):
                file.write(b"x" * 70_000)

    filling = threading.Thread(target=fill, daemon=True)
    filling.start()
    assert read_at_most(pipe, 1 << 20)[0] == b"x" * 210_000
    filling.join()


def test_a_pipe_that_never_ends_is_read_up_to_the_bound(tmp_path: Path) -> None:
    assert read_at_most(Path("/dev/zero"), 100_000)[0] == bytes(100_000)


@pytest.mark.parametrize("writer", [False, True], ids=["nobody", "a silent writer"])
def test_a_pipe_at_whose_end_nobody_writes_is_given_up(
    writer: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_access, "PIPE_PATIENCE", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    holder = os.open(pipe, os.O_RDWR) if writer else None
    with pytest.raises(TimeoutError, match="is a pipe that did not end"):
        read_at_most(pipe, 100)
    if holder is not None:
        os.close(holder)


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_at_most(tmp_path, 100)
