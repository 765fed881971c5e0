"""
The Schedule class
==================

What a schedule holds, how one call of it travels from Python to the IR, what
its random variables are, and how it says no.
"""

# %% cell: setup
import traceback
from pathlib import PurePosixPath

import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir
from tvm.s_tir.schedule import ScheduleError
from tvm.s_tir.schedule import _ffi_api as schedule_api
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import alt, layered_graph
from tvm_deepdive_helpers.ir import cut
from tvm_deepdive_helpers.schedules import (
    Workload,
    catalogue_problems,
    changes,
    refused,
    root_text,
)

# %% cell: workload


@T.prim_func(s_tir=True)
def product(
    A: T.Buffer((64, 64), "float32"),
    B: T.Buffer((64, 64), "float32"),
    C: T.Buffer((64, 64), "float32"),
):
    for i, j, k in T.grid(64, 64, 64):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


PRODUCT = Workload(product, lambda a, b, c: np.matmul(a, b, out=c))

# %% cell: three-steps
sch = s_tir.Schedule(product)
block = sch.get_sblock("C")
i, j, k = sch.get_loops(block)
i_out, i_in = sch.split(i, factors=[None, 16])
sch.reorder(i_out, k, i_in, j)
sch.vectorize(j)
print(changes(product, sch))

# %% cell: same-result
args = [tvm.runtime.tensor(array) for array in PRODUCT.arguments]
tvm.compile(sch.mod, target="llvm")(*args)
a, b, c = (arg.numpy() for arg in args)
print("scheduled = numpy:      ", np.allclose(c, a @ b, atol=1e-4))

plain = [tvm.runtime.tensor(array) for array in PRODUCT.arguments]
tvm.compile(product, target="llvm")(*plain)
print("scheduled = unscheduled:", np.allclose(c, plain[2].numpy(), atol=1e-4))
print("the function we started from is unchanged:", "i_0" not in str(product))

# %% check
assert PRODUCT.agrees(sch)
assert np.allclose(c, a @ b, atol=1e-4)
assert np.allclose(c, plain[2].numpy(), atol=1e-4)
assert "i_0" in sch.mod.script() and "i_0" not in product.script()

# %% cell: two-kinds
traced = s_tir.Schedule(product)
concrete = s_tir.Schedule._create_non_traced(product)
for one in (traced, concrete):
    one.parallel(one.get_loops("C")[0])
    print(type(one).__name__, "| trace:", type(one.trace).__name__)
print("same result:", tvm_ffi.structural_equal(traced.mod, concrete.mod))

# %% check
assert concrete.trace is None and len(traced.trace.insts) == 3
assert tvm_ffi.structural_equal(traced.mod, concrete.mod)

# %% cell: ffi-calls


def ffi_calls(action):
    """Names of the C++ functions of the schedule API that an action calls."""
    names, originals = [], {}
    for name, function in list(vars(schedule_api).items()):
        if isinstance(function, tvm_ffi.Function):
            originals[name] = function

            def spy(*args, _name=name, _function=function):
                names.append(_name)
                return _function(*args)

            setattr(schedule_api, name, spy)
    try:
        action()
    finally:
        for name, function in originals.items():
            setattr(schedule_api, name, function)
    return names


sch = s_tir.Schedule(product)
loop = sch.get_loops(sch.get_sblock("C"))[0]
print(ffi_calls(lambda: sch.split(loop, factors=[4, 16])))
print(ffi_calls(lambda: sch.get_loops("C")))

registered = [
    name
    for name in tvm_ffi.registry.list_global_func_names()
    if name.startswith("s_tir.schedule.")
]
methods = [
    name
    for name in registered
    if name.startswith("s_tir.schedule.Schedule")
    and not name.startswith("s_tir.schedule.ScheduleState")
]
glue("schedule_functions", len(registered))
glue("schedule_methods", len(methods))

# %% check
assert ffi_calls(lambda: sch.get_sblock("C")) == ["ScheduleGetSBlock"]
assert ffi_calls(lambda: sch.get_loops("C")) == [
    "ScheduleGetSBlock",
    "ScheduleGetLoops",
]
assert "s_tir.schedule.ScheduleSplit" in methods

