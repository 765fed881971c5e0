"""Notebooks: their first cell, the wheel, the archive, and three of them in a fresh kernel."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tvm_deepdive_helpers import notebooks
from tvm_deepdive_helpers.maintain import notebooks as maintain

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "gallery").glob("*/*.py"))
#: Short ones: plain, with recorded data, with an error that is meant to happen.
SAMPLE = ("2-tir/tir_overview", "0-start/versions", "8-appendix/template")


def script_id(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    made = maintain.prepared(maintain.GALLERY, maintain.BUILT)
    if not made:
        pytest.skip("the book is not built")
    return made


def run_cell(text: str, folder: Path, *, path: str = "", code: str = "") -> subprocess.CompletedProcess[str]:
    """Run a first cell in a folder, in a process without a network."""
    guard = (
        "import socket\n"
        "def refuse(*args, **kwargs): raise OSError('no network here')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
    )
    env = {**os.environ, "PYTHONPATH": path, "PIP_NO_INDEX": "1"}
    return subprocess.run(
        [sys.executable, "-c", guard + code + text],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=script_id)
def test_the_first_cell_names_the_pins(script: Path) -> None:
    text = notebooks.first_cell(script)
    assigned = (node for node in ast.parse(text).body if isinstance(node, ast.Assign))
    names = {node.targets[0].id: node.value for node in assigned if isinstance(node.targets[0], ast.Name)}
    pins = notebooks.pins()
    assert ast.literal_eval(names["EXACT"]) == {name: pins[name] for name in ("apache-tvm", "apache-tvm-ffi")}
    for requirement in ast.literal_eval(names["ANY"]).values():
        name, _, version = requirement.partition("==")
        assert pins[name.lower()] == version
    for name in ast.literal_eval(names["DATA"]):
        assert (ROOT / "gallery/data" / name).is_file()


def test_what_a_notebook_needs_beside_it() -> None:
    """Tables of MetaSchedule without pandas, and no colours in what other programs print."""
    tuning = notebooks.first_cell(ROOT / "gallery/5-auto-scheduling/ms_overview.py")
    assert "using_ipython" in tuning and "xgboost" in tuning
    assert "FORCE_COLOR" in notebooks.first_cell(ROOT / "gallery/4-operators/op_back_ends.py")
    plain = notebooks.first_cell(ROOT / "gallery/2-tir/tir_overview.py")
    assert "using_ipython" not in plain and "FORCE_COLOR" not in plain and '"xgboost":' not in plain


def test_all_notebooks_begin_with_it_and_hold_the_cells_of_their_script(found: dict[str, dict]) -> None:
    assert found.keys() == {script_id(path) for path in SCRIPTS}
    for name, notebook in found.items():
        first, *rest = notebook["cells"]
        assert first["metadata"][notebooks.MARK] == "set-up", name
        assert "".join(first["source"]).startswith("# Installs the versions"), name
        assert not any(notebooks.MARK in cell["metadata"] for cell in rest), name
        code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
        ast.parse(code)
        assert "# gallery:" not in code, name
        script = (ROOT / f"gallery/{name}.py").read_text(encoding="utf-8")
        assert sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(code))) == sum(
            isinstance(node, ast.Assert) for node in ast.walk(ast.parse(script))
        ), name


def test_preparing_twice_changes_nothing(found: dict[str, dict]) -> None:
    name = SAMPLE[0]
    assert notebooks.prepare(found[name], ROOT / f"gallery/{name}.py") == found[name]


def test_the_first_cell_is_harmless_when_all_is_there(tmp_path: Path) -> None:
    text = notebooks.first_cell(ROOT / f"gallery/{SAMPLE[0]}.py")
    done = run_cell(text, tmp_path, path=str(ROOT / "src"))
    assert (done.returncode, done.stdout) == (0, "")


def test_the_first_cell_installs_what_is_missing(tmp_path: Path) -> None:
    """The wheel from the folder above, and the right FFI; pip itself is replaced by a print."""
    (tmp_path / notebooks.WHEEL).write_bytes(notebooks.wheel())
    part = tmp_path / "part"
    part.mkdir()
    pretend = (
        "import importlib.metadata as m, importlib.util as u, subprocess\n"
        "old, find = m.version, u.find_spec\n"
        "m.version = lambda name: '0.1.15' if name == 'apache-tvm-ffi' else old(name)\n"
        "u.find_spec = lambda name: None if name in ('numpy', 'tvm_deepdive_helpers') else find(name)\n"
        "subprocess.run = lambda command, check: print(*command[1:], sep='\\n')\n"
    )
    done = run_cell(notebooks.first_cell(ROOT / f"gallery/{SAMPLE[0]}.py"), part, code=pretend)
    assert done.returncode == 0, done.stdout
    pins = notebooks.pins()
    assert done.stdout.split("\n")[:-1] == [
        "-m", "pip", "install", f"apache-tvm-ffi=={pins['apache-tvm-ffi']}", f"numpy=={pins['numpy']}",
        str(tmp_path / notebooks.WHEEL),
    ]  # fmt: skip


def test_the_first_cell_says_what_it_cannot_get(tmp_path: Path) -> None:
    hide = (
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name: None if 'deepdive' in name else find(name)\n"
    )
    done = run_cell(notebooks.first_cell(ROOT / f"gallery/{SAMPLE[0]}.py"), tmp_path, code=hide)
    assert done.returncode == 1 and f"{notebooks.WHEEL} is missing. The page 'Notebooks'" in done.stdout
    done = run_cell(notebooks.first_cell(ROOT / f"gallery/{SAMPLE[1]}.py"), tmp_path, path=str(ROOT / "src"))
    assert done.returncode == 1 and "is missing. It comes with the archive" in done.stdout


def test_the_wheel_is_one(tmp_path: Path) -> None:
    """pip accepts it, and what it installs is this package; the same files give the same bytes."""
    content = notebooks.wheel()
    assert content == notebooks.wheel()
    path = tmp_path / notebooks.WHEEL
    path.write_bytes(content)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            tmp_path / "t",
            path,
        ],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    installed = tmp_path / "t/tvm_deepdive_helpers"
    for name in ("ir.py", "explorer.py", "sphinxext/static/explorer.js"):
        assert (installed / name).read_bytes() == (notebooks.PACKAGE / name).read_bytes()
    version = subprocess.run(
        [sys.executable, "-c", "import tvm_deepdive_helpers as h; print(h.__version__, h.__file__)"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "t")}, text=True, capture_output=True, check=True,
    ).stdout.split()  # fmt: skip
    assert version == [notebooks.VERSION, str(installed / "__init__.py")]
    assert f'version = "{notebooks.VERSION}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_archive_holds_all(found: dict[str, dict]) -> None:
    with zipfile.ZipFile(io.BytesIO(notebooks.archive(found, ROOT / "gallery/data"))) as made:
        names = set(made.namelist())
        top = notebooks.ARCHIVE.removesuffix(".zip")
        assert {f"{top}/{name}.ipynb" for name in found} < names
        assert {f"{top}/README.txt", f"{top}/constraints.txt", f"{top}/{notebooks.WHEEL}"} < names
        assert {f"{top}/data/{path.name}" for path in (ROOT / "gallery/data").iterdir()} < names
        assert all(info.date_time == notebooks.EPOCH for info in made.infolist())


def test_downloads_of_a_build_are_prepared(book) -> None:
    book.script("one", "# gallery: timeout=60\n\n# %% cell: a\nprint(1)\n")
    for _ in range(2):  # the second build copies the raw notebook again
        book.good_build()
        [path] = (book.out / "_downloads").glob("*/one.ipynb")
        notebook = json.loads(path.read_text(encoding="utf-8"))
        assert notebooks.is_prepared(notebook)
        assert "gallery:" not in json.dumps(notebook)
        [packed] = (book.out / "_downloads").glob("*/one.zip")
        with zipfile.ZipFile(packed) as made:
            [name] = [name for name in made.namelist() if name.endswith(".ipynb")]
            assert notebooks.is_prepared(json.loads(made.read(name)))
        assert (book.out / "_downloads/notebooks" / notebooks.ARCHIVE).is_file()
    assert not notebooks.is_prepared(
        json.loads((book.root / "book/gallery/1-part/one.ipynb").read_text(encoding="utf-8"))
    )


@pytest.mark.timeout(600)
def test_a_sample_runs_in_fresh_kernels(
    found: dict[str, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`make notebooks` runs all of them."""
    assert maintain.run(SAMPLE, tmp_path) == {}
    assert maintain.run(SAMPLE, tmp_path) == {}
    assert f"{len(SAMPLE)} of {len(SAMPLE)} ran before, 0 to run" in capsys.readouterr().out
    # A cell that fails is reported, with its error.
    path = tmp_path / "broken.ipynb"
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": "assert 1 == 2"}
    path.write_text(notebooks.dumps({**found[SAMPLE[0]], "cells": [cell]}), encoding="utf-8")
    assert "AssertionError" in maintain.execute(path, tmp_path / "work/site", 60)
