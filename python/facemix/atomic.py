"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_path", "check_folder", "check_place", "naming"]


@contextlib.contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError of the block that names no file, as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` if the block succeeds and is removed if it
    fails.

    A reader, or a program that starts after an interruption, finds the old file or the new one, never half of
    one.

    Raises:
        OSError: the block's own, see `naming`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
        # mkstemp makes files that only their owner may read; give the result the permissions of any new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(argument: str, path: Path) -> None:
    """See now whether files can be written in `path`, a folder that need not exist yet, before there are any.

    Raises:
        ValueError: `path`, which `argument` named, is no folder, or cannot be made or written.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{argument} must be a folder, got {path}")
    _check_writable(argument, path, path)


def check_place(argument: str, path: Path) -> None:
    """See now whether `atomic_path` can write `path`, before there is something to write.

    Raises:
        ValueError: `path`, which `argument` named, is no file, or its folder cannot be made or written.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{argument} must be a file, got {path}")
    _check_writable(argument, path, path.parent)


def _check_writable(argument: str, path: Path, folder: Path) -> None:
    there = next(place for place in (folder, *folder.parents) if place.exists())
    rule = f"{argument} must be where files can be written, got {path}"
    if not there.is_dir():
        raise ValueError(f"{rule}: {there} is no folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise ValueError(f"{rule}: {there}: {error.strerror}") from error
