"""
Traces, decisions and sampling
==============================

A schedule records what it does. The record can be printed, changed, replayed
on another function, and it separates steps from the numbers drawn for them.
"""

# %%
import json

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir
from tvm.s_tir.schedule import InstructionKind, Trace
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.ir import cut
from tvm_deepdive_helpers.schedules import (
    SHOWN,
    Workload,
    catalogue_problems,
    refused,
    root_text,
    step,
)

# %% cell: workload


@T.prim_func(s_tir=True)
def product(
    A: T.Buffer((48, 48), "float32"),
    B: T.Buffer((48, 48), "float32"),
    C: T.Buffer((48, 48), "float32"),
):
    for i, j, k in T.grid(48, 48, 48):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


PRODUCT = Workload(product, lambda a, b, c: np.matmul(a, b, out=c))


def program(sch):
    """A schedule with two choices that are left to chance."""
    i, j, k = sch.get_loops("C")
    sch.sample_categorical([8, 16], [0.5, 0.5])  # nobody uses it
    tile = sch.sample_perfect_tile(j, n=2, max_innermost_factor=16)
    j_out, j_in = sch.split(j, factors=tile)
    sch.reorder(i, j_out, k, j_in)
    sch.enter_postproc()
    sch.parallel(i)
    sch.vectorize(j_in)


# %% cell: trace
sch = PRODUCT.schedule()
with step(sch, PRODUCT):
    program(sch)
print(sch.trace)

# %% cell: instructions
for inst in sch.trace.insts:
    decision = sch.trace.get_decision(inst)
    print(
        f"{inst.kind.name:18} in {len(inst.inputs)}",
        f"attrs {len(inst.attrs)} out {len(inst.outputs)}",
        f"pure: {inst.kind.is_pure!s:5}",
        "" if decision is None else f"decision: {decision}",
    )

# %% check
kinds = [inst.kind.name for inst in sch.trace.insts]
assert kinds[:2] == ["GetSBlock", "GetLoops"] and kinds[-1] == "Vectorize"
assert len(sch.trace.decisions) == 2

# %% cell: graph
nodes, edges, colors, made_by = {}, {}, {}, {}
kept = {
    inst.kind.name
    for inst in sch.trace.simplified(remove_postproc=True).insts
}
for number, inst in enumerate(sch.trace.insts):
    nodes[str(number)] = inst.kind.name
    decision = sch.trace.get_decision(inst)
    if decision is not None:
        nodes[str(number)] += f"\n{decision}"
    if inst.kind.name not in kept:
        colors[str(number)] = "vermilion"
    for value in inst.inputs:
        source = made_by.get(value)
        if source is not None:
            edges[source, str(number)] = ""
    for value in inst.outputs:
        made_by[value] = str(number)
fig, _ = layered_graph(nodes, edges, colors=colors)
alt(fig, "The trace as a graph of instructions and the variables between")

# %% cell: simplified
print(sch.trace.simplified(remove_postproc=True))

# %% cell: replay
again = s_tir.Schedule(product)
sch.trace.apply_to_schedule(again, remove_postproc=False)
print("replayed:            ", tvm_ffi.structural_equal(again.mod, sch.mod))

names = {"sch": s_tir.Schedule(product)}
exec("\n".join(sch.trace.as_python()), names)
print(
    "as Python:           ",
    tvm_ffi.structural_equal(names["sch"].mod, sch.mod),
)

fresh = s_tir.Schedule(product)
Trace.apply_json_to_schedule(sch.trace.as_json(), fresh)
print("as JSON:             ", tvm_ffi.structural_equal(fresh.mod, sch.mod))

early = s_tir.Schedule(product)
sch.trace.apply_to_schedule(early, remove_postproc=True)
print("without the last part:", "T.parallel" in early.mod.script())

# %% check
for other in (again, names["sch"], fresh):
    assert tvm_ffi.structural_equal(other.mod, sch.mod)
