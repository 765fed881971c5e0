"""
From the old TE schedule to today's
===================================

The primitives that ``te.create_schedule`` gave until TVM v0.19, each with the
form that it has today, run and compared with numpy.
"""

# %%
import inspect
import re
import textwrap

import numpy as np
import tvm
from matplotlib.patches import Rectangle
from tvm import s_tir, te
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import COLORS, INK, alt, new, tint
from tvm_deepdive_helpers.ir import cut, script
from tvm_deepdive_helpers.schedules import Workload, changes, root_text

# %% cell: entry
A = te.placeholder((32, 32), name="A")
B = te.placeholder((32, 32), name="B")
k = te.reduce_axis((0, 32), name="k")
P = te.compute((32, 32), lambda i, k: A[i, k] * 2.0, name="P")
C = te.compute(
    (32, 32), lambda i, j: te.sum(P[i, k] * B[k, j], axis=k), name="C"
)
D = te.compute((32, 32), lambda i, j: C[i, j] + 1.0, name="D")

with expect_error(AttributeError, match="create_schedule"):
    te.create_schedule(D.op)
layer = te.create_prim_func([A, B, D])
sch = s_tir.Schedule(layer)
print(
    "blocks:",
    [
        sch.get(block).name_hint
        for block in sch.get_child_blocks(sch.get_sblock("root"))
    ],
)

# %% check
assert not hasattr(tvm, "lower") and hasattr(te, "thread_axis")
LAYER = Workload(layer, lambda a, b, d: np.add(2 * a @ b, 1, out=d))

# %%


def split(sch):
    i, _j, _k = sch.get_loops("C")
    sch.split(i, factors=[None, 8])


def tile(sch):
    i, j, _k = sch.get_loops("C")
    i_out, i_in = sch.split(i, factors=[None, 8])
    j_out, j_in = sch.split(j, factors=[None, 8])
    sch.reorder(i_out, j_out, i_in, j_in)


def fuse(sch):
    i, j, _k = sch.get_loops("C")
    sch.fuse(i, j)


def reorder(sch):
    i, j, k = sch.get_loops("C")
    sch.reorder(i, k, j)


def parallel(sch):
    sch.parallel(sch.get_loops("C")[0])


def vectorize(sch):
    sch.vectorize(sch.get_loops("D")[1])


def unroll(sch):
    _i, j = sch.get_loops("D")
    sch.unroll(sch.split(j, factors=[None, 4])[1])


def bind(sch):
    i, _j = sch.get_loops("D")
    sch.bind(i, "blockIdx.x")


def cache_read(sch):
    copy = sch.cache_read("C", "B", "local")
    sch.compute_at(copy, sch.get_loops("C")[0])


def cache_write(sch):
    sch.cache_write("C", "C", "local")


def compute_at(sch):
    sch.compute_at("C", sch.get_loops("D")[0])


def compute_inline(sch):
    sch.compute_inline("P")


def compute_root(sch):
    # Every block begins at the root. -1 is the place "where it is".
    stay = sch.sample_compute_location("C", decision=-1)
    sch.compute_at("C", stay)


def rfactor(sch):
    _i, _j, k = sch.get_loops("C")
    _k_out, k_in = sch.split(k, factors=[None, 4])
    sch.rfactor(k_in, factor_axis=0)


def set_scope(sch):
    sch.set_scope("C", "C", "local")


def storage_align(sch):
    sch.storage_align("C", 0, axis=0, factor=16, offset=1)


def pragma(sch):
    loop = sch.get_loops("D")[0]
    sch.annotate(loop, "pragma_auto_unroll_max_step", 8)


def double_buffer(sch):
    i, _j = sch.get_loops("D")
    copy = sch.cache_read("D", "C", "local")
    sch.compute_at(copy, i)
    sch.annotate(copy, "double_buffer_scope", 0)
    sch.annotate(i, "software_pipeline_stage", [0, 0])
    sch.annotate(i, "software_pipeline_order", [0, 1])


def tensorize(sch):
    _i, j = sch.get_loops("D")
    inner = sch.split(j, factors=[None, 8])[1]
    sch.tensorize(inner, "te_schedule.add_one")


def prefetch(sch):
    i, _j = sch.get_loops("D")
    copy = sch.cache_read("D", "C", "global")
    sch.compute_at(copy, i)
    sch.annotate(i, "software_pipeline_stage", [0, 1])
    sch.annotate(i, "software_pipeline_order", [0, 1])


def create_group(sch):
    copy = sch.cache_write("D", "D", "local")
    sch.reverse_compute_at(copy, sch.get_loops("D")[0])
    sch.blockize([sch.get_sblock("D"), copy])


def set_store_predicate(sch):
    _i, j = sch.get_loops("D")
    sch.split(j, factors=[None, 5])


# %% check


