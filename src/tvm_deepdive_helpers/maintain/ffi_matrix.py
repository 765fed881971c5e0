"""Try every release of ``apache-tvm-ffi`` that pip may put beside the installed TVM.

Each release is installed into a temporary folder that stands first on ``PYTHONPATH``, so that the environment
itself is not touched; each operation runs in a process of its own, because some of them kill it::

    python -m tvm_deepdive_helpers.maintain.ffi_matrix 0.1.14.post0 0.1.14.post1 0.1.15.post1 0.1.15.post2

The table goes to ``gallery/data/ffi_matrix.csv``: one row a release and operation, how the process ended, and the
innermost function of TVM on the stack if a signal ended it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ..isolate import run_isolated
from ..recorded import write_csv

MODULE = """
import copy, pickle
import tvm
from tvm import s_tir, te
from tvm.script import tirx as T

@T.prim_func(s_tir=True)
def add_one(a: T.Buffer((16,), "float32"), b: T.Buffer((16,), "float32")):
    for i in range(16):
        with T.sblock("b"):
            vi = T.axis.spatial(16, i)
            b[vi] = a[vi] + T.float32(1)

@T.prim_func(s_tir=True)
def four(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
    with T.sblock("root"):
        T.reads(a[0:4])
        T.writes(b[0:4])
        for i in range(4):
            with T.sblock("b"):
                vi = T.axis.spatial(4, i)
                b[vi] = a[vi] + T.float32(1)

mod = tvm.IRModule({"add_one": add_one})
"""

PROBES = {
    "import": "import tvm",
    "compile": MODULE + 'tvm.compile(mod, target="llvm")',
    "script": MODULE + "mod.script()",
    "save_json": MODULE + "tvm.ir.load_json(tvm.ir.save_json(mod))",
    "pickle": MODULE + "pickle.loads(pickle.dumps(mod))",
    "deepcopy": MODULE + "copy.deepcopy(mod)",
    "tensorize": MODULE
    + """
s_tir.TensorIntrin.register("probe.four", four, four)
sch = s_tir.Schedule(add_one)
(i,) = sch.get_loops(sch.get_sblock("b"))
_, inner = sch.split(i, [None, 4])
sch.tensorize(inner, "probe.four")
""",
}

_FRAME = re.compile(r"in (tvm::[\w:]+)\(")


def innermost_frame(backtrace: str) -> str:
    """Name of the first function of TVM in a backtrace, or an empty text.

    >>> innermost_frame('  File "<unknown>", line 0, in tvm::ffi::ToJSONGraph(tvm::ffi::Any const&)')
    'tvm::ffi::ToJSONGraph'
    """
    found = _FRAME.search(backtrace)
    return found.group(1) if found else ""


def rows(versions: list[str]) -> list[tuple[str, str, str, str]]:
    """Run all probes under all releases.

    Parameters
    ----------
    versions
        Releases of ``apache-tvm-ffi``.

    Returns
    -------
    list of tuple
        Release, operation, how the process ended, innermost function of TVM.

    Raises
    ------
    subprocess.CalledProcessError
        If pip cannot install a release.
    """
    found = []
    for version in versions:
        with tempfile.TemporaryDirectory(prefix="ffi-") as folder:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
            subprocess.run([*install, f"apache-tvm-ffi=={version}"], check=True)
            path = os.pathsep.join([folder, *(entry for entry in sys.path if entry)])
            for name, source in PROBES.items():
                ended = run_isolated(source, env={"PYTHONPATH": path})
                found.append((version, name, ended.describe(), innermost_frame(ended.stderr)))
                print(*found[-1])
    return found


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="+", help="releases of apache-tvm-ffi to try")
    parser.add_argument("--into", type=Path, default=Path("gallery/data/ffi_matrix.csv"))
    args = parser.parse_args(argv)
    found = rows(args.versions)
    python = ".".join(map(str, sys.version_info[:2]))
    tried = f"apache-tvm {importlib.metadata.version('apache-tvm')}, Python {python}, {sys.platform}"
    command = f"ffi_matrix {' '.join(args.versions)}; {tried}"
    write_csv(args.into, command, ("ffi", "operation", "ended", "innermost"), found)


if __name__ == "__main__":
    main()
