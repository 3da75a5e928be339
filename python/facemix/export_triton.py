"""A model repository for NVIDIA Triton Inference Server.

    REPOSITORY/NAME/config.pbtxt
    REPOSITORY/NAME/VERSION/model.onnx

Versions of a model lie side by side and share the config, so they must take and give the same tensors.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx

from .atomic import atomic_path, check_folder, naming
from .cloud.model import CloudModel
from .export_onnx import check_onnx, onnx_model, row_bytes
from .wire.names import FEATURES, OUTPUTS, SCALES

__all__ = ["export_triton"]

MODEL_FILE = "model.onnx"
TRITON_TYPE = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "int8": "TYPE_INT8"}

# Triton refuses a request of more rows than its largest batch. The edge cuts requests into messages of 1-2 MB.
MESSAGE_BYTES = 2_000_000
LEAST_MAX_BATCH = 32

# Requests beyond these are refused, rather than kept until nobody waits for them or memory ends: 256 messages of 2 MB
# are half a gigabyte.
QUEUE_REQUESTS = 256
QUEUE_MICROSECONDS = 1_000_000


def export_triton(
    model: CloudModel,
    repository: str | os.PathLike[str],
    *,
    wire_dtype: str = "float32",
    max_batch: int | None = None,
    max_delay_us: int = 2000,
    instances: int = 1,
    force: bool = False,
) -> Path:
    """Add `model` to a repository and return its version's folder. Nothing is put in place before the ONNX model has
    answered as PyTorch does, and whatever fails, a folder that was there is as it was.

    Args:
        model: the cloud part.
        repository: a folder; it need not exist.
        wire_dtype: of the features it takes, "float32", "float16" or "int8"; it answers in float32. Triton's ONNX
            Runtime backend has no bfloat16.
        max_batch: rows that Triton computes at once, and that a message may have; None: what fits into a message
            of the edge, 32 at least.
        max_delay_us: how long a request may wait for others to share a batch.
        instances: of the model, on each GPU, or on the CPU where there is none.
        force: replace the version, where it exists.

    Raises:
        ValueError: if an argument will not do, or another version there has other tensors.
        FileExistsError: if the version exists.
        FacemixError: if the model cannot be converted, or answers otherwise than PyTorch.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", model.name):
        raise ValueError(f"export: a model's name must do as the name of a folder, got {model.name!r}")
    repository = Path(repository)
    folder = repository / model.name
    version = folder / str(model.version)
    if version.exists() and not force:
        raise FileExistsError(f"export: {version} must not exist without --force")
    with _clean(repository, folder):
        check_folder("export: --out", repository)
        proto = onnx_model(model, wire_dtype)
        _require_same_tensors(folder, proto, besides=version)
        data = proto.SerializeToString()
        check_onnx(data, model, wire_dtype)
        if max_batch is None:
            max_batch = max(LEAST_MAX_BATCH, MESSAGE_BYTES // row_bytes(model, wire_dtype))
        config = _config(model, wire_dtype, max_batch, max_delay_us, instances)
        # Everything is written aside first; then the config is put in place, then the version, so that a Triton that
        # polls finds no version without a config.
        with _version(version) as temporary:
            with naming(version / MODEL_FILE):
                (temporary / MODEL_FILE).write_bytes(data)
            with atomic_path(folder / "config.pbtxt") as path:
                path.write_text(config)
    return version


def _config(model: CloudModel, wire_dtype: str, max_batch: int, max_delay_us: int, instances: int) -> str:
    inputs = [_tensor(FEATURES, TRITON_TYPE[wire_dtype], model.input_shape)]
    if wire_dtype == "int8":
        inputs.append(_tensor(SCALES, "TYPE_FP32", model.input_shape[:1]))
    return f"""\
name: "{model.name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [{", ".join(inputs)}]
output [{_tensor(OUTPUTS, "TYPE_FP32", model.output_shape)}]
version_policy {{ all {{ }} }}
instance_group [{{ count: {instances} kind: KIND_AUTO }}]
dynamic_batching {{
  preferred_batch_size: [{max_batch}]
  max_queue_delay_microseconds: {max_delay_us}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {QUEUE_MICROSECONDS}
    max_queue_size: {QUEUE_REQUESTS}
  }}
}}
"""


def _tensor(name: str, kind: str, shape: tuple[int, ...]) -> str:
    return f'{{ name: "{name}" data_type: {kind} dims: {list(shape)} }}'


def _require_same_tensors(folder: Path, proto: onnx.ModelProto, besides: Path) -> None:
    def tensors(model: onnx.ModelProto) -> list[str]:
        return [onnx.helper.printable_value_info(value) for value in (*model.graph.input, *model.graph.output)]

    for path in sorted(folder.glob(f"[0-9]*/{MODEL_FILE}")):
        if path.parent != besides and (there := tensors(onnx.load(path))) != (here := tensors(proto)):
            raise ValueError(f"export: all versions in {folder} must have the tensors of {path}, {there}, got {here}")


@contextlib.contextmanager
def _version(version: Path) -> Iterator[Path]:
    """Yield a folder, which becomes `version` if the block succeeds and is removed if it fails."""
    version.parent.mkdir(parents=True, exist_ok=True)
    # Triton ignores folders of a model whose names are no numbers.
    temporary = Path(tempfile.mkdtemp(dir=version.parent, prefix=f".{version.name}."))
    try:
        yield temporary
        temporary.chmod(version.parent.stat().st_mode)  # mkdtemp makes folders that only their owner may read
        if version.exists():
            (temporary / MODEL_FILE).replace(version / MODEL_FILE)
        else:
            temporary.rename(version)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _clean(*folders: Path) -> Iterator[None]:
    """Remove those of `folders`, each inside the one before it, that the block created, if it fails."""
    created = [folder for folder in folders if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in reversed(created):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