# %% cell: cpp-frames


def frames_of(action):
    """Where an error came from: file and function, Python and C++."""
    try:
        action()
    except Exception as error:
        for frame in traceback.extract_tb(error.__traceback__)[2:]:
            function = frame.name.split("(")[0].split(" ")[-1]
            print(f"{PurePosixPath(frame.filename).name:26} {function}")
        return type(error).__name__
    raise AssertionError("the action was meant to fail")


sch = s_tir.Schedule(product)
root = sch.get_sblock("root")
print(frames_of(lambda: sch.add_unit_loop(root)))

# %% cell: path-figure
LAYERS = {
    "wrap": "wrap: check the types of the arguments\n_type_checker.py",
    "py": "Schedule.split\ns_tir/schedule/schedule.py",
    "ffi": "_ffi_api.ScheduleSplit, a global function\nschedule.cc",
    "traced": "TracedScheduleNode::Split\ntraced_schedule.cc",
    "concrete": "ConcreteScheduleNode::Split\nconcrete_schedule.cc",
    "primitive": "s_tir::Split\nprimitive/loop_transformation.cc",
    "replace": "ScheduleStateNode::Replace\nstate.cc",
}
fig, _ = layered_graph(
    LAYERS,
    {
        ("wrap", "py"): "",
        ("py", "ffi"): "LoopRV, factors",
        ("ffi", "traced"): "virtual call",
        ("traced", "concrete"): "LoopRV",
        ("concrete", "primitive"): "StmtSRef, numbers",
        ("primitive", "replace"): "old sref, new loops",
    },
    groups={"Python": ["wrap", "py"], "C++": list(LAYERS)[3:]},
    colors={"wrap": "vermilion", "py": "vermilion", "ffi": "green"},
    width=5.2,
)
alt(
    fig,
    "Seven boxes from top to bottom, from the type check in Python to "
    "ScheduleStateNode::Replace in C++.",
)

# %% cell: random-variables
sch = s_tir.Schedule(product, seed=1)
block = sch.get_sblock("C")
i, j, k = sch.get_loops(block)
again = sch.get_loops(block)[0]
print("variable: ", type(i).__name__, "| object:", type(sch.get(i)).__name__)
print("loop:     ", sch.get(i).loop_var, sch.get(i).extent)
print(
    "two variables, one sref:",
    not i.same_as(again),
    sch.get_sref(i).same_as(sch.get_sref(again)),
)

sizes = sch.sample_perfect_tile(j, n=2, max_innermost_factor=16)
print("sizes:    ", sizes, "=", [sch.get(size) for size in sizes])
print("2 * v + 1:", sch.get(sizes[1] * 2 + 1))
j_out, j_in = sch.split(j, factors=sizes)
print("loops:    ", sch.get(j_out).extent, "x", sch.get(j_in).extent)

# %% check
assert not i.same_as(again)
assert sch.get_sref(i).same_as(sch.get_sref(again))
assert sch.get(sizes[0]) * sch.get(sizes[1]) == 64

# %% cell: dead-variable
with expect_error(ValueError, match="no longer exists"):
    sch.unroll(j)
sch.remove_rv(i)
with expect_error(IndexError, match="Cannot find corresponding LoopRV"):
    sch.get(i)
with expect_error(IndexError, match="Cannot find corresponding LoopRV"):
    s_tir.Schedule(product).unroll(k)

# %% cell: copy
sch = s_tir.Schedule(product, seed=7)
i, j, k = sch.get_loops("C")
twin = sch.copy()
sch.parallel(i)
print("the copy still has a serial loop:", twin.get(i).kind == 0)
print(
    "the same variable, two srefs:",
    not sch.get_sref(i).same_as(twin.get_sref(i)),
)

# %% check
assert "T.parallel" in sch.mod.script()
assert "T.parallel" not in twin.mod.script()
assert tvm_ffi.structural_equal(twin.mod["main"].body, product.body)

# %% cell: seeds


def draws(sch, number=6):
    """Draw numbers from 0 to 9."""
    numbers, chances = list(range(10)), [0.1] * 10
    found = [sch.sample_categorical(numbers, chances) for _ in range(number)]
    return [sch.get(variable) for variable in found]