assert "T.parallel" not in early.mod.script()

# %% cell: json
record = sch.trace.as_json()
print("instructions:", record[0][3])
print("decisions:   ", record[1])
with expect_error(TypeError, match="not JSON serializable"):
    json.dumps(record)

# %% cell: with-decision


def extents(sch):
    return [int(sch.get(loop).extent) for loop in sch.get_loops("C")]


inst = next(i for i in sch.trace.insts if i.kind.name == "SamplePerfectTile")
outcome = {}
for wish in ([12, 4], [6, 6], [1, 7]):
    changed = sch.trace.with_decision(inst, wish, remove_postproc=True)
    other = PRODUCT.schedule()
    changed.apply_to_schedule(other, remove_postproc=True)
    done = list(other.trace.decisions.values())[-1]
    outcome[tuple(wish)] = tuple(int(number) for number in done)
    print(
        f"wish {wish!s:8} -> {list(outcome[tuple(wish)])!s:8}",
        "loops:",
        extents(other),
    )

# %% check
assert outcome == {(12, 4): (12, 4), (6, 6): (8, 6), (1, 7): (1, 48)}

# %% cell: resample
undecided = Trace(sch.trace.insts, {})
drawn = set()
for seed in (1, 2, 3):
    other = s_tir.Schedule(product, seed=seed)
    undecided.apply_to_schedule(other, remove_postproc=True)
    drawn.add(tuple(extents(other)))
    print("seed", seed, "->", extents(other))


def widest(inst, inputs, attrs, decision):
    """Called for every instruction; only samples take an answer."""
    return [3, 16] if inst.kind.name == "SamplePerfectTile" else decision


other = s_tir.Schedule(product)
sch.trace.apply_to_schedule(other, False, decision_provider=widest)
print("provider ->", extents(other))

# %% check
assert extents(other) == [48, 3, 48, 16]
assert len(drawn) > 1

# %% cell: other-size


@T.prim_func(s_tir=True)
def larger(
    A: T.Buffer((60, 60), "float32"),
    B: T.Buffer((60, 60), "float32"),
    C: T.Buffer((60, 60), "float32"),
):
    for i, j, k in T.grid(60, 60, 60):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


LARGER = Workload(larger, lambda a, b, c: np.matmul(a, b, out=c))
other = LARGER.schedule()
changed = sch.trace.with_decision(inst, [6, 8], remove_postproc=True)
changed.apply_to_schedule(other, remove_postproc=True)
print("8 does not divide 60:", extents(other))
print("correct:", LARGER.agrees(other))

# %% check
assert extents(other) == [60, 1, 60, 60] and LARGER.agrees(other)

# %% cell: own-kind
kind = InstructionKind.get("Split")
print(kind.name, "| pure:", kind.is_pure)
with expect_error(AttributeError, match="not registered"):
    InstructionKind.get("Skew")

# %% cell: samples
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
with step(sch, PRODUCT):
    width = sch.sample_categorical([4, 8, 16], [0.2, 0.3, 0.5])
    tile = sch.sample_perfect_tile(i, n=3, max_innermost_factor=8)
    parts = sch.sample_partitioned_tile(
        k, n=3, partition_pos=1, innerpart_factor=6
    )
print("sample_categorical:     ", sch.get(width))
print("sample_perfect_tile:    ", [sch.get(factor) for factor in tile])
print("sample_partitioned_tile:", [sch.get(factor) for factor in parts])

# %% check
assert sch.get(width) in (4, 8, 16)
a, b, c = (sch.get(factor) for factor in tile)
assert a * b * c == 48 and c <= 8
a, b, c = (sch.get(factor) for factor in parts)
assert a * b * c == 48 and b * c % 6 == 0

# %% cell: compute-location


