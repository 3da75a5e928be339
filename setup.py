"""Drives CMakeLists.txt, which holds the only list of sources, and prints what it found.

FACEMIX_BUILD_CUDA=auto|1|0   build the CUDA kernels: where nvcc is found (default), in any case, never
CMAKE_ARGS=...                more arguments for CMake, as for a cross-compiled wheel (docs/cpp.md)
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def find_nvcc() -> str | None:
    """The CUDA compiler: $CUDACXX, then the PATH, then $CUDA_HOME."""
    home = os.environ.get("CUDA_HOME")
    candidates = [os.environ.get("CUDACXX"), "nvcc", str(Path(home, "bin", "nvcc")) if home else None]
    return next((found for c in candidates if c and (found := shutil.which(c))), None)


def choose_cuda() -> str | None:
    """The nvcc to build with, or None to build without; exits where FACEMIX_BUILD_CUDA cannot be met."""
    wish = os.environ.get("FACEMIX_BUILD_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        sys.exit(f"facemix: FACEMIX_BUILD_CUDA must be auto, 1 or 0, got {wish!r}")
    nvcc = find_nvcc() if wish != "0" else None
    if wish == "1" and nvcc is None:
        sys.exit(
            "facemix: FACEMIX_BUILD_CUDA=1 needs nvcc, and there is none on PATH, in CUDACXX or in CUDA_HOME/bin. "
            "Install the CUDA toolkit (13.0 is what it was tried with), or build without it: FACEMIX_BUILD_CUDA=0"
        )
    return nvcc


def run(command: list[str]) -> None:
    """Exits where it fails, without a traceback: the last thing to read is what it said."""
    try:
        status = subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        sys.exit(f"facemix: a build needs {command[0]}, and there is none on PATH: pip install cmake ninja")
    if status:
        sys.exit(f"facemix: {command[0]} said above why it failed, with exit status {status}")


class CMakeBuild(build_ext):
    """Configures and builds the one extension, facemix_ops._C, and puts it where Python looks."""

    def build_extension(self, ext: Extension) -> None:
        nvcc = choose_cuda()
        import pybind11

        wanted = Path(self.get_ext_fullpath(ext.name)).resolve()
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}"
        # CMake forgets what it found and was told last time, as with --fresh, but the objects stay: Ninja compiles
        # again what has other sources or another command line.
        (build / "CMakeCache.txt").unlink(missing_ok=True)
        for found in build.glob("CMakeFiles/*.*.*/"):
            shutil.rmtree(found)
        print(f"facemix: building for {sys.implementation.cache_tag}, CUDA: {nvcc or 'no'}", flush=True)
        configure = [
            "cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPYTHON_MODULE_EXTENSION={''.join(wanted.suffixes)}",
            f"-DFACEMIX_CUDA={'ON' if nvcc else 'OFF'}",
        ]  # fmt: skip
        if nvcc:
            configure.append(f"-DCMAKE_CUDA_COMPILER={nvcc}")
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        run(configure)
        run(["cmake", "--build", str(build), "--target", "_C"])
        # Python started in the clone finds ./facemix_ops before the installed one: it needs the extension too. Copied,
        # and not installed by CMake, which would go where a packager's DESTDIR and CMAKE_ARGS say.
        wanted.parent.mkdir(parents=True, exist_ok=True)
        for place in {wanted, ROOT / "facemix_ops" / wanted.name}:
            # Moved into place, never written over: a running Python may have the old one mapped.
            fresh = place.with_suffix(".new")
            shutil.copy2(build / wanted.name, fresh)
            os.replace(fresh, place)


setup(
    # The last two hold no modules: setuptools wants folders of data named, too.
    packages=[
        *find_packages(include=["facemix_ops*"]),
        *find_packages("python"),
        "facemix.recipes",
        "facemix.demo.web.static",
    ],
    package_dir={"facemix": "python/facemix"},
    package_data={
        "facemix_ops": ["py.typed"],
        "facemix": ["py.typed", "**/*.proto", "data/*.csv", "**/*.j2"],
        "facemix.recipes": ["*.yaml"],
        "facemix.demo.web.static": ["*"],
    },
    ext_modules=[Extension("facemix_ops._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