def seeded(seed=7):
    return s_tir.Schedule(product, seed=seed)


copied, forked = seeded(), seeded()
copied.copy()
fork = forked.fork_seed()
print("seed 7:           ", draws(seeded()))
print("seed 7 once more: ", draws(seeded()))
print("7, after copy():  ", draws(copied))
print("7, after a fork:  ", draws(forked))
print("the forked seed:  ", draws(seeded(fork)))

# %% check
copied = seeded()
assert draws(copied.copy()) == draws(seeded(fork))
assert draws(copied) == draws(seeded(7 * 48271)) != draws(seeded())
assert fork == 7 * 48271 % (2**31 - 1) * 32767 % 1999999973

# %% cell: work-on


@T.prim_func(s_tir=True)
def chain(
    X: T.Buffer((64,), "float32"),
    Z: T.Buffer((64,), "float32"),
):
    Y = T.sblock_alloc_buffer((64,), "float32")
    for i in range(64):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = X[vi] * T.float32(2)
    for i in range(64):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = Y[vi] + T.float32(1)


two = s_tir.Schedule(tvm.IRModule({"f": product, "g": chain}))
with expect_error(ValueError, match="does not know which function"):
    two.get_sblock("Y")
two.work_on("g")
print("working on:", two.func_working_on.name_hint)
print("found:", two.get(two.get_sblock("Y")).name_hint)

alone = s_tir.Schedule(tvm.IRModule({"f": chain}))
print("one function that is not called main:", alone.func_working_on)

marked = chain.with_attr("tirx.is_entry_func", True)
entry = s_tir.Schedule(tvm.IRModule({"f": marked, "g": product}))
print("an entry function:", entry.func_working_on.name_hint)

# %% check
assert two.get(two.get_sblock("C", func_name="f")).name_hint == "C"
assert entry.func_working_on.name_hint == "f"
assert alone.func_working_on is None

# %% cell: lookup
sch = s_tir.Schedule(chain)


def names(blocks):
    return [sch.get(block).name_hint for block in blocks]


root = sch.get_sblock("root")
print("children of root: ", names(sch.get_child_blocks(root)))
print("producers of Z:   ", names(sch.get_producers("Z")))
print("consumers of Y:   ", names(sch.get_consumers("Y")))
print("outputs of root:  ", names(sch.get_output_blocks("root")))
print("loops of root:    ", sch.get_loops("root"))
print(sch.trace)

# %% cell: lookup-refused
with refused("get_sblock", match="Cannot find a block"):
    sch.get_sblock("W")


@T.prim_func(s_tir=True)
def same_name(A: T.Buffer((4,), "float32"), B: T.Buffer((4,), "float32")):
    for i in range(4):
        with T.sblock("zero"):
            vi = T.axis.remap("S", [i])
            A[vi] = T.float32(0)
    for i in range(4):
        with T.sblock("zero"):
            vi = T.axis.remap("S", [i])
            B[vi] = T.float32(0)


with refused("get_sblock", match="Found  2 blocks"):
    s_tir.Schedule(same_name).get_sblock("zero")
with refused("get_producers", match="root block"):
    sch.get_producers("root")

# %% check
assert names(sch.get_producers("Z")) == ["Y"]
assert names(sch.get_consumers("Y")) == ["Z"]
assert names(sch.get_output_blocks("root")) == ["Z"]
assert sch.get_loops("root") == []
assert catalogue_problems() == []

# %% cell: detail
sch = s_tir.Schedule(product)
i, j, k = sch.get_loops("C")
before = sch.mod
with expect_error(ScheduleError, match="not a data parallel", max_lines=60):
    sch.parallel(k)
print("the module is untouched:", sch.mod.same_as(before))

# %% check
assert sch.mod.same_as(before)

# %% cell: levels
for level in ("fast", "none"):
    quiet = s_tir.Schedule(product, error_render_level=level)
    with expect_error(ScheduleError):
        quiet.parallel(quiet.get_loops("C")[2])

