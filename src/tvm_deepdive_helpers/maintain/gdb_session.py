"""Record what gdb shows where errors are made, where a stack overflows, and in a kernel that does not end.

It needs gdb on x86-64, runs for some seconds and writes two files to ``gallery/data``, with programs and commands:
``gdb_session.txt`` (a kernel's error, a full stack), ``gdb_inside.txt`` (an error of the compiler, an endless kernel).
Name one of them to write only that::

    python -m tvm_deepdive_helpers.maintain.gdb_session
    python -m tvm_deepdive_helpers.maintain.gdb_session gdb_inside.txt
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

KERNEL = """\
import tvm
from tvm.script import tirx as T

@T.prim_func
def add_one(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        B[i] = A[i] + T.float32(1)

kernel = add_one.with_attr("global_symbol", "add_one")
tvm.compile(kernel, "llvm").export_library("add_one.so")
tvm.runtime.load_module("./add_one.so")["add_one"](1, 2)
"""

RECURSION = """\
import tvm
from tvm import relax

b = relax.ExecBuilder()
with b.function("f", num_inputs=0):
    b.emit_call("f", [], dst=b.r(0))
    b.emit_ret(b.r(0))
relax.VirtualMachine(b.get(), tvm.cpu())["f"]()
"""

TYPE_ERROR = """\
import signal
import tvm
from tvm import relax

x = relax.Var("x", relax.TensorType((8,), "float32"))
y = relax.Var("y", relax.TensorType((9,), "float32"))
signal.raise_signal(signal.SIGTRAP)
relax.BlockBuilder().normalize(relax.op.add(x, y))
"""

ENDLESS = """\
import os, signal, threading
import numpy as np
import tvm
from tvm.script import tirx as T

@T.prim_func
def spin(A: T.Buffer((1,), "int32")):
    while A[0] >= 0:
        A[0] = A[0] & 7

kernel = spin.with_attr("global_symbol", "spin")
tvm.compile(kernel, "llvm").export_library("spin.so")
threading.Timer(1, os.kill, (os.getpid(), signal.SIGINT)).start()
tvm.runtime.load_module("./spin.so")["spin"](tvm.runtime.tensor(np.zeros(1, "int32")))
"""

SESSIONS = (
    (
        "kernel.py",
        KERNEL,
        [
            "set breakpoint pending on",
            "break TVMFFIErrorSetRaisedFromCStrParts",
            "run",
            "x/s $rdi",
            "backtrace 9",
        ],
    ),
    ("recursion.py", RECURSION, ["run", "backtrace 12"]),
)

# Python's own signals stop gdb where the program wants it: SIGTRAP after the imports, SIGINT in the loop.
INSIDE = (
    (
        "add.py",
        TYPE_ERROR,
        [
            "run",
            "break TVMFFIBacktrace",
            "continue",
            "x/s $rdi",
            "print $esi",
            "backtrace 6",
            "call (int) PyGILState_Ensure()",
            'call (int) PyRun_SimpleString("import faulthandler as f; f.dump_traceback(1)")',
        ],
    ),
    ("spin.py", ENDLESS, ["run", "backtrace 3", "kill"]),
)

FILES = {"gdb_session.txt": SESSIONS, "gdb_inside.txt": INSIDE}


def clean(text: str) -> str:
    """Take out folders, the arguments of the interpreter's functions, and gdb's own notices.

    Addresses go as well, but for those of functions without a name: equal letters are equal addresses.
    """
    start = re.search(r'^Thread \d+ "python"', text, re.M)
    if not start:
        raise ValueError(f"gdb did not stop in the program:\n{text[-2000:]}")
    text = text[start.start() :]
    letters: dict[str, str] = {}
    text = re.sub(
        r"^(#\d+ +)(0x[0-9a-f]+) in \?\? \(\)",
        lambda found: f"{found[1]}{letters.setdefault(found[2], chr(ord('A') + len(letters)))} in ?? ()",
        text,
        flags=re.M,
    )
    text = re.sub(r"0x[0-9a-f]+ in ", "", text)
    text = re.sub(r"^0x[0-9a-f]+(?=:)", "0x…", text, flags=re.M)
    text = re.sub(r"(\w+)=<optimized out>", r"\1", text)
    text = re.sub(r"(\w+)=0x[0-9a-f]+", r"\1", text)
    text = re.sub(r"^(#\d+ +_?Py\w+) \(.*\)(?= at )", r"\1 (…)", text, flags=re.M)
    text = re.sub(r"( at|thread) 0x[0-9a-f]+", r"\1 0x…", text)
    text = re.sub(r'File "[^"]*/([^/"]+)"', r'File "\1"', text)
    text = re.sub(r"(from|at) \S*/([^/\s]+)$", r"\1 \2", text, flags=re.M)
    text = re.sub(r"core\.cpython\S*\.so", "core.so", text)
    lines = [line for line in text.splitlines() if line and not line.startswith(("(More stack", "["))]
    return "\n".join(lines)


def record(name: str, program: str, commands: list[str]) -> str:
    """Run a program under gdb, and give the whole session as text.

    Parameters
    ----------
    name, program : str
        File and text of a Python program that gdb will see stop.
    commands : list of str
        What gdb is told, one after the other.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(program, encoding="utf-8")
        options = [word for command in commands for word in ("-ex", command)]
        call = ["gdb", "-nx", "-q", "-batch", *options, "--args", sys.executable, name]
        ended = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=True)
    shown = " \\\n    ".join(["gdb -nx -q -batch", *(f"-ex {shlex.quote(c)}" for c in commands)])
    return f"$ cat {name}\n{program}$ {shown} \\\n    --args python {name}\n{clean(ended.stdout)}\n"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", choices=[[], *FILES], help="files to write (default: all)")
    parser.add_argument("--into", type=Path, default=Path("gallery/data"), help="folder of the files")
    args = parser.parse_args(argv)
    gdb = subprocess.run(["gdb", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    python = ".".join(map(str, sys.version_info[:2]))
    facts = f"apache-tvm {importlib.metadata.version('apache-tvm')}, gdb {gdb.split()[-1]}, Python {python}"
    head = f"# generated: python -m tvm_deepdive_helpers.maintain.gdb_session; {facts}, {sys.platform}\n"
    for name in args.files or FILES:
        (args.into / name).write_text(head + "".join(record(*session) for session in FILES[name]), encoding="utf-8")


if __name__ == "__main__":
    main()
