"""
Schedules for the explorer
==========================

The traces of two schedules are replayed one instruction at a time, with the
module before and after each.
"""

# %% cell: setup
import tvm
from tvm import s_tir
from tvm.s_tir import meta_schedule as ms
from tvm.script import tirx as T

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.explorer import dumps, pack, summary, unpack
from tvm_deepdive_helpers.ir import script
from tvm_deepdive_helpers.record_steps import trace_steps
from tvm_deepdive_helpers.tuning import load_intrinsics

# %% cell: ladder
N, ROWS, COLUMNS, LANES, BLOCK = 1024, 8, 32, 16, 128


@T.prim_func(s_tir=True)
def gemm(
    A: T.Buffer((N, N), "float32"),
    B: T.Buffer((N, N), "float32"),
    C: T.Buffer((N, N), "float32"),
):
    T.func_attr({"tirx.noalias": True})
    for i, j, k in T.grid(N, N, N):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


ladder = s_tir.Schedule(gemm)
i, j, k = ladder.get_loops("C")
ladder.reorder(i, k, j)
i_out, i_in = ladder.split(i, [None, ROWS])
j_out, j_in = ladder.split(j, [None, COLUMNS])
ladder.reorder(i_out, j_out, k, i_in, j_in)
vectors, lane = ladder.split(j_in, [None, LANES])
ladder.vectorize(lane)
ladder.unroll(i_in)
ladder.unroll(vectors)
copy_out = ladder.cache_write("C", 0, "global")
ladder.reverse_compute_at(copy_out, j_out)
rows, columns = ladder.get_loops(copy_out)[-2:]
vectors, lane = ladder.split(columns, [None, LANES])
ladder.vectorize(lane)
ladder.unroll(rows)
ladder.unroll(vectors)
ladder.decompose_reduction("C", k)
panels = ladder.cache_read("C_update", "B", "global")
ladder.transform_layout(
    "C_update",
    "B_global",
    lambda k, j: (j // COLUMNS, k, j % COLUMNS),
)
row, column = ladder.get_loops(panels)
panel, lane = ladder.split(column, [None, COLUMNS])
ladder.reorder(panel, row, lane)
ladder.vectorize(lane)
blocks, i_mid = ladder.split(i_out, [None, BLOCK // ROWS])
ladder.reorder(blocks, j_out, i_mid)

# %% cell: tuned


@T.prim_func(s_tir=True)
def dense(
    A: T.Buffer((128, 96), "float32"),
    B: T.Buffer((96, 64), "float32"),
    D: T.Buffer((128, 64), "float32"),
):
    C = T.sblock_alloc_buffer((128, 64))
    for i, j, k in T.grid(128, 64, 96):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
    for i, j in T.grid(128, 64):
        with T.sblock("D"):
            vi, vj = T.axis.remap("SS", [i, j])
            D[vi, vj] = T.max(C[vi, vj], T.float32(0))


# %% cell: designs
load_intrinsics()
context = ms.TuneContext(
    dense,
    target=tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": "x86_64-linux-gnu",
            "mcpu": "x86-64-v3",
            "num-cores": 4,
        }
    ),
    space_generator="post-order-apply",
    search_strategy="replay-trace",
    rand_state=1,
    num_threads=1,
)
designs = context.generate_design_space()
tuned = designs[1]
tuned.enter_postproc()
for postproc in context.space_generator.postprocs:
    assert postproc.apply(tuned)
print("designs:", len(designs))
print("instructions of the second:", len(tuned.trace.insts))
print("decisions:", len(tuned.trace.decisions))

# %% cell: replay
packed = {}
SCHEDULES = ("ladder", gemm, ladder), ("tuned", context.mod, tuned)
for key, func, sch in SCHEDULES:
    steps = trace_steps(func, sch.trace)
    packed[key] = pack(key, steps, kind="trace")
    texts = unpack(packed[key])
    assert texts == [(step.before, step.after) for step in steps]
    assert texts[-1][1] == script(sch.mod)
    changing = sum("d" in step for step in packed[key]["steps"])
    print(f"{key:7s} {len(steps)} instructions, {changing} change the text")

# %%
for key, data in packed.items():
    glue(key, dumps(data), varies=True)
    glue(f"{key}_steps", len(data["steps"]))
    glue(f"{key}_changing", sum("d" in step for step in data["steps"]))
glue("kb", sum(len(dumps(d)) for d in packed.values()) / 1e3, varies=True)

# %% cell: changing
print(summary(packed["ladder"]))

# %% cell: solution-idle
idle, renamed = {}, []
for key, data in packed.items():
    for number, step in enumerate(data["steps"], start=1):
        if "c" not in step and "d" not in step:
            idle.setdefault(step["n"], []).append(key)
        elif "c" not in step:
            renamed.append(f"{key} {number} {step['n']}")
for name in sorted(idle):
    count = {key: idle[name].count(key) for key in packed}
    print(f"{name:18s} {count}")
print("only names change:", *renamed)

# %% check
assert {"GetSBlock", "GetLoops", "SamplePerfectTile"} <= set(idle)
assert all(not name.startswith(("Split", "Reorder")) for name in idle)

# %% cell: solution-decisions
for number, step in enumerate(packed["tuned"]["steps"], start=1):
    if "v" in step:
        users = [
            later["n"]
            for later in packed["tuned"]["steps"][number:]
            if step["s"].split(" =")[0].split(",")[0] in later["s"]
        ]
        print(f"{number:2d} {step['n']:18s} {step['v']:16s} used by {users}")
