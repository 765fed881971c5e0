"""
Names of older texts, and today's
=================================

The table of renamed, moved and removed names: each old name is tried, and
each new call is run.
"""

# %% cell: setup
import collections
import contextlib
import io
import logging
import os

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, s_tir, te, tirx, topi
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.renames import find, read_renames, run, try_row
from tvm_deepdive_helpers.tuning import (
    CpuTimeRunner,
    InProcessBuilder,
    load_intrinsics,
)

load_intrinsics()
logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)


# %% cell: names
def nd(*shape):
    """A tensor of ones."""
    return tvm.runtime.tensor(np.ones(shape, "float32"))


def te_mm(n=64):
    """TE: two matrices, their product, and its positive part."""
    A = te.placeholder((n, n), name="A")
    B = te.placeholder((n, n), name="B")
    k = te.reduce_axis((0, n), name="k")
    C = te.compute(
        (n, n), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C"
    )
    D = te.compute((n, n), lambda i, j: te.max(C[i, j], 0.0), name="D")
    return A, B, C, D


def mm(n=64):
    """The same as a module with one TIR function, `main`."""
    A, B, _, D = te_mm(n)
    return tvm.IRModule({"main": te.create_prim_func([A, B, D])})


def mlp():
    """A Relax module: relu(x @ w)."""
    bb = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4, 8), "float32"))
    w = relax.Var("w", relax.TensorType((8, 16), "float32"))
    with bb.function("main", [x, w]):
        with bb.dataflow():
            h = bb.emit(relax.op.matmul(x, w))
            y = bb.emit_output(relax.op.nn.relu(h))
        bb.emit_func_output(y)
    return bb.finalize()


# %%
NAMES = {
    "CpuTimeRunner": CpuTimeRunner,
    "I": I,
    "InProcessBuilder": InProcessBuilder,
    "R": R,
    "T": T,
    "mlp": mlp,
    "mm": mm,
    "nd": nd,
    "np": np,
    "os": os,
    "relax": relax,
    "s_tir": s_tir,
    "te": te,
    "te_mm": te_mm,
    "tirx": tirx,
    "topi": topi,
    "tvm": tvm,
    "tvm_ffi": tvm_ffi,
}
ROWS = read_renames(data("renames.toml"))


# %% cell: look-up
def look_up(text, most=2):
    """Rows whose old name contains the text, with the call and its value."""
    for row in find(ROWS, text)[:most]:
        print(f"{row.old}  ({row.releases or 'a form, not a name'})")
        print(f"    write: {row.new}")
        for line in row.call.splitlines():
            print(f"    {line}")
        print(f"    # {run(row.call, NAMES)!r}")


look_up("asnumpy")
look_up("create_schedule", most=1)

# %% cell: all-rows
problems = []
for row in ROWS:
    # Some calls print; only the result of the trial counts here.
    with contextlib.redirect_stdout(io.StringIO()):
        problems += try_row(row, NAMES)
print(len(ROWS), "rows,", len(problems), "problems")

# %%
assert not problems, "\n".join(problems)
not_run = [row for row in ROWS if row.missing]
kinds = collections.Counter(row.outcome for row in ROWS)
glue("rows", len(ROWS))
glue("not_run", len(not_run), varies=True)
glue("optional", sum(row.needs == "torch" for row in ROWS))
glue("gone", kinds["gone"])
glue("works", kinds["works"])
glue("warns", kinds["warns"])
glue("invented", sum(row.releases == "never" for row in ROWS))


# %% cell: last-seen
def last_release(row):
    return row.releases.partition(" to ")[2]


last = collections.Counter(filter(None, map(last_release, ROWS)))
for release, number in last.most_common(6):
    print(f"{release:12s} {number:4d}")

# %%
REMARKS = {
    "gone": "",
    "AttributeError": "",
    "ModuleNotFoundError": "",
    "works": "still works",
    "works|ImportError": "still works",
}


def coded(new):
    """Code between backticks, if the table has none of its own."""
    if "`" in new or new.partition(":")[0] in ("none", "unchanged"):
        return new
    for joint in (" or ", " / "):
        new = new.replace(joint, f"`{joint}`")
    return f"`{new}`"


def table(area):
    """The rows of an area, for the page."""
    print("Older texts | Releases | Today | Remark")
    for row in ROWS:
        if row.area != area:
            continue
        outcome = REMARKS.get(row.outcome, row.outcome)
        remark = "; ".join(filter(None, (outcome, row.note)))
        releases = "in none" if row.releases == "never" else row.releases
        print(f"`{row.old}` | {releases} | {coded(row.new)} | {remark}")


# %% cell: tensors
table("Tensors and devices")

# %% cell: modules
table("Compiled modules")

# %% cell: ffi
table("The foreign function interface")

# %% cell: errors
table("Errors")

# %% cell: targets
table("Targets")

# %% cell: support
table("Support")

# %% cell: te
table("TE")

# %% cell: te-schedules
table("TE schedules")

# %% cell: tir-schedules
table("TIR schedules")

# %% cell: tvmscript
table("TVMScript")

# %% cell: tir
table("TIR")

# %% cell: ir
table("IR")

# %% cell: relax
table("Relax")

# %% cell: relay
table("Relay")

# %% cell: tuning
table("Tuning")

# %%
assert {row.area for row in ROWS} == {
    "Tensors and devices", "Compiled modules", "Errors", "Targets", "IR",
    "The foreign function interface", "Support", "TE", "TE schedules",
    "TIR schedules", "TVMScript", "TIR", "Relax", "Relay", "Tuning",
}  # fmt: skip

# %% cell: solution-search
for module in (relax.op, relax.op.nn):
    print(module.__name__, [n for n in dir(module) if "add" in n])

# %%
assert not hasattr(relax.op.nn, "bias_add")
