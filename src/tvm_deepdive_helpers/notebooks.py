"""Notebooks that run anywhere: their first cell, the wheel of this package, and the archive with all of them.

sphinx-gallery makes a notebook of every script. A reader who downloads one has neither the right TVM nor
`tvm_deepdive_helpers`, which no package index offers. So each notebook gets a first cell that installs the versions
with which the book was built, and this package from a wheel that the book offers beside the notebooks. When everything
is there, the cell does nothing and needs no network.

Pure functions on texts and files; `sphinxext.notebooks` calls them at the end of a build, and
``maintain.notebooks`` runs what they made.
"""

from __future__ import annotations

import ast
import base64
import copy
import hashlib
import importlib.metadata
import io
import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from .sphinxext import scripts

__all__ = ["ARCHIVE", "WHEEL", "archive", "first_cell", "is_prepared", "needs", "pins", "prepare", "wheel"]

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent.parent
VERSION = "0.1.0"
WHEEL = f"tvm_deepdive-{VERSION}-py3-none-any.whl"
ARCHIVE = "tvm-deepdive-notebooks.zip"
#: Exactly these versions: another FFI crashes, another TVM prints other IR.
EXACT = ("apache-tvm", "apache-tvm-ffi")
#: What TVM imports by itself when these words stand in a script.
TUNING = re.compile(r"\b(meta_schedule|rpc|tuning|disco|xgboost)\b")
TUNING_PACKAGES = ("cloudpickle", "psutil", "tornado", "xgboost")
#: Only the build of the book needs these; helpers import them inside of functions.
BUILDING = {"docutils", "sphinx", "sphinx_gallery"}
#: Scripts that start programs and read what these print. (Jupyter asks all programs for colours.)
STARTS = re.compile(r"\b(subprocess|run_isolated)\b")
#: Scripts about the files of the book itself: they run in their folder of a checkout only.
ABOUT_THE_BOOK = re.compile(r"^ROOT = data\(", re.M)
#: The date of files in archives, so that the same files give the same bytes.
EPOCH = (2020, 1, 1, 0, 0, 0)
MARK = "tvm_deepdive"

TEMPLATE = """\
# Installs the versions with which this notebook was checked. If they are there,
# this cell does nothing, and needs no network.
import importlib.metadata
import importlib.util
import pathlib
import subprocess
import sys

EXACT = {exact}
ANY = {others}
HELPERS = "{wheel}"
DATA = {data}

folders = [pathlib.Path.cwd(), *pathlib.Path.cwd().parents]
install = []
for name, version in EXACT.items():
    try:
        right = importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        right = False
    if not right:
        install.append(f"{{name}}=={{version}}")
for module, requirement in ANY.items():
    if importlib.util.find_spec(module) is None:
        if sys.platform == "darwin":
            requirement = requirement.replace("xgboost-cpu", "xgboost")
        install.append(requirement)
if importlib.util.find_spec("tvm_deepdive_helpers") is None:
    wheels = [folder / HELPERS for folder in folders]
    wheels = [wheel for wheel in wheels if wheel.is_file()]
    if not wheels:
        raise FileNotFoundError(
            f"{{HELPERS}} is missing. The page 'Notebooks' of the book offers it;"
            " put it into the folder of this notebook."
        )
    install.append(str(wheels[0]))
for name in DATA:
    if not any((folder / "data" / name).is_file() for folder in folders):
        raise FileNotFoundError(
            f"data/{{name}} is missing. It comes with the archive of all"
            " notebooks, on the page 'Notebooks' of the book."
        )
if install:
    subprocess.run([sys.executable, "-m", "pip", "install", *install], check=True)
"""

NO_COLOURS = """
# Jupyter asks every program that is started for colours; here their output is read.
import os

os.environ["FORCE_COLOR"] = "0"
"""

IN_A_CHECKOUT = """
if not any((folder / "CITATION.cff").is_file() for folder in folders):
    raise FileNotFoundError(
        "This notebook reads files of the book itself: open it in the folder"
        " of its script, in a checkout of the book."
    )
"""

PLAIN_TABLES = """
# In a notebook MetaSchedule prints its tables with pandas, which TVM does not install.
# As text they need nothing.
import tvm_ffi
from tvm.s_tir import meta_schedule

tvm_ffi.register_global_func(
    "s_tir.meta_schedule.using_ipython", lambda: False, override=True
)
"""


@lru_cache(maxsize=1)
def pins(constraints: Path = ROOT / "constraints.txt") -> Mapping[str, str]:
    """Exact versions of all packages, by their names in lower case."""
    lines = constraints.read_text(encoding="utf-8").splitlines()
    found = (line.partition("==") for line in lines if line and not line.startswith("#"))
    return {name.strip().lower(): version.strip() for name, _, version in found}


