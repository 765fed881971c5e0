"""The package itself: light to import, and honest about a broken pair of versions."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tvm_deepdive_helpers import ffi_problem

SRC = Path(__file__).parents[1] / "src"


@pytest.mark.parametrize(
    ("tvm_version", "ffi_version", "bad"),
    [
        ("0.27.0.post1", "0.1.15.post2", True),
        ("0.27.0.post1", "0.1.15", True),
        ("0.26.0", "0.1.15.post1", True),
        ("0.27.0.post1", "0.1.14.post1", False),
        ("0.27.0.post1", "0.1.150", False),
        ("0.27.0.post1", "0.1.16", False),
        ("0.25.0.post1", "0.1.15.post1", False),
        ("0.270.0", "0.1.15", False),
        (None, "0.1.15", False),
        ("0.27.0", None, False),
    ],
)
def test_ffi_problem(tvm_version, ffi_version, bad):
    problem = ffi_problem(tvm_version, ffi_version)
    assert (problem is not None) == bad
    if problem:
        assert "\n" not in problem
        assert "pip install apache-tvm-ffi==0.1.14.post1" in problem and "segmentation fault" in problem


def _run(code: str, *first_on_path: Path) -> subprocess.CompletedProcess:
    path = [*map(str, first_on_path), str(SRC)]
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=True,
    )


def test_import_is_light_and_silent():
    code = (
        "import tvm_deepdive_helpers\n"
        "print([name for name in ('tvm', 'tvm_ffi', 'matplotlib', 'numpy', 'sphinx') if name in sys.modules])"
    )
    done = _run(code)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_import_warns_once_about_a_broken_pair(tmp_path):
    for name, version in (("apache_tvm", "0.27.0.post1"), ("apache_tvm_ffi", "0.1.15.post2")):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    done = _run("import tvm_deepdive_helpers, tvm_deepdive_helpers.book", tmp_path)
    assert done.stderr.count("\n") == 1 and "0.1.15.post2" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("name", ["tvm_deepdive_helpers", "tvm_deepdive_helpers.book", "tvm_deepdive_helpers.ir"])
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed
