"""
The schedule state from inside
==============================

Srefs and their tree, the facts cached about each block, what makes a block
complete or a reduction, and how one part of an immutable tree is replaced.
"""

# %%
import itertools
import re

import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.s_tir.schedule import DepKind
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, boxes_and_arrows
from tvm_deepdive_helpers.schedules import Workload, refused, root_text

# %% cell: workload


@T.prim_func(s_tir=True)
def stencil(
    X: T.Buffer((34, 34), "float32"),
    Z: T.Buffer((32, 32), "float32"),
):
    Y = T.sblock_alloc_buffer((34, 34), "float32")
    for i, j in T.grid(34, 34):
        with T.sblock("Y"):
            vi, vj = T.axis.remap("SS", [i, j])
            Y[vi, vj] = X[vi, vj] * X[vi, vj]
    for i, j in T.grid(32, 32):
        with T.sblock("Z"):
            vi, vj = T.axis.remap("SS", [i, j])
            Z[vi, vj] = Y[vi, vj] + Y[vi + 2, vj + 2]


def numpy_stencil(x, z):
    y = x * x
    z[:] = y[:32, :32] + y[2:, 2:]


STENCIL = Workload(stencil, numpy_stencil)

# %% cell: walk


def schedulable(stmt):
    """The blocks and loops below a statement, parents first."""
    if isinstance(stmt, s_tir.SBlock | tirx.For):
        yield stmt
    for field in ("block", "body"):
        below = getattr(stmt, field, None)
        if below is not None:
            yield from schedulable(below)
    for part in getattr(stmt, "seq", ()):
        yield from schedulable(part)


def name_of(sref):
    stmt = sref.stmt
    if isinstance(stmt, s_tir.SBlock):
        return stmt.name_hint
    return None if stmt is None else stmt.loop_var.name


def srefs_of(sch):
    """Every sref of the schedule, parents first."""
    return [sch.get_sref(s) for s in schedulable(sch.mod["main"].body)]


sch = STENCIL.schedule()
for sref in srefs_of(sch):
    kind = type(sref.stmt).__name__
    parent = name_of(sref.parent) if sref.parent else None
    print(
        f"{kind:7} {name_of(sref):5} parent: {parent!s:5}",
        f"seq_index: {sref.seq_index}",
    )

# %% check
assert len(srefs_of(sch)) == 7
assert srefs_of(sch)[0].parent is None

# %%
KNOWN = []  # every sref seen so far, with the statement that it had


def draw(sch, title):
    """The sref tree; boxes of the same sref have the same number."""
    boxes, labels, colors, arrows = {}, {}, {}, []
    column = {}
    leaves = 0
    order = srefs_of(sch)
    depth = {}
    for sref in order:
        depth[sref] = depth[sref.parent] + 1 if sref.parent else 0
    parents = {sref.parent for sref in order if sref.parent}
    for sref in order:
        if sref not in parents:
            column[sref] = leaves
            leaves += 1
    for sref in reversed(order):
        if sref in parents:
            below = [column[s] for s in order if s.parent == sref]
            column[sref] = sum(below) / len(below)
    for sref in order:
        old = next((k for k in KNOWN if k[0].same_as(sref)), None)
        if old is None:
            KNOWN.append([sref, sref.stmt])
            color = "vermilion"
        elif old[1].same_as(sref.stmt):
            color = "green"
        else:
            old[1] = sref.stmt
            color = "navy"
        number = next(n for n, k in enumerate(KNOWN) if k[0].same_as(sref))
        key = str(number)
        boxes[key] = (column[sref], depth[sref])
        labels[key] = f"{name_of(sref)}  #{number}"
        colors[key] = color
        if sref.parent:
            up = next(
                n for n, k in enumerate(KNOWN) if k[0].same_as(sref.parent)
            )
            arrows.append((key, str(up)))
    fig, _ = boxes_and_arrows(
        boxes, arrows, labels=labels, colors=colors, width="half"
    )
    dead = [f"#{n}" for n, (sref, _) in enumerate(KNOWN) if sref.stmt is None]
    print("dead:", ", ".join(dead) or "none")
    alt(fig, title)
    return dead


# %% cell: tree-before
sch = STENCIL.schedule()
i, j = sch.get_loops("Z")
dead = draw(sch, "The root block above two branches of two loops and a block")

# %% cell: tree-split
i_out, i_in = sch.split(i, factors=[4, 8])
dead = draw(sch, "The right branch has three loops now")

# %% check
assert dead == ["#4"]

# %% cell: tree-compute-at
sch.compute_at("Y", i_out)
dead = draw(sch, "Below the root one loop, and below it two branches")

# %% check
assert STENCIL.agrees(sch)
assert set(dead) == {"#4", "#1", "#2"}

# %% cell: binding
sch = STENCIL.schedule()
i, j = sch.get_loops("Z")
block = sch.get(sch.get_sblock("Z"))
realize = sch.get(j).body
sch.split(i, factors=[4, 8])
after = sch.get(sch.get_sblock("Z"))
print("the SBlock is the same object:       ", after.same_as(block))
print(
    "the SBlockRealize is the same object:", sch.get(j).body.same_as(realize)
)
print(realize.iter_values[0], "->", sch.get(j).body.iter_values[0])

# %% check
assert after.same_as(block) and not sch.get(j).body.same_as(realize)

# %% cell: flags


def facts(sch):
    """Cached flags of every block, and the dependences between them."""
    root = sch.get_sblock("root")
    scope = sch.state.get_sblock_scope(sch.get_sref(root))
    for block in [root, *sch.get_child_blocks(root)]:
        sref = sch.get_sref(block)
        flags = sch.state._get_cached_flags(sref)._asdict()
        missing = [flag for flag, holds in flags.items() if not holds]
        deps = [
            f"{DepKind(dep.kind).name} -> {dep.dst.stmt.name_hint}"
            for dep in scope.get_deps_by_src(sref)
        ]
        print(
            f"{sref.stmt.name_hint:6} not:",
            ", ".join(missing) or "-",
            "| edges:",
            ", ".join(deps) or "-",
        )


facts(STENCIL.schedule())

# %% cell: flags-false


@T.prim_func(s_tir=True)
def triangle(X: T.Buffer((8, 8), "float32"), Z: T.Buffer((8, 8), "float32")):
    for i in range(8):
        for j in range(i + 1):
            with T.sblock("Z"):
                vi, vj = T.axis.remap("SS", [i, j])
                Z[vi, vj] = X[vi, vj]


@T.prim_func(s_tir=True)
def half(X: T.Buffer((8,), "float32"), Z: T.Buffer((8,), "float32")):
    Y = T.sblock_alloc_buffer((8,), "float32")
    for i in range(4):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = X[vi]
    for i in range(8):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = Y[vi]


@T.prim_func(s_tir=True)
def overwrite(X: T.Buffer((8,), "float32"), Z: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = X[vi]
    for i in range(8):
        with T.sblock("X"):
            vi = T.axis.remap("S", [i])
            X[vi] = T.float32(0)


for func in (triangle, half, overwrite):
    print("---", func.attrs["global_symbol"])
    facts(s_tir.Schedule(func))

# %% cell: stage-pipeline-refused
sch = s_tir.Schedule(overwrite)
with refused("reverse_compute_at", match="not a stage pipeline"):
    sch.reverse_compute_at("X", sch.get_loops("Z")[0])

# %% check


def flags_of(func, name):
    sch = s_tir.Schedule(func)
    return sch.state._get_cached_flags(sch.get_sref(sch.get_sblock(name)))


assert not flags_of(triangle, "Z").affine_binding
assert not flags_of(half, "Z").region_cover
assert not flags_of(half, "root").stage_pipeline
assert not flags_of(overwrite, "root").stage_pipeline

# %% cell: kinds


@T.prim_func(s_tir=True)
def zoo(
    X: T.Buffer((8, 8), "float32"),
    P: T.Buffer((8, 8), "float32"),
    Q: T.Buffer((8,), "float32"),
    R: T.Buffer((8,), "float32"),
    S: T.Buffer((8, 8), "float32"),
):
    for i, j in T.grid(8, 8):
        with T.sblock("element"):
            vi, vj = T.axis.remap("SS", [i, j])
            P[vi, vj] = X[vi, vj] + T.float32(1)
    for i, k in T.grid(8, 8):
        with T.sblock("sum"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                Q[vi] = T.float32(0)
            Q[vi] = Q[vi] + X[vi, vk]
    for i in range(8):
        with T.sblock("first-writer"):
            vi = T.axis.remap("S", [i])
            R[vi] = T.float32(0)
    for i, k in T.grid(8, 8):
        with T.sblock("second-writer"):
            vi, vk = T.axis.remap("SR", [i, k])
            R[vi] = R[vi] + X[vi, vk]
    for i, k in T.grid(8, 8):
        with T.sblock("spread"):
            vi, vk = T.axis.remap("SR", [i, k])
            with T.init():
                S[vi, vk] = T.float32(0)
            S[vi, vk] = S[vi, vk] + X[vi, vk]


def violated(sch, block, method):
    """Number of the condition that a primitive reports, or 'none'."""
    try:
        getattr(sch, method)(block, sch.get_loops(block)[-1])
    except s_tir.ScheduleError as error:
        found = re.search(r"violates condition #(\d)", str(error))
        return found.group(1) if found else "none"
    return "none"


print(f"{'block':15} complete  reduction   (condition that is violated)")
verdicts = {}
for name in ("element", "sum", "first-writer", "second-writer", "spread"):
    verdicts[name] = (
        violated(s_tir.Schedule(zoo), name, "decompose_padding"),
        violated(s_tir.Schedule(zoo), name, "decompose_reduction"),
    )
    print(f"{name:15} {verdicts[name][0]:9} {verdicts[name][1]}")

# %% check
assert verdicts["element"] == ("none", "1")
assert verdicts["sum"] == ("1", "none")
assert verdicts["first-writer"] == ("2", "1")
assert verdicts["second-writer"] == ("1", "1")
assert verdicts["spread"] == ("1", "5")

# %% cell: replace
sch = STENCIL.schedule()
i, j = sch.get_loops("Z")
sref = sch.get_sref(j)
loop = sref.stmt
unrolled = tirx.For(
    loop.loop_var, loop.min, loop.extent, tirx.ForKind.UNROLLED, loop.body
)
sch.state.replace(sref, unrolled)
print("same sref, new loop:", sref.stmt.same_as(unrolled))
print("handle still good:  ", sch.get(j).kind == tirx.ForKind.UNROLLED)
print(
    "block untouched:    ",
    sch.get_sref(sch.get_sblock("Z")).parent.same_as(sref),
)

# %% cell: replace-variable
renamed = tirx.Var("fresh", "int32")
sch.state.replace(
    sref,
    tirx.For(renamed, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body),
)
print("with another loop variable the sref is dead:", sref.stmt)
with expect_error(tvm.error.InternalError, match="undefined variable j"):
    s_tir.analysis.verify_well_formed(sch.mod)

# %% cell: replace-refused
sch = STENCIL.schedule()
i, j = sch.get_loops("Z")
with expect_error(TypeError, match="tgt_stmt has type", max_lines=1):
    sch.state.replace(sch.get_sref(j), tirx.Evaluate(0))

# %% cell: block-reuse


def annotated(block):
    """The same block with one annotation more."""
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        block.body,
        block.init,
        block.alloc_buffers,
        block.match_buffers,
        {**block.annotations, "note": 1},
    )


for reuse in (True, False):
    sch = STENCIL.schedule(debug_mask="none")
    z = sch.get_sblock("Z")
    old = sch.get(z)
    new = annotated(old)
    j = sch.get_loops(z)[1]
    inner = sch.get(j)
    realize = s_tir.SBlockRealize(
        inner.body.iter_values, inner.body.predicate, new
    )
    loop = tirx.For(
        inner.loop_var, inner.min, inner.extent, inner.kind, realize
    )
    sch.state.replace(sch.get_sref(j), loop, {old: new} if reuse else None)
    try:
        print("with a reuse map:   ", dict(sch.get(z).annotations))
    except ValueError as error:
        print("without a reuse map:", error)

# %% cell: copy-on-write


def addresses(sch, root):
    """Where the root block and the module are in memory."""
    return sch.get(root).__chandle__(), sch.mod.__chandle__()


module = tvm.IRModule({"main": stencil})
sch = s_tir.Schedule(module)
root = sch.get_sblock("root")
i, j = sch.get_loops("Z")
log = [("at the start", addresses(sch, root))]
i_out, i_in = sch.split(i, factors=[4, 8])
log.append(("first step: others hold the module", addresses(sch, root)))
j_out, j_in = sch.split(j, factors=[4, 8])
log.append(("second step: nobody else does", addresses(sch, root)))
held = sch.get(root)
sch.parallel(i_out)
log.append(("we hold the root block", addresses(sch, root)))
held = sch.mod
sch.vectorize(j_in)
log.append(("we hold the module", addresses(sch, root)))
rows = []
for (_, before), (step, after) in itertools.pairwise(log):
    moved = tuple(
        "copied" if a != b else "in place"
        for a, b in zip(before, after, strict=True)
    )
    rows.append(moved)
    print(f"{step:35} root: {moved[0]:9} module: {moved[1]}")

# %% check
assert rows == [
    ("copied", "copied"),
    ("in place", "in place"),
    ("copied", "in place"),
    ("copied", "copied"),
]
assert "i_0" not in module.script()

# %% cell: flags-after
sch = STENCIL.schedule()
facts(sch)
sch.compute_at("Y", sch.get_loops("Z")[1])
facts(sch)

# %% check
glue("srefs", len(srefs_of(STENCIL.schedule())))
assert np.isfinite(STENCIL.error(sch))

# %% cell: solution-fuse
sch = STENCIL.schedule()
i, j = sch.get_loops("Z")
before = {name_of(s) + str(n): s for n, s in enumerate(srefs_of(sch))}
sch.fuse(i, j)
print("dead: ", [name for name, sref in before.items() if sref.stmt is None])
now = srefs_of(sch)
print(
    "new:  ",
    [
        name_of(s)
        for s in now
        if not any(s.same_as(old) for old in before.values())
    ],
)
print(
    "alive:",
    [
        name_of(s)
        for s in now
        if any(s.same_as(old) for old in before.values())
    ],
)

# %% check
dead = [name for name, sref in before.items() if sref.stmt is None]
assert dead == ["i4", "j5"]

# %% cell: solution-cover
sch = s_tir.Schedule(half)
with refused("compute_at", match="not a stage pipeline", max_lines=2):
    sch.compute_at("Y", sch.get_loops("Z")[0])
sch = s_tir.Schedule(half, enable_check=False)
sch.compute_at("Y", sch.get_loops("Z")[0])
print(root_text(sch))
