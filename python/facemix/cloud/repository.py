"""The models that are served: files that are watched, by name and version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import grpc

from .model import CloudModel
from .refusal import Refusal

__all__ = ["Repository"]

log = logging.getLogger(__name__)

Stamp: TypeAlias = tuple[int, int, int]
Loader: TypeAlias = Callable[[Path], CloudModel]


@dataclass(frozen=True)
class _File:
    stamp: Stamp  # of the file when this was noted
    model: CloudModel | None  # the last good one
    settled: bool = True  # there is no more to try: that stamp is the model's, or holds none
    rival: tuple[str, int] | None = None  # the name and version in it that another file has
    fault: str = ""  # why it was refused, as it was logged


class Repository:
    """Models from files and folders of files (`*.safetensors`; not those that begin with a dot, which are being
    written).

    `refresh` looks at the files again. A file that is new or was changed is loaded once it stayed the same from one
    look to the next: one that is being written is left alone. One that cannot be loaded is logged, and what was loaded
    from it before is served on. It is tried again where the fault is not its own: once no other file has its name and
    version, and after errors of the disk. Requests in flight finish on the model that they began with.

    Args:
        paths: files and folders. A file may vanish and come back later.
        load: makes a model of a file.

    Raises:
        FileNotFoundError: if a path is not there, or a folder holds no model.
        ValueError: if a file cannot be loaded, or two have the same name and version.
    """

    def __init__(self, paths: Sequence[Path], load: Loader) -> None:
        self._paths, self._load = tuple(paths), load
        for path in self._paths:
            if not path.exists():
                raise FileNotFoundError(f"serve: --model must be a file or a folder, got {path}, which is not there")
            if path.is_dir() and not _look([path]):
                raise FileNotFoundError(
                    f"serve: --model must hold *.safetensors files where it is a folder, got {path}"
                )
        self._files = {path: _File(stamp, load(path)) for path, stamp in _look(self._paths).items()}
        if clash := _clash(self._files):
            raise ValueError(f"serve: --model must name each name and version once, got {clash}")
        self._models = _table(self._files)

    @property
    def models(self) -> list[CloudModel]:
        """All of them, by name, the highest version last."""
        return [model for _, versions in sorted(self._models.items()) for _, model in sorted(versions.items())]

    def versions(self, name: str) -> list[int]:
        """The versions of `name`, ascending; none if there is no such model."""
        return sorted(self._models.get(name, ()))

    def find(self, name: str, version: str) -> CloudModel:
        """The model called so; the highest version if `version` is empty.

        Raises:
            Refusal: if there is none.
        """
        versions = self._models.get(name, {})
        if not version and versions:
            return versions[max(versions)]
        for number, model in versions.items():
            if str(number) == version:
                return model
        loaded = ", ".join(f"{m.name!r} version {m.version}" for m in self.models) or "none"
        raise Refusal(
            grpc.StatusCode.NOT_FOUND,
            "model",
            f"model must be {loaded}, got {name[:40]!r} version {version[:40]!r}",
        )

    def refresh(self) -> bool:
        """Look at the files; whether the models have changed. It reads and loads: not for the event loop's thread."""
        found = _look(self._paths)
        files = {path: file for path, file in self._files.items() if path in found}
        for path, stamp in found.items():
            known = files.get(path)
            if known is None or known.stamp != stamp:
                files[path] = _File(stamp, known.model if known else None, settled=False)
            elif not known.settled and known.rival not in _names(files, path):
                files[path] = self._reload(path, files)
        self._files = files
        table = _table(files)
        changed = table != self._models
        self._models = table
        return changed

    def _reload(self, path: Path, files: dict[Path, _File]) -> _File:
        """`path` with the model that is now in it, or, if that will not do, with the one that was."""
        known = files[path]
        try:
            model = self._load(path)
            if _look([path]).get(path) != known.stamp:
                raise OSError(f"{path} must not change while it is loaded")
        except (Exception, SystemExit) as error:  # a file may hold anything, and a disk may fail in any way
            refused = replace(known, settled=isinstance(error, ValueError), fault=f"{type(error).__name__}: {error}")
        else:
            loaded = replace(known, model=model, settled=True, rival=None, fault="")
            clash = _clash({**files, path: loaded})
            if not clash:
                return loaded
            fault = f"ValueError: each name and version must come from one file, got {clash}"
            refused = replace(known, rival=(model.name, model.version), fault=fault)
        if refused.fault != known.fault:
            log.warning("reload refused", extra={"file": str(path), "error": refused.fault})
        return refused


def _look(paths: Sequence[Path]) -> dict[Path, Stamp]:
    """The files in `paths` that are there, and what changes when they do."""
    files = [file for path in paths for file in (sorted(path.glob("[!.]*.safetensors")) if path.is_dir() else [path])]
    found = {}
    for file in files:
        try:
            status = file.stat()
        except OSError:  # gone since it was listed
            continue
        found[file] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


def _names(files: dict[Path, _File], but: Path) -> set[tuple[str, int]]:
    """The names and versions that files have, other than `but`."""
    return {(file.model.name, file.model.version) for path, file in files.items() if file.model and path != but}


def _clash(files: dict[Path, _File]) -> str:
    """Which two files hold the same name and version, if any."""
    seen: dict[tuple[str, int], Path] = {}
    for path, file in files.items():
        if file.model is None:
            continue
        other = seen.setdefault((file.model.name, file.model.version), path)
        if other != path:
            return f"{file.model.name!r} version {file.model.version} in {other} and in {path}"
    return ""


def _table(files: dict[Path, _File]) -> dict[str, dict[int, CloudModel]]:
    table: dict[str, dict[int, CloudModel]] = {}
    for file in files.values():
        if file.model is not None:
            table.setdefault(file.model.name, {})[file.model.version] = file.model
    return table
