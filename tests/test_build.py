"""setup.py: what FACEMIX_BUILD_CUDA may be, what it says when it cannot be met, and what a build leaves to the next."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def build_ext(tmp_path: Path, cuda: str) -> subprocess.CompletedProcess[str]:
    """Starts a build where no compiler of any kind can be found."""
    hidden = ("PATH", "CUDACXX", "CUDA_HOME", "FACEMIX_BUILD_CUDA")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"PATH": str(tmp_path), "FACEMIX_BUILD_CUDA": cuda}
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_cuda_without_nvcc_says_what_to_install(tmp_path: Path) -> None:
    result = build_ext(tmp_path, "1")
    assert result.returncode != 0
    assert "FACEMIX_BUILD_CUDA=1 needs nvcc" in result.stderr
    assert "Install the CUDA toolkit" in result.stderr
    assert not (tmp_path / "lib").exists()


@pytest.mark.parametrize("value", ["yes", "2", ""])
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    result = build_ext(tmp_path, value)
    assert result.returncode != 0
    assert f"FACEMIX_BUILD_CUDA must be auto, 1 or 0, got {value!r}" in result.stderr


def build_with(tmp_path: Path, cmake: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Builds a tree that holds setup.py and little else into tmp_path/lib; a shell script stands for CMake."""
    (tmp_path / "setup.py").write_text((ROOT / "setup.py").read_text())
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "facemix"\nversion = "0"\n')
    (tmp_path / "pybind11.py").write_text("def get_cmake_dir(): return 'nowhere'\n")
    (tmp_path / "cmake").write_text(f"#!/bin/sh\n{cmake}\n")
    (tmp_path / "cmake").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "FACEMIX_BUILD_CUDA": "0",
    }
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    return subprocess.run(command, cwd=tmp_path, env=environment | changed, capture_output=True, text=True)


@pytest.mark.parametrize("built", [False, True])
def test_a_build_forgets_what_was_found_and_keeps_what_was_compiled(tmp_path: Path, built: bool) -> None:
    build = tmp_path / "build" / f"cmake-{sys.implementation.cache_tag}"
    files = ("CMakeCache.txt", "CMakeFiles/4.0.1/CXX.cmake", "CMakeFiles/x.dir/x.o")
    told, found, compiled = (build / file for file in files)
    if built:
        for file in (told, found, compiled):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    result = build_with(tmp_path, "exit 7")
    assert result.stderr.splitlines()[-1] == "facemix: cmake said above why it failed, with exit status 7"
    assert "Traceback" not in result.stderr
    assert (told.exists(), found.parent.exists(), compiled.exists()) == (False, False, built)


def test_without_cmake(tmp_path: Path) -> None:
    result = build_with(tmp_path, "", PATH=str(tmp_path / "empty"))
    assert result.stderr.splitlines()[-1].startswith("facemix: a build needs cmake, and there is none on PATH: pip")


def test_the_extension_goes_where_setuptools_wants_it(tmp_path: Path) -> None:
    """And beside the sources; without `cmake --install`, which a packager's DESTDIR and CMAKE_ARGS lead elsewhere."""
    extension = f"facemix_ops/_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    (tmp_path / "facemix_ops").mkdir()
    cmake = f'case $1 in --build) mkdir -p "$2"; echo built >"$2/{Path(extension).name}";; --install) exit 7;; esac'
    result = build_with(tmp_path, cmake)
    assert result.returncode == 0, result.stderr
    for folder in (tmp_path, tmp_path / "lib"):
        assert (folder / extension).read_text() == "built\n"


def test_what_is_packed(tmp_path: Path) -> None:
    """A source distribution holds what a build reads, and none of the tests, of which setuptools by itself would take
    some along, without what they import. A wheel holds the data, and setuptools warns of none of it.
    """
    library = tmp_path / "lib"
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["build_py", "--build-lib", str(library)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "absent from setuptools" not in done.stderr
    packed = set((tmp_path / "facemix.egg-info" / "SOURCES.txt").read_text().splitlines())
    read = [ROOT / "CMakeLists.txt", *(ROOT / "csrc").rglob("*.*"), *(ROOT / "python").rglob("*.yaml")]
    assert packed >= {str(path.relative_to(ROOT)) for path in read}
    assert not [path for path in packed if path.startswith("tests/")]
    for data in ("recipes/*.yaml", "demo/web/static/*", "report/*.j2", "wire/*.proto", "data/*.csv"):
        found, expected = (sorted(folder.glob(data)) for folder in (library / "facemix", ROOT / "python" / "facemix"))
        assert [path.name for path in found] == [path.name for path in expected] != []