def _imports(tree: ast.Module) -> set[str]:
    """Modules that a file imports by their full names, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@lru_cache(maxsize=256)
def _helper(path: Path, _mtime: int) -> frozenset[str]:
    """What a module of this package imports, directly or not, outside of it."""
    files = [path, *scripts.imported_helpers(path, PACKAGE)]
    names = (name for file in files for name in _imports(ast.parse(file.read_text(encoding="utf-8"))))
    return frozenset(name.partition(".")[0] for name in names)


@lru_cache(maxsize=1)
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def needs(script: Path) -> dict[str, str]:
    """What a script needs beside TVM: for each module the requirement with its version.

    Packages that are optional in the book and stand in no constraints (PyTorch) are left out.
    """
    text = script.read_text(encoding="utf-8")
    modules: set[str] = set()
    for name in _imports(ast.parse(text)):
        top, _, rest = name.partition(".")
        helper = PACKAGE / f"{rest.replace('.', '/')}.py"
        if top != PACKAGE.name:
            modules.add(top)
        elif rest and helper.is_file():
            modules |= _helper(helper, helper.stat().st_mtime_ns)
    modules -= set(sys.stdlib_module_names) | BUILDING
    if TUNING.search(text):
        modules |= set(TUNING_PACKAGES)
    known = pins()
    found = {}
    for module in sorted(modules):
        names = [name for name in _distributions().get(module, []) if name.lower() in known]
        # On Linux both "xgboost" and "xgboost-cpu" may be pinned; the latter comes without NCCL.
        name = "xgboost-cpu" if module == "xgboost" else names[0] if names else None
        if name is not None and name.lower() not in EXACT:
            found[module] = f"{name}=={known[name.lower()]}"
    return found


def _literal(value: Mapping[str, str]) -> str:
    if not value:
        return "{}"
    lines = "".join(f"    {json.dumps(key)}: {json.dumps(item)},\n" for key, item in value.items())
    return "{\n" + lines + "}"


def first_cell(script: Path) -> str:
    """The text of the first cell for a script."""
    parsed = scripts.parse(script, f"{script.parent.name}/{script.stem}")
    text = script.read_text(encoding="utf-8")
    settings = NO_COLOURS if STARTS.search(text) else ""
    if re.search(r"\b(meta_schedule|tuning)\b", text):
        settings += PLAIN_TABLES
    if ABOUT_THE_BOOK.search(text):
        settings += IN_A_CHECKOUT
    cell = TEMPLATE.format(
        exact=_literal({name: pins()[name] for name in EXACT}),
        others=_literal(needs(script)),
        wheel=WHEEL,
        data=json.dumps(list(parsed.data)),
    )
    return cell + settings


def is_prepared(notebook: Mapping[str, Any]) -> bool:
    """Whether the first cell is already there."""
    cells = notebook["cells"]
    return bool(cells) and MARK in cells[0]["metadata"]


def prepare(notebook: Mapping[str, Any], script: Path, text: str | None = None) -> dict[str, Any]:
    """The notebook of sphinx-gallery with the first cell, `text` or what `first_cell` says.

    Cells that show an expected error need no mark: ``expect_error`` catches it. A cell that holds only settings of
    the book is left out.
    """
    made = copy.deepcopy(dict(notebook))
    cells = [cell for cell in made["cells"] if not _is_setting(cell)]
    if not is_prepared(made):
        text = (first_cell(script) if text is None else text).rstrip("\n")
        first = {
            "cell_type": "code",
            "execution_count": None,
            "metadata": {MARK: "set-up", "jupyter": {"source_hidden": True}},
            "outputs": [],
            "source": text.splitlines(keepends=True),
        }
        cells.insert(0, first)
    made["cells"] = cells
    return made


def _is_setting(cell: Mapping[str, Any]) -> bool:
    text = "".join(cell["source"]).strip()
    return cell["cell_type"] == "code" and all(
        re.match(r"# (gallery:|sphinx_gallery_)", line) for line in text.split("\n")
    )


def dumps(notebook: Mapping[str, Any]) -> str:
    """The notebook as text."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------------------------------ the files beside it


def _zip(files: Iterable[tuple[str, bytes]]) -> bytes:
    """An archive whose bytes depend on nothing but the files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as made:
        for name, content in files:
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            made.writestr(info, content)
    return stream.getvalue()


def package_files() -> list[Path]:
    """The files of this package that scripts can need: modules, and the data beside them."""
    return sorted(
        path
        for path in PACKAGE.rglob("*")
        if path.is_file()
        and path.suffix not in (".pyc", ".po", ".mo", ".new")
        and "__pycache__" not in path.parts
        and not path.name.startswith(".")
    )


def wheel() -> bytes:
    """A wheel of this package, which pip installs without building anything."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = f"tvm_deepdive-{VERSION}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {requirement}" for requirement in project["dependencies"]),
    ]
    head = "Wheel-Version: 1.0\nGenerator: tvm_deepdive_helpers.notebooks\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files = [(path.relative_to(PACKAGE.parent).as_posix(), path.read_bytes()) for path in package_files()]
    files += [
        (f"{info}/METADATA", ("\n".join(metadata) + "\n").encode()),
        (f"{info}/WHEEL", head.encode()),
        (f"{info}/LICENSE", (ROOT / "LICENSE").read_bytes()),
    ]
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files)
    return _zip([*files, (f"{info}/RECORD", f"{record}{info}/RECORD,,\n".encode())])


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


README = f"""\
The notebooks of TVM Deep Dive, one for each script of the book.

    python3 -m venv .venv
    .venv/bin/pip install notebook {WHEEL} -c constraints.txt
    .venv/bin/jupyter notebook

The first cell of each notebook installs what is missing. data/ holds measurements that some notebooks read.
"""


def archive(notebooks: Mapping[str, Any], data: Path) -> bytes:
    """All prepared notebooks, by part and name, with the wheel and the recorded data.

    Parameters
    ----------
    notebooks : mapping
        From names such as ``2-tir/tir_overview`` to prepared notebooks.
    data : Path
        The folder of recorded data.
    """
    top = ARCHIVE.removesuffix(".zip")
    recorded = sorted(path for path in data.iterdir() if path.is_file()) if data.is_dir() else []
    files = [
        (f"{top}/README.txt", README.encode()),
        (f"{top}/{WHEEL}", wheel()),
        (f"{top}/constraints.txt", (ROOT / "constraints.txt").read_bytes()),
        *((f"{top}/{name}.ipynb", dumps(notebooks[name]).encode()) for name in sorted(notebooks)),
        *((f"{top}/data/{path.name}", path.read_bytes()) for path in recorded),
    ]
    return _zip(files)