@T.prim_func(s_tir=True)
def chain(
    X: T.Buffer((32, 32), "float32"),
    Z: T.Buffer((32, 32), "float32"),
):
    Y = T.sblock_alloc_buffer((32, 32), "float32")
    for i, j in T.grid(32, 32):
        with T.sblock("Y"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * T.float32(2)
    for i, j in T.grid(32, 32):
        with T.sblock("Z"):
            vi, vj = T.axis.remap("SS", [i, j])
            Z[vi, vj] = Y[vi, vj] + T.float32(1)


CHAIN = Workload(chain, lambda x, z: np.add(2 * x, 1, out=z))
lines = {}
for decision in (-2, -1, 0, 1, 9):
    sch = CHAIN.schedule()
    place = sch.sample_compute_location("Y", decision=decision)
    sch.compute_at("Y", place)
    (used,) = sch.trace.decisions.values()
    lines[decision] = root_text(sch)
    where = "inlined"
    if "Y = " in lines[decision]:
        of_y, of_z = (
            [sch.get_sref(loop) for loop in sch.get_loops(name)]
            for name in "YZ"
        )
        where = f"below {sum(a.same_as(b) for a in of_y for b in of_z)} loops"
    print(
        f"decision {decision:2} -> {used:2}: {where:13}",
        "| correct:",
        CHAIN.agrees(sch),
    )
SHOWN.append("sample_compute_location")

# %% check
assert lines[9] == lines[1] and "Y = " not in lines[-2]

# %% cell: sample-refused
sch = PRODUCT.schedule()
i, j, k = sch.get_loops("C")
with refused("sample_categorical", match="does not match", error=ValueError):
    sch.sample_categorical([4, 8], [1.0])
with refused("sample_perfect_tile", match="Cannot tile", error=ValueError):
    sch.sample_perfect_tile(i, n=1)
with refused(
    "sample_partitioned_tile", match="Cannot tile", error=ValueError
):
    sch.sample_partitioned_tile(i, 1, innerpart_factor=6)
with refused("sample_compute_location", match=""):
    sch.sample_compute_location("root")
plain = s_tir.Schedule._create_non_traced(product)
with expect_error(s_tir.ScheduleError, from_line="Error message:"):
    plain.sample_compute_location(plain.get_sblock("root"))

# %% cell: no-tile
parts = sch.sample_partitioned_tile(k, 2, 1, innerpart_factor=5)
print("5 does not divide 48:", [sch.get(factor) for factor in parts])
with expect_error(
    s_tir.ScheduleError, match="position 0 is -1", from_line="Error message:"
):
    sch.split(k, factors=parts)

# %% check
SHOWN.append("enter_postproc")
assert catalogue_problems("sampling", never_refused=["enter_postproc"]) == []

# %% cell: solution-grid
times = {}
base = s_tir.Schedule(product, seed=1)
program(base)
inst = next(i for i in base.trace.insts if i.kind.name == "SamplePerfectTile")
for inner in range(1, 17):
    if 48 % inner == 0:
        other = s_tir.Schedule(product)
        base.trace.with_decision(
            inst, [48 // inner, inner], remove_postproc=False
        ).apply_to_schedule(other, remove_postproc=False)
        times[inner] = PRODUCT.agrees(other)
print("inner extents, all correct:", list(times), all(times.values()))

# %% check
assert list(times) == [1, 2, 3, 4, 6, 8, 12, 16] and all(times.values())

# %% cell: solution-pop
sch = s_tir.Schedule(product)
(i, j, k) = sch.get_loops("C")
sch.split(i, factors=[6, 8])
sch.parallel(j)
trace = Trace(sch.trace.insts, sch.trace.decisions)
print("removed:", trace.pop().kind.name)
undone = s_tir.Schedule(product)
trace.apply_to_schedule(undone, remove_postproc=False)
print(cut(root_text(undone), lines=1))

# %% check
assert "T.parallel" not in undone.mod.script()
assert isinstance(tvm.IRModule({"main": product}), tvm.IRModule)
