"""Run the notebooks of the book as a reader would: from top to bottom, each in a fresh kernel.

::

    python -m tvm_deepdive_helpers.maintain.notebooks [NAMES ...] [--again] [--folder FOLDER]

``make notebooks`` runs all that did not run since something changed: the notebook, the helpers that its script imports,
recorded data, or a version. So an interrupted run goes on where it stopped. `NAMES` such as ``2-tir/tir_overview``
choose some. The book must be built: the notebooks are made from ``book/gallery``.

The folder in which they run is what the archive for readers holds. The helpers come from the wheel, unpacked, and not
from the checkout. pip may not use a network (``PIP_NO_INDEX``): with everything installed, the first cell must not
want to.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from .. import notebooks
from ..sphinxext import gallery_run, scripts
from ..sphinxext.notebooks import prepared

ROOT = notebooks.ROOT
GALLERY = ROOT / "gallery"
BUILT = ROOT / "book/gallery"
FOLDER = ROOT / "_build/notebooks"


def unpack(found: dict[str, dict], folder: Path) -> Path:
    """Lay the archive out in a folder, and the wheel in its subfolder ``site``; returns the former."""
    with zipfile.ZipFile(io.BytesIO(notebooks.archive(found, GALLERY / "data"))) as made:
        made.extractall(folder)
    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(notebooks.wheel())) as made:
        made.extractall(site)
    return folder / notebooks.ARCHIVE.removesuffix(".zip")


def key(name: str, notebook: dict) -> str:
    """What decides how a notebook runs: its text, and all that decides how its script runs."""
    script = scripts.parse(GALLERY / f"{name}.py", name)
    files = gallery_run.inputs(script, GALLERY / "data")
    parts = [notebooks.dumps(notebook), gallery_run.script_key(script, files, gallery_run.versions())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def execute(path: Path, site: Path, timeout: float, folder: Path | None = None) -> str | None:
    """Run a notebook in a fresh kernel, in its own folder or in `folder`; returns what went wrong."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=int(timeout),
        kernel_name="python3",
        resources={"metadata": {"path": str(folder or path.parent)}},
        extra_arguments=["--log-level=40"],  # the kernel talks to this machine only; its warning says nothing
    )
    env = {**os.environ, "PYTHONPATH": str(site), "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        client.execute(env=env)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as err:
        return str(err)[-3000:]
    return None


def run(names: Sequence[str], folder: Path = FOLDER, again: bool = False) -> dict[str, str]:
    """Run notebooks that are not known to run; returns the messages of those that failed, by name."""
    found = prepared(GALLERY, BUILT)
    missing = [name for name in names if name not in found]
    if missing or not found:
        raise SystemExit(f"no notebook of {', '.join(missing) or 'any script'} below {BUILT}: run `make html` first")
    wanted = list(names) or list(found)
    stamps = {name: folder / "stamps" / f"{name}.json" for name in wanted}
    keys = {name: key(name, found[name]) for name in wanted}
    todo = [name for name in wanted if again or not _ran(stamps[name], keys[name])]
    print(f"notebooks: {len(wanted) - len(todo)} of {len(wanted)} ran before, {len(todo)} to run", flush=True)
    if not todo:
        return {}
    top = unpack(found, folder / "work")
    failed = {}
    for number, name in enumerate(todo, start=1):
        begin = time.monotonic()
        limit = 4 * scripts.parse(GALLERY / f"{name}.py", name).timeout
        script = GALLERY / f"{name}.py"
        about = notebooks.ABOUT_THE_BOOK.search(script.read_text(encoding="utf-8"))
        problem = execute(top / f"{name}.ipynb", folder / "work/site", limit, script.parent if about else None)
        seconds = time.monotonic() - begin
        print(f"[{number}/{len(todo)}] {name}: {'failed' if problem else 'ok'}, {seconds:.1f} s", flush=True)
        stamps[name].parent.mkdir(parents=True, exist_ok=True)
        if problem:
            failed[name] = problem
            stamps[name].unlink(missing_ok=True)
        else:
            stamps[name].write_text(json.dumps({"key": keys[name], "seconds": round(seconds, 1)}), encoding="utf-8")
    return failed


def _ran(stamp: Path, wanted: str) -> bool:
    try:
        return json.loads(stamp.read_text(encoding="utf-8"))["key"] == wanted
    except (OSError, ValueError, KeyError):
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="notebooks", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="notebooks such as 2-tir/tir_overview (default: all)")
    parser.add_argument("--again", action="store_true", help="run those too that ran before")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where they run (default: _build/notebooks)")
    options = parser.parse_args(argv)
    failed = run(options.names, options.folder, options.again)
    for name, problem in failed.items():
        print(f"\n{name}.ipynb failed:\n{problem}", file=sys.stderr)
    if failed:
        print(f"notebooks: {len(failed)} failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
