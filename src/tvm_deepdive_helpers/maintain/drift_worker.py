"""Run gallery scripts inside the environment of one release of TVM, each cell as far as it goes.

:mod:`.drift` starts this module with the Python of a throw-away environment and talks to it in lines of JSON: a
request ``{"path": …, "name": …, "out": …}`` comes in, and an answer ``{"name": …, "ended": null or why}`` goes out when
the script's process is gone. What the cells did stands in the file ``out``, which is written anew after each cell, so
that the cells before a crash are not lost.

The runner of the book does the work (:mod:`..sphinxext.gallery_run` and :mod:`..sphinxext.gallery_child`: one process a
script, a time limit, the output of C++ and of child processes), but for one thing: there a cell that raises ends the
script, and here the next cell is tried.
"""

from __future__ import annotations

import ast
import builtins
import copy
import importlib
import json
import os
import re
import sys
import tempfile
import traceback
import types
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvm_deepdive_helpers.sphinxext import gallery_child, gallery_run, records, scripts

#: A script gets so many times its own time limit: the machine is busy with others.
PATIENCE = 2.0
_UNDEFINED = re.compile(r"name '(\w+)' is not defined")
_LONGEST = 300


def names_bound(code: str) -> set[str]:
    """Global names that a piece of a script may define.

    Examples
    --------
    >>> sorted(names_bound("import numpy as np\\nfrom a import b\\nfor i in x:\\n    y, z = i\\ndef f(): pass"))
    ['b', 'f', 'i', 'np', 'y', 'z']
    """
    found: set[str] = set()
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def lookup(name: str) -> Any:
    """The object of a dotted name, importing modules on the way; AttributeError or ImportError if there is none."""
    first, *rest = name.split(".")
    found = importlib.import_module(first)
    path = first
    for part in rest:
        path = f"{path}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(path)
            except ImportError:
                raise AttributeError(f"no {path}") from None
    return found


def give_new_names(names: dict[str, str]) -> dict[str, str]:
    """Put things of an older release under today's names, where it has the old name only.

    Returns
    -------
    dict
        The names that were given, new -> old.
    """
    given = {}
    for new, old in names.items():
        try:
            lookup(new)
        except (AttributeError, ImportError):
            try:
                thing = lookup(old)
            except (AttributeError, ImportError):
                continue
            parent, _, name = new.rpartition(".")
            setattr(lookup(parent), name, thing)
            if isinstance(thing, types.ModuleType):
                sys.modules[new] = thing
            given[new] = old
    return given


def names_said(code: str, names: Iterable[str]) -> list[str]:
    """Which of the dotted names a piece of code says, in an import or as an attribute.

    Examples
    --------
    >>> names_said("from tvm import sym, tirx", ["tvm.sym", "tvm.arith"])
    ['tvm.sym']
    >>> names_said("x = s_tir.SBlock", ["tvm.s_tir.SBlock"])
    ['tvm.s_tir.SBlock']
    """
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return []
    said: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            said |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            said |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            said.add(ast.unparse(node))
    tails = {name: ".".join(name.split(".")[-2:]) for name in names}
    return [name for name, tail in tails.items() if any(one == tail or one.endswith(f".{tail}") for one in said)]


def last_line(error: BaseException, replacements: tuple[tuple[str, str], ...], path: str = "") -> str:
    """The type of an exception and the first line of its message that says something, in one short line.

    An exception without a message, as of a plain ``assert``, is shown with the line of the script at ``path``.
    """
    from tvm_deepdive_helpers.book import clean_message

    message = clean_message(gallery_child.clean(str(error), replacements))
    lines = [line.strip() for line in message.splitlines() if line.strip(" \t-=^~|")]
    # TVM's schedule errors print the whole module first, and the reason at the end.
    reason = next((i for i, line in enumerate(lines) if line.startswith("Error message:")), 0)
    text = lines[reason] if lines else ""
    name = type(error).__name__
    if not text:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        text = (frames[-1].line or "") if frames else ""
    text = text if text.startswith(f"{name}:") else f"{name}: {text}".rstrip(": ")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def configuration() -> dict[str, Any]:
    """What sphinx-gallery's functions ask for; the scripts' pages are not made."""
    from sphinx_gallery import gen_gallery

    conf = copy.deepcopy(gen_gallery.DEFAULT_GALLERY_CONF)
    conf.update(plot_gallery=True, filename_pattern=r"\.py$", capture_repr=(), reset_modules=(), image_scrapers=())
    return conf


