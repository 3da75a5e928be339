"""Importing the package: NumPy alone is enough, PyTorch comes when it is used."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from processes import error_of, output_of

import facemix_ops

ROOT = Path(__file__).parents[1]
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"


def test_without_torch(tmp_path: Path) -> None:
    code = "import facemix_ops; from facemix_ops.info import main; main(); print(facemix_ops.__version__)"
    assert output_of(WITHOUT_TORCH + code, tmp_path).endswith(f"\n{facemix_ops.__version__}\n")


@pytest.mark.parametrize("change", ["nothing", "a comment", "a file", "the kernels know nothing of this"])
def test_kernels_of_other_sources_are_refused_in_a_clone(tmp_path: Path, change: str) -> None:
    """Theirs may lack a name, or have the same names and take other arguments."""
    package, clone = Path(facemix_ops.__file__).parent, tmp_path / "facemix_ops"
    clone.mkdir()
    for path in (package / "__init__.py", package / "native.py", *package.glob("_C*.so")):
        shutil.copy(path, clone)
    sources = shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    if change == "nothing":
        output_of("import facemix_ops.native", tmp_path)
        return
    if change == "a comment":
        with (sources / "cpu" / "group_mix.cpp").open("a") as file:
            file.write("// changed\n")
    elif change == "a file":
        (sources / "cuda" / "more.h").touch()
    else:
        for path in clone.glob("_C*.so"):
            path.unlink()
        (clone / "_C.py").touch()
    error = error_of("import facemix_ops.native", tmp_path)
    assert error.startswith("ImportError: facemix_ops: the compiled kernels must be built from this clone's csrc, got")
    assert "pip install -e ." in error


@pytest.mark.parametrize("name", facemix_ops.__all__)
def test_names_need_torch(tmp_path: Path, name: str) -> None:
    """And say so."""
    message = error_of(f"{WITHOUT_TORCH}import facemix_ops; facemix_ops.{name}", tmp_path)
    assert message == f"ImportError: facemix_ops.{name} needs PyTorch: pip install 'facemix[torch]'"


def test_torch_is_not_imported_before_it_is_used(tmp_path: Path) -> None:
    code = """
import sys, facemix_ops, facemix_ops.info, facemix_ops.native
assert "torch" not in sys.modules
facemix_ops.MixKey
assert "torch" in sys.modules
"""
    output_of(code, tmp_path)


def test_names() -> None:
    """All that is promised is there, listed, and kept."""
    for name in facemix_ops.__all__:
        assert callable(getattr(facemix_ops, name))
        assert name in dir(facemix_ops)
    assert facemix_ops.conv_mix.__name__ == "conv_mix"
    assert set(facemix_ops.__all__) == set(facemix_ops._HOMES)
    with pytest.raises(AttributeError, match="module 'facemix_ops' has no attribute 'conv_unmix'"):
        _ = facemix_ops.conv_unmix


@pytest.mark.parametrize("first", ["conv_mix", "MixKey", "convert"])
def test_any_name_first(tmp_path: Path, first: str) -> None:
    """Whatever is used first, the op is a function and not the module of the same name."""
    code = f"""
import facemix_ops
facemix_ops.{first}
from facemix_ops import conv_mix, act_mix, group_mix, group_unmix, unmix_linear, sample_orthogonal
import facemix_ops.ops.conv_mix
assert all(map(callable, (conv_mix, act_mix, group_mix, group_unmix, unmix_linear, sample_orthogonal)))
assert callable(facemix_ops.conv_mix) and callable(facemix_ops.{first})
"""
    output_of(code, tmp_path)