# %% cell: types
sch = s_tir.Schedule(product)
i, j, k = sch.get_loops("C")
with expect_error(TypeError, match="factors"):
    sch.split(i, factors=[2.5, None])
with expect_error(TypeError, match="LoopRV"):
    sch.split("i", factors=[2, None])
with expect_error(ValueError, match="seed must be"):
    s_tir.Schedule(product, seed=0)
sch.split(i, factors=(4, sch.sample_categorical([16], [1.0])))

# %% cell: mirror


@T.prim_func(s_tir=True)
def mirror(
    X: T.Buffer((8,), "float32"),
    Z: T.Buffer((8,), "float32"),
):
    Y = T.sblock_alloc_buffer((8,), "float32")
    for i in range(8):
        with T.sblock("Y"):
            vi = T.axis.remap("S", [i])
            Y[vi] = X[vi] * T.float32(2)
    for i in range(8):
        with T.sblock("Z"):
            vi = T.axis.remap("S", [i])
            Z[vi] = Y[7 - vi]


def numpy_mirror(x, z):
    z[:] = 2 * x[::-1]


MIRROR = Workload(mirror, numpy_mirror)

# %% cell: debug-mask
silent = s_tir.Schedule(mirror)  # debug_mask="none"
silent.merge(silent.get_loops("Y")[0], silent.get_loops("Z")[0])
print(changes(mirror, silent, context=3))
correct = MIRROR.agrees(silent)
print("correct:", correct)

checked = s_tir.Schedule(mirror, debug_mask="all")
with expect_error(
    tvm.error.InternalError,
    match="Wrong region_cover",
    from_line="The errors are",
):
    checked.merge(checked.get_loops("Y")[0], checked.get_loops("Z")[0])
print("module is changed:", "i_m" in checked.mod.script())
print("in the trace:", [inst.kind.name for inst in checked.trace.insts])

# %% check
assert not correct
assert "i_m" in checked.mod.script()
assert all(inst.kind.name != "Merge" for inst in checked.trace.insts)
assert MIRROR.agrees(mirror)

# %% cell: enable-check


def split_init(**options):
    """Set C to zero in a nest of its own, under the same loop i."""
    sch = s_tir.Schedule(product, **options)
    i, j, _ = sch.get_loops("C")
    sch.decompose_reduction("C", j)
    return sch, i


sch, i = split_init()
with refused("parallel", match="compact dataflow", max_lines=8):
    sch.parallel(i)

sch, i = split_init(enable_check=False)
sch.parallel(i)
print(cut(root_text(sch), lines=9))
print("correct:", PRODUCT.agrees(sch))

# %% check
assert PRODUCT.agrees(sch)

# %% cell: solution-tile


def tile(sch, block, rows, columns):
    """Cut the first two loops of a block into tiles; return the new loops."""
    i, j, *_ = sch.get_loops(block)
    i_out, i_in = sch.split(i, factors=[None, rows])
    j_out, j_in = sch.split(j, factors=[None, columns])
    sch.reorder(i_out, j_out, i_in, j_in)
    return i_out, j_out, i_in, j_in


sch = s_tir.Schedule(product)
loops = tile(sch, "C", 16, 32)
print("tiles:", [int(sch.get(loop).extent) for loop in loops])
every = [str(sch.get(loop).loop_var) for loop in sch.get_loops("C")]
print("all loops:", every)
print("correct:", PRODUCT.agrees(sch))

# %% check
assert [int(sch.get(loop).extent) for loop in loops] == [4, 2, 16, 32]
assert PRODUCT.agrees(sch)

# %% cell: solution-order
sch = s_tir.Schedule(product)
i, j, k = sch.get_loops("C")
fused = sch.fuse(i, j)
for name, variable in (("i", i), ("j", j), ("k", k), ("fused", fused)):
    sref = None
    try:
        sref = sch.get_sref(variable)
    except ValueError as error:
        print(f"{name}: {error}")
    if sref is not None:
        print(f"{name}: {sref.stmt.loop_var}, {sref.stmt.extent} rounds")

# %% check
with expect_error(ValueError, match="no longer exists", show=False):
    sch.get(j)
assert int(sch.get(fused).extent) == 64 * 64 and int(sch.get(k).extent) == 64
