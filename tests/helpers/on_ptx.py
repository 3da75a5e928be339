"""A pytest plugin: CPU tensors go to the GPU's kernels, which run as the compilers left them in PTX (ptx/).

    FACEMIX_BACKEND=native FACEMIX_PTX_BUILD=build/cmake-cpython-311 pytest -p on_ptx --cases 3 tests/gpu --device cpu

takes CUDA's, of a build folder that has them, linked with ptx/runtime.cpp instead of CUDA's runtime (nvcc and cuobjdump
must be there); FACEMIX_BACKEND=triton what Triton compiles for sm_80, or with FACEMIX_PTX_CAPABILITY=90 for sm_90. A
kernel may touch the tensors whose addresses were asked for since the last launch.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ptx import Global, Kernel, Module, Traffic, launch

pytest_plugins = ["some_cases"]
BACKEND = os.environ["FACEMIX_BACKEND"]
MEMORY = Global()
traffic: Traffic | None = None  # counts what kernels take of memory, where somebody wants to know
_data_ptr = torch.Tensor.data_ptr
_over = False  # the last launch is, and its tensors may be gone


def _recorded(tensor: torch.Tensor) -> int:
    global _over
    if _over:
        MEMORY.clear()
        _over = False
    storage = tensor.untyped_storage()
    MEMORY.add(storage.data_ptr(), storage.nbytes())
    return _data_ptr(tensor)


def _run(kernel: Kernel, grid: Any, block: Any, shared: int, values: list[bytes]) -> None:
    """``values``: of the parameters; those that are missing, which Triton adds, are zero."""
    global _over
    parameters = bytearray(max((at + size for at, size in kernel.parameters.values()), default=0))
    for (at, size), value in zip(kernel.parameters.values(), values, strict=False):
        assert len(value) == size
        parameters[at : at + size] = value
    _over = True
    launch(kernel, tuple(grid), tuple(block), shared, bytes(parameters), MEMORY, traffic)


def _allows_tf32(x: torch.Tensor, backend: Any) -> bool:
    return x.dtype == torch.float32 and backend.fp32_precision == "tf32"


# --- CUDA -------------------------------------------------------------------------------------------------------------


class _Cuda:
    """The extension of a build folder, and the kernels that are in it."""

    def __init__(self, build: Path) -> None:
        from cuda_code import find_tools

        folder = build / "CMakeFiles"
        self._modules = []
        for kernels in (folder / "cuda_kernels.dir").rglob("*.o"):
            command = [find_tools() / "cuobjdump", "--dump-ptx", kernels]
            dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            self._modules.append(Module(dumped))
        self._extension = build / f"on_ptx-{os.getpid()}.so"
        objects = [path for name in ("_C", "cuda_kernels", "cpu_*") for path in folder.glob(f"{name}.dir/**/*.o")]
        runtime = Path(__file__).parent / "ptx" / "runtime.cpp"
        command = ["nvcc", "-shared", "-std=c++20", "--cudart=none", "-Xcompiler=-fPIC", "-o", self._extension, runtime]
        subprocess.run([*command, *objects], check=True)

    def use(self) -> None:
        """Instead of the extension that is installed; CPU tensors count as those of its first device."""
        spec = importlib.util.spec_from_file_location("facemix_ops._C", self._extension)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._launcher = ctypes.CFUNCTYPE(
            ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint),
            ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p),
        )(self._launched)  # fmt: skip
        ctypes.CDLL(str(self._extension)).set_launcher(self._launcher)
        self._extension.unlink()  # it is loaded
        for name in ("sample_orthogonal", "sample_permutation"):
            setattr(module, name, partial(_drawn, getattr(module, name)))
        import facemix_ops.ops  # noqa: F401  # all its modules

        for name in ("act_mix", "act_mix_linear", "conv_mix", "group_mix", "unmix_linear"):
            op: Any = sys.modules[f"facemix_ops.ops.{name}"]  # the package's attribute is the function
            op.place = lambda _: (0, 0)
            op.allows_tf32 = _allows_tf32

    def _launched(self, name: bytes, grid: Any, block: Any, shared: int, arguments: Any) -> bytes | None:
        try:
            (module,) = (module for module in self._modules if name.decode() in module)
            kernel = module[name.decode()]
            sizes = [size for _, size in kernel.parameters.values()]
            values = [ctypes.string_at(arguments[i], size) for i, size in enumerate(sizes)]
            _run(kernel, grid[:3], block[:3], shared, values)
        except Exception as error:  # ctypes would drop it
            self._failure = f"{type(error).__name__}: {error}".encode()
            return self._failure
        return None


def _drawn(sample: Callable[..., None], *arguments: Any) -> None:
    """With a seed, there; but for keys with a bound, which the CPU draws for every device."""
    *rest, seed, place = arguments
    bounded = len(rest) == 4 and rest[3] < 1
    sample(*rest, seed, (0, 0) if seed and not bounded else place)


# --- Triton -----------------------------------------------------------------------------------------------------------


def _use_triton() -> None:
    from compilation import binary_of
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    from facemix_ops import backend
    from facemix_ops.triton import conv_mix, unmix_linear

    capability = int(os.environ.get("FACEMIX_PTX_CAPABILITY", "80"))
    conv_mix.warpgroups = lambda x: capability == 90
    backend._forced_triton = lambda op, device: backend.Choice("triton", "as PTX")
    for module in (conv_mix, unmix_linear):
        module.precision = lambda x, of: "tf32" if _allows_tf32(x, of) else "ieee"

    def run(kernel: Any, *values: Any, grid: Any, warmup: bool, **options: Any) -> None:
        named = dict(zip(kernel.arg_names, values, strict=False)) | options
        passed = [named[p.name] for p in kernel.params if not p.is_constexpr]
        binary = binary_of((kernel, dict(named)), GPUTarget("cuda", capability, 32))
        ptx = _only_kernel(binary.asm["ptx"])
        there = [x for x in passed if x is not None and not (isinstance(x, int) and x == 1)]  # the others are constants
        packed = [_packed(x, size) for x, (_, size) in zip(there, ptx.parameters.values(), strict=False)]
        blocks = (*grid, *[1] * (3 - len(grid)))
        _run(ptx, blocks, (32 * binary.metadata.num_warps, 1, 1), binary.metadata.shared, packed)

    JITFunction.run = run


@cache
def _only_kernel(ptx: str) -> Kernel:
    module = Module(ptx)
    (name,) = module
    return module[name]


def _packed(value: Any, size: int) -> bytes:
    if isinstance(value, torch.Tensor):
        return struct.pack("<Q", value.data_ptr())
    if isinstance(value, float):
        return struct.pack("<f" if size == 4 else "<d", value)
    return int(value).to_bytes(size, "little", signed=True)


pytest.MonkeyPatch().setattr(torch.Tensor, "data_ptr", _recorded)
if BACKEND == "native":
    CUDA = _Cuda(Path(os.environ["FACEMIX_PTX_BUILD"]))
    CUDA.use()
else:
    _use_triton()