def run_cells(job: gallery_child.Job, capture: Any, trace_path: Path) -> None:
    """Run all cells of a script, in the process that is its own; takes the place of ``gallery_child._run``."""
    from sphinx_gallery import gen_rst, py_source_parser

    from tvm_deepdive_helpers import book

    file_conf, blocks = py_source_parser.split_code_and_text_blocks(str(job.script.path))
    cells: list[dict[str, Any]] = []
    lost: dict[str, str] = {}  # name of a variable -> the cell that should have made it
    state: dict[str, Any] = {"figures": 0, "error": None, "seen": 0}
    original = gen_rst.execute_code_block
    before = gallery_child._cpu_seconds()

    def count_figures(*_: Any) -> str:
        if pyplot := sys.modules.get("matplotlib.pyplot"):
            state["figures"] = len(pyplot.get_fignums())
            pyplot.close("all")
        return ""

    def note_exception(exc_info: Any, *_: Any) -> str:
        state["error"] = exc_info[1]
        return ""

    def execute(compiler: Any, block: Any, names: Any, script_vars: Any, conf: Any, file_conf: Any) -> str:
        if block.type != "code":
            return ""
        trace_path.with_suffix(".at").write_text(str(block.lineno))
        head = job.script.cell_at(block.lineno)
        number = len(cells) + 1
        state.update(figures=0, error=None, seen=len(book.GLUED))
        original(compiler, block, names, script_vars, conf, file_conf)
        cell: dict[str, Any] = {
            "name": head.name if head else f"block {number}",
            "line": head.line if head else block.lineno,
            "varies": bool(head and head.varies),
            "output": "\n".join(line.rstrip() for line in capture.getvalue().strip("\n").split("\n")),
            "figures": state["figures"],
            "values": {item.name: item.value for item in book.GLUED[state["seen"] :] if not item.varies},
        }
        if renamed := names_said(block.content, RENAMED):
            cell["renamed"] = {name: RENAMED[name] for name in renamed}
        if state["error"] is not None:
            cell["error"] = last_line(state["error"], job.replace, str(job.script.path))
            missing = _UNDEFINED.search(str(state["error"])) if isinstance(state["error"], NameError) else None
            if missing and missing[1] in lost:
                cell["needs"] = lost[missing[1]]
            bound = {name for name in names_bound(block.content) if name not in names and not hasattr(builtins, name)}
            lost.update({name: cell.get("needs", cell["name"]) for name in bound - lost.keys()})
        cells.append(cell)
        save()
        return ""

    def save() -> None:
        used = round(gallery_child._cpu_seconds() - before, 3)
        text = json.dumps({"cells": cells, "cpu_seconds": used}, ensure_ascii=False)
        records.write_atomically(job.out_dir, text)

    gen_rst.execute_code_block = execute
    gen_rst.save_figures = count_figures
    gen_rst.handle_exception = note_exception
    gen_rst._LoggingTee = gallery_child._make_tee(gen_rst._LoggingTee, capture)
    book.GLUED.clear()
    with tempfile.TemporaryDirectory(prefix="tvm-deepdive-") as folder:
        copied = Path(folder, job.script.path.name)
        copied.write_bytes(job.script.path.read_bytes())
        script_vars = {"execute_script": True, "src_file": str(job.script.path), "target_file": str(copied)}
        gen_rst.execute_script(blocks, script_vars, job.gallery_conf, file_conf)
    save()


def run(path: Path, name: str, out: Path) -> str | None:
    """Run one script in a process of its own.

    Returns
    -------
    str or None
        Why its process did not come to the end of the script, if it did not.
    """
    script = scripts.parse(path, name)
    script = replace(script, timeout=script.timeout * PATIENCE)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    job = gallery_child.Job(script, path.parent, out, configuration(), "", {}, REPLACEMENTS)
    failure = gallery_run.run_one(job)
    return failure.reason if failure else None


REPLACEMENTS: tuple[tuple[str, str], ...] = ()
#: Today's names that this release got, and its own names for them.
RENAMED: dict[str, str] = {}


def main(root: str, names: str = "{}") -> None:
    """Answer requests until the input ends.

    Parameters
    ----------
    root
        Folder of the book.
    names
        JSON: today's name of a thing -> its older name.
    """
    global REPLACEMENTS
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    REPLACEMENTS = gallery_run.replacements(Path(root))
    gallery_child._run = run_cells
    try:
        from sphinx_gallery.scrapers import _import_matplotlib

        _import_matplotlib()
        import tvm
        import tvm_ffi  # noqa: F401

        RENAMED.update(give_new_names(json.loads(names)))
        hello = {"ready": True, "tvm": tvm.__version__, "root": str(Path(tvm.__file__).parent)}
    except BaseException as err:  # noqa: BLE001 - a release that cannot be loaded is an answer too
        hello = {"ready": False, "error": last_line(err, REPLACEMENTS)}
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        ended = run(Path(request["path"]), request["name"], Path(request["out"]))
        print(json.dumps({"name": request["name"], "ended": ended}), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
