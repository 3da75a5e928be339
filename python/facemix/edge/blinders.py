"""A pool of one-time blinders: seeds of secret rows, and what the cloud's part of the network makes of each row.

It is a SQLite file, because SQLite has what one-time use takes: a transaction that is on the disk before it returns,
locks between processes, and deletion that overwrites them in the file. Rows are deleted first and used then. Whatever
happens between the two, they are lost, and never come back. The journal that a transaction needs for that holds them
until it ends, and is removed without being overwritten: docs/hardening.md.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facemix.errors import FacemixError

from .blinding import SEED_BYTES, Blinding

__all__ = ["Blinders", "BlindersError"]

APPLICATION = 0x666D6278  # "fmbx", in the file's header
SCHEMA = """
CREATE TABLE pool (network TEXT, share REAL, energy REAL, features TEXT, outputs TEXT);
CREATE TABLE rows (number INTEGER PRIMARY KEY, seed BLOB, output BLOB);
"""
LOCK_SECONDS = 30.0


class BlindersError(FacemixError):
    """A pool that cannot be used: it is none, it is damaged, it is in use for too long, or it has too few rows left."""


class Blinders:
    """The pool in a file.

    Any number of threads and processes may take rows at once: nobody gets a row that anybody else got. That holds for
    one file on one disk. A copy of it, a backup or a snapshot that is brought back has the same rows again, and using
    them gives images away.

    Args:
        path: a file that `create` made.

    Attributes:
        network: the fingerprint of the network that it is for.
        blinding: how deep rows lie beneath the noise.
        features_shape, outputs_shape: of a row that the cloud takes and gives.

    Raises:
        OSError: if there is no such file.
        BlindersError: if it is no pool.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._open() as database:
            (application,) = database.execute("PRAGMA application_id").fetchone()
            if application != APPLICATION:
                raise BlindersError(f"{self.path}: must be a file of `facemix blind`, got something else")
            settings = database.execute("SELECT network, share, energy, features, outputs FROM pool").fetchone()
        if settings is None:
            raise BlindersError(
                f"{self.path}: must be a whole pool, got one whose making was interrupted: make another"
            )
        try:
            self.network = str(settings[0])
            self.blinding = Blinding(*settings[1:3])
            self.features_shape, self.outputs_shape = map(_shape, settings[3:])
        except (TypeError, ValueError, RecursionError) as error:
            raise BlindersError(f"{self.path}: must hold the settings of a pool, got damaged ones: {error}") from None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        network: str,
        blinding: Blinding,
        features_shape: tuple[int, ...],
        rows: Iterable[tuple[bytes, NDArray[np.float32]]],
    ) -> Blinders:
        """Write a pool that only its owner may read; all of it, or nothing.

        Args:
            path: of a new file.
            rows: of each a seed that was never used, and the cloud's output, at least one.

        Raises:
            OSError: if the file exists, or cannot be made, or the folder's file system has no hard links.
            BlindersError: if the disk is full, say.
            ValueError: if there are no rows.
        """
        path = Path(path)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever kills us leaves a folder of rows that nobody will use. A link, unlike a renaming, replaces nothing.
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
            made = Path(folder, path.name)
            os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with _naming(path), _connected(made) as database:
                database.executescript(f"PRAGMA application_id = {APPLICATION}; {SCHEMA}")
                database.execute("BEGIN IMMEDIATE")
                output = None
                for seed, output in rows:
                    values = np.ascontiguousarray(output, "<f4").tobytes()
                    database.execute("INSERT INTO rows (seed, output) VALUES (?, ?)", (seed, values))
                if output is None:
                    raise ValueError("Blinders.create: rows must be at least one, got none")
                shapes = json.dumps(features_shape), json.dumps(output.shape)
                settings = (network, blinding.share, blinding.energy, *shapes)
                database.execute("INSERT INTO pool VALUES (?, ?, ?, ?, ?)", settings)
                database.execute("COMMIT")
            os.link(made, path)
        return cls(path)

    @property
    def left(self) -> int:
        """How many rows."""
        with self._open() as database:
            count: int = database.execute("SELECT count(*) FROM rows").fetchone()[0]
        return count

    def take(self, count: int) -> tuple[list[bytes], NDArray[np.float32]]:
        """Seeds and outputs [count, *outputs_shape] of rows that are in the file no more when this returns.

        Raises:
            BlindersError: if there are not as many (none is taken then), one is damaged, or the disk failed.
        """
        with self._open() as database:
            database.execute("BEGIN EXCLUSIVE")  # what ends the block without a commit takes nothing
            found = database.execute(
                "SELECT number, seed, output FROM rows ORDER BY number LIMIT ?", (count,)
            ).fetchall()
            if len(found) < count:
                raise BlindersError(
                    f"{self.path}: there must be a row for each that is sent, {count}, got {len(found)}: rows are used "
                    "once; `facemix blind` makes a pool of new ones"
                )
            database.executemany("DELETE FROM rows WHERE number = ?", [(number,) for number, _, _ in found])
            database.execute("COMMIT")
        size = 4 * math.prod(self.outputs_shape)
        if any(len(seed) != SEED_BYTES or len(output) != size for _, seed, output in found):
            raise BlindersError(f"{self.path}: rows must have a seed and an output of {size} bytes, got a damaged one")
        outputs = np.frombuffer(bytearray().join(output for _, _, output in found), "<f4").astype(np.float32)
        return [seed for _, seed, _ in found], outputs.reshape(count, *self.outputs_shape)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.stat()
        with _naming(self.path), _connected(self.path) as database:
            yield database


def _shape(text: str) -> tuple[int, ...]:
    shape = json.loads(text)
    if not isinstance(shape, list) or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"a shape must be positive integers, got {text[:80]}")
    return tuple(shape)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """SQLite's errors of the block name `path`."""
    try:
        yield
    except sqlite3.Error as error:
        raise BlindersError(f"{path}: must be a file of `facemix blind` that can be changed, {error}") from None


@contextlib.contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that never makes a file, and whose commits are on the disk when they return."""
    database = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=LOCK_SECONDS, isolation_level=None
    )
    try:
        # EXTRA: also the end of the journal, whose return after a power failure would bring rows back. Other kinds of
        # journal keep rows where they are easier to find (PERSIST, WAL) or lose the pool in a crash (MEMORY, OFF).
        for setting in ("synchronous = EXTRA", "fullfsync = ON", "secure_delete = ON"):
            database.execute(f"PRAGMA {setting}")
        yield database
    finally:
        database.close()