@T.prim_func(s_tir=True)
def row_description(x: T.handle, y: T.handle):
    X = T.match_buffer(x, (8,), "float32", offset_factor=1)
    Y = T.match_buffer(y, (8,), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads(X[0:8])
        T.writes(Y[0:8])
        for i in range(8):
            with T.sblock("row"):
                vi = T.axis.remap("S", [i])
                Y[vi] = X[vi] + T.float32(1)


@T.prim_func(s_tir=True)
def row_kernel(x: T.handle, y: T.handle):
    X = T.match_buffer(x, (8,), "float32", offset_factor=1)
    Y = T.match_buffer(y, (8,), "float32", offset_factor=1)
    with T.sblock("root"):
        T.reads(X[0:8])
        T.writes(Y[0:8])
        Y[T.ramp(0, 1, 8)] = X[T.ramp(0, 1, 8)] + T.broadcast(T.float32(1), 8)


s_tir.TensorIntrin.register(
    "te_schedule.add_one", row_description, row_kernel
)

# %% cell: table
RECIPES = [
    bind,
    cache_read,
    cache_write,
    compute_at,
    compute_inline,
    compute_root,
    create_group,
    fuse,
    parallel,
    pragma,
    prefetch,
    reorder,
    rfactor,
    set_scope,
    set_store_predicate,
    split,
    storage_align,
    tensorize,
    tile,
    unroll,
    vectorize,
    double_buffer,
]
KEPT = {
    name
    for name in (recipe.__name__ for recipe in RECIPES)
    if hasattr(s_tir.Schedule, name)
}
results = {}
print(f"{'TE schedule':20} {'same name':10} today's steps")
for recipe in RECIPES:
    name = recipe.__name__
    sch = LAYER.schedule(debug_mask="none")
    recipe(sch)
    runnable = sch
    if name == "bind":
        runnable = sch.copy()
        runnable.parallel(runnable.get_loops("D")[0])
    assert LAYER.agrees(runnable), name
    results[name] = sch
    steps = [
        inst.kind.name
        for inst in sch.trace.insts
        if not inst.kind.name.startswith("Get")
    ]
    print(
        f"{name:20} {'yes' if name in KEPT else 'no':10}",
        ", ".join(steps) or "-",
    )
print("rows:", len(RECIPES), "all results equal to numpy's")

# %% check
assert len(RECIPES) == 22
glue("rows", len(RECIPES))
glue("kept", len(KEPT))
glue("gone", len(RECIPES) - len(KEPT))

# %% cell: gone
for recipe in RECIPES:
    if recipe.__name__ not in KEPT:
        print(textwrap.dedent(inspect.getsource(recipe)))

# %% cell: predicate
print(changes(layer, results["set_store_predicate"]))

# %% cell: pipeline


def lowered(sch):
    """Text of the function after the pass that makes pipelines."""
    mod = tvm.transform.Sequential(
        [
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
            s_tir.transform.CompactBufferAllocation(),
            s_tir.transform.InjectSoftwarePipeline(),
            s_tir.transform.LowerOpaqueBlock(),
            s_tir.transform.StmtSimplify(),
        ]
    )(sch.mod)
    return script(mod["main"])


text = lowered(results["prefetch"])
print(cut(text[text.index("    C_global = ") :], lines=12))

# %% cell: pipeline-figure
fig, ax = new("text", 1.9)
ROUNDS = 4
for lane, (what, ahead) in enumerate((("copy", 0), ("compute", 1))):
    for i in range(ROUNDS):
        color = ("navy", "vermilion")[i % 2]
        box = Rectangle((i + ahead, lane), 0.94, 0.8, fc=tint(color, 0.3))
        box.set_edgecolor(COLORS[color])
        ax.add_patch(box)
        ax.text(
            i + ahead + 0.47,
            lane + 0.4,
            f"round {i}",
            ha="center",
            va="center",
        )
    ax.text(-0.1, lane + 0.4, what, ha="right", va="center")
for name, left, right in (
    ("prologue", 0, 1),
    ("loop", 1, ROUNDS),
    ("epilogue", ROUNDS, ROUNDS + 1),
):
    ax.text((left + right) / 2, 2.15, name, ha="center", va="center")
    ax.plot([left + 0.05, right - 0.1], [1.92, 1.92], color=INK, lw=0.8)
ax.set(xlim=(-0.9, ROUNDS + 1.1), ylim=(2.4, -0.1))
ax.axis("off")
alt(fig, "Copies and computations, one round apart, by step of the program.")

# %% cell: versions


def copies(stages, annotated):
    """How many rows the copied buffer has after lowering."""
    sch = LAYER.schedule(debug_mask="none")
    i, _j = sch.get_loops("D")
    copy = sch.cache_read("D", "C", "local")
    sch.compute_at(copy, i)
    if annotated:
        sch.annotate(copy, "double_buffer_scope", 0)
    if stages:
        sch.annotate(i, "software_pipeline_stage", stages)
        sch.annotate(i, "software_pipeline_order", [0, 1])
    assert LAYER.agrees(sch)
    shape = re.search(r"C_local = T.alloc_local\(\((.*?),?\)", lowered(sch))
    return int(np.prod([int(n) for n in shape.group(1).split(",")])) // 32


found = {}
for stages in (None, [0, 0], [0, 1]):
    for annotated in (False, True):
        found[str(stages), annotated] = copies(stages, annotated)
        print(
            f"stages {stages!s:6} double_buffer_scope {annotated!s:5}",
            "-> rows:",
            found[str(stages), annotated],
        )

# %% check
assert found == {
    ("None", False): 1,
    ("None", True): 1,
    ("[0, 0]", False): 1,
    ("[0, 0]", True): 2,
    ("[0, 1]", False): 2,
    ("[0, 1]", True): 2,
}

# %% cell: solution-translate


def translated(sch):
    i, j, k = sch.get_loops("C")
    i_out, i_in = sch.split(i, factors=[None, 8])
    j_out, j_in = sch.split(j, factors=[None, 16])
    sch.reorder(i_out, j_out, k, i_in, j_in)
    sch.compute_inline("P")
    sch.reverse_compute_at("D", j_out)
    sch.vectorize(j_in)
    sch.parallel(i_out)


sch = LAYER.schedule()
translated(sch)
print(cut(root_text(sch), keep="for |sblock", context=0))
print("correct:", LAYER.agrees(sch))

# %% check
assert LAYER.agrees(sch)

# %% cell: solution-stages
rows = {distance: copies([0, distance], False) for distance in (1, 2, 3)}
print("rows by distance of the stages:", rows)

# %% check
assert rows == {1: 2, 2: 3, 3: 4}
