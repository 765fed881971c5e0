"""
Tasks and their search spaces
=============================

What can be tuned, how a function becomes design spaces, how many candidates
they hold, and five ways to shape them.
"""

# %% cell: setup
import itertools
import logging
import math
import tempfile

import tvm
import tvm_ffi
from tvm import relax, s_tir, te
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue, running_example
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.tuning import load_intrinsics

load_intrinsics()
TARGET = tvm.target.Target(
    {
        "kind": "llvm",
        "mtriple": "x86_64-linux-gnu",
        "mcpu": "x86-64-v3",
        "num-cores": 4,
    }
)


# %% cell: tasks
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


a = te.placeholder((128, 96), name="A")
b = te.placeholder((96, 64), name="B")
k = te.reduce_axis((0, 96), name="k")
c = te.compute(
    (128, 64), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C"
)
d = te.compute(
    (128, 64), lambda i, j: tvm.tirx.max(c[i, j], tvm.tirx.const(0.0)), "D"
)
same = te.create_prim_func([a, b, d])
equal = tvm_ffi.structural_equal(dense.body, same.body, map_free_vars=True)
print("the same body from TE:", equal)

# %% cell: names
names = ms.database.MemoryDatabase()
first = ms.TuneContext(dense, target=TARGET)
names.commit_workload(first.mod)
private = dense.without_attr("global_symbol")
for func in (dense, dense.with_attr("global_symbol", "other"), private):
    task = ms.TuneContext(func, target=TARGET)
    (var,) = task.mod.get_global_vars()
    symbol = task.mod[var].attrs["global_symbol"]
    print(f"{var.name_hint} {symbol:6s} {names.has_workload(task.mod)}")

# %% check
whole = ms.TuneContext(tvm.IRModule({"dense": dense}), target=TARGET)
assert [v.name_hint for v in whole.mod.get_global_vars()] == ["dense"]

# %% cell: extract
model = relax.get_pipeline("zero")(running_example.mlp())
for task in ms.relax_integration.extract_tasks(model, TARGET):
    names = [var.name_hint for var in task.mod.get_global_vars()]
    print(f"{task.task_name:24s} weight {task.weight}, function {names}")

# %% check
for var, func in model.functions_items():
    if isinstance(func, tvm.tirx.PrimFunc):
        model.update_func(var, func.with_attr("tirx.is_scheduled", True))
logging.getLogger("tvm.s_tir.meta_schedule").setLevel(logging.ERROR)
with tempfile.TemporaryDirectory() as folder:
    contexts, _ = ms.relax_integration.extracted_tasks_to_tune_contexts(
        ms.relax_integration.extract_tasks(model, TARGET),
        folder,
        num_threads=1,
    )
assert len(contexts) == 2 and all(
    context.mod["main"].attrs["tirx.is_scheduled"] for context in contexts
)


# %% cell: spaces
def context(mod, space="post-order-apply", seed=1):
    """A task without a strategy: enough to look at its space."""
    return ms.TuneContext(
        mod,
        target=TARGET,
        space_generator=space,
        search_strategy="replay-trace",
        rand_state=seed,
        num_threads=1,
    )


task = context(dense)
spaces = task.generate_design_space()
for space in spaces:
    kinds = [inst.kind.name for inst in space.trace.insts]
    moves = [
        inst
        for inst in space.trace.insts
        if inst.kind.name == "ReverseComputeAt"
    ]
    print(len(kinds), "instructions,", len(moves), "ReverseComputeAt")

# %% check
assert len(spaces) == 3

# %% cell: one-space
print("\n".join(spaces[0].trace.simplified(True).as_python()))

# %% cell: by-rule
rules = ms.ScheduleRule.create("llvm")
for number in range(len(rules) + 1):
    generator = ms.space_generator.PostOrderApply(
        sch_rules=rules[:number], postprocs=[], mutator_probs={}
    )
    found = context(dense, generator).generate_design_space()
    added = "" if not number else str(rules[number - 1]).split("(")[0]
    added = added.rpartition(".")[2]
    length = max(len(space.trace.insts) for space in found)
    print(f"+ {added:28s} {len(found)} space(s), {length:2d} instructions")


# %% cell: count
def factorisations(extent, parts, limit):
    """Ordered ways to write `extent` as a product; the last at most limit."""
    if parts == 1:
        return 1 if limit < 0 or extent <= limit else 0
    divisors = (d for d in range(1, extent + 1) if extent % d == 0)
    return sum(
        factorisations(extent // d, parts - 1, limit) for d in divisors
    )


def choices(space):
    """How many values each sampling instruction of a design space has."""
    result = []
    for inst, decision in space.trace.decisions.items():
        if inst.kind.name == "SamplePerfectTile":
            extent = math.prod(int(factor) for factor in decision)
            parts, limit = (int(attr) for attr in inst.attrs)
            number = factorisations(extent, parts, limit)
            result.append((f"tile {extent} in {parts}", number))
        elif inst.kind.name == "SampleCategorical":
            result.append(("unroll", len(inst.attrs[0])))
    return result


for name, number in choices(spaces[0]):
    print(f"{name:15s} {number:5d}")


def size(generated):
    """Candidates in all design spaces together."""
    return sum(
        math.prod(number for _, number in choices(space))
        for space in generated
    )


print("all spaces:", format(size(spaces), ",d"))
glue("size", size(spaces))

# %% check
brute = [
    t
    for t in itertools.product(range(1, 97), repeat=2)
    if math.prod(t) == 96 and t[-1] <= 64
]
assert factorisations(96, 2, 64) == len(brute)
wide = [
    t
    for t in itertools.product([1, 2, 4, 8, 16, 32, 64], repeat=4)
    if math.prod(t) == 64
]
assert factorisations(64, 4, 64) == len(wide)

# %% cell: decisions
steps = choices(spaces[0])
where = {"start": (0, 1)}
where |= {name: (1, row) for row, name in enumerate(("none", "l1", "l2"))}
where |= {str(n): (2 + n, 1) for n in range(len(steps))}
arrows = [("start", name) for name in ("none", "l1", "l2")]
arrows += [(name, "0") for name in ("none", "l1", "l2")]
arrows += [(str(n), str(n + 1)) for n in range(len(steps) - 1)]
fig, _ = boxes_and_arrows(
    where,
    arrows,
    labels={
        "start": "3 design\nspaces",
        "none": "no move",
        "l1": "D at the\n1st S level",
        "l2": "D at the\n2nd S level",
    }
    | {
        str(n): f"{name}\n{number} ways"
        for n, (name, number) in enumerate(steps)
    },
    colors={str(n): "orange" for n in range(len(steps))},
    title="A candidate is a path: a space, then one way at each instruction",
)

# %% cell: sample
task.pre_tuning(200, 200, spaces)
drawn = task.generate_measure_candidates()
distinct = {tvm_ffi.structural_hash(item.sch.mod) for item in drawn}
print(len(drawn), "candidates,", len(distinct), "different functions")
inner = [
    int(list(item.sch.trace.decisions.values())[1][-1]) for item in drawn
]
counts = {factor: inner.count(factor) for factor in sorted(set(inner))}
print("innermost factor of j:", counts)
glue("distinct", len(distinct))

# %% check
assert len(drawn) == 200


# %% cell: shaping
def describe(name, generator):
    """Print how many spaces and candidates a generator makes."""
    generated = context(dense, generator).generate_design_space()
    print(f"{name:20s} {len(generated):2d} {size(generated):12,d}")
    return generated


def without(name):
    """The default rules, except for those whose class has this name."""
    kept = [rule for rule in rules if name not in str(rule)]
    return ms.space_generator.PostOrderApply(
        sch_rules=kept, postprocs="llvm", mutator_probs="llvm"
    )


def retiled(structure, limit=64, reuse=None):
    """The default rules, with other parameters for the tiling."""
    tiling = ms.schedule_rule.MultiLevelTiling(
        structure=structure, max_innermost_factor=limit, reuse_write=reuse
    )
    kept = [
        tiling if "MultiLevelTiling" in str(rule) else rule for rule in rules
    ]
    return ms.space_generator.PostOrderApply(
        sch_rules=kept, postprocs="llvm", mutator_probs="llvm"
    )


print(f"{'':20s} {'spaces':>2s} {'candidates':>8s}")
describe("default", ms.space_generator.PostOrderApply())
describe("no tiling", without("MultiLevelTiling"))
describe("no inlining", without("AutoInline"))
describe("no unroll", without("ParallelizeVectorizeUnroll"))
describe("SSRS, no reuse", retiled("SSRS"))
describe("innermost <= 16", retiled("SSRSRS", limit=16))


# %% cell: schedule-fn
def by_hand(sch):
    """A space of one's own: the width of a register tile, and its height."""
    block = sch.get_sblock("C")
    i, j, k = sch.get_loops(block)
    height = sch.sample_categorical([2, 4, 8], [1 / 3] * 3)
    width = sch.sample_categorical([8, 16, 32], [1 / 3] * 3)
    io, ii = sch.split(i, [None, height])
    jo, ji = sch.split(j, [None, width])
    sch.reorder(io, jo, k, ii, ji)
    sch.vectorize(ji)
    sch.unroll(ii)
    sch.decompose_reduction(block, k)


own = ms.space_generator.ScheduleFn(
    by_hand, sch_rules=[], postprocs=[], mutator_probs={}
)
both = ms.space_generator.SpaceGeneratorUnion(
    [own, ms.space_generator.PostOrderApply()]
)
describe("ScheduleFn", own)
describe("union", both)
only_c = ms.space_generator.PostOrderApply(
    f_block_filter=lambda block: block.name_hint == "C"
)
describe("block filter", only_c)


# %% cell: python-space
@derived_object
class SizedSpace(ms.space_generator.PySpaceGenerator):
    """Another space for small functions than for large ones."""

    def __init__(self):
        super().__init__()
        self.sch_rules, self.postprocs, self.mutator_probs = [], [], {}

    def _initialize_with_tune_context(self, context):
        self.flops = s_tir.analysis.estimate_tir_flops(context.mod)

    def generate_design_space(self, mod):
        sch = s_tir.Schedule(mod)
        if self.flops > 1e5:
            by_hand(sch)
        return [sch]

    def clone(self):
        return SizedSpace()


describe("PySpaceGenerator", SizedSpace())


# %% cell: dynamic
@T.prim_func(s_tir=True)
def dynamic(a: T.handle, B: T.Buffer((64, 64), "float32"), c: T.handle):
    n = T.int32()
    A = T.match_buffer(a, (n, 64), "float32")
    C = T.match_buffer(c, (n, 64), "float32")
    for i, j, k in T.grid(n, 64, 64):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


def candidates(mod, generator="post-order-apply"):
    """Four candidates of a space."""
    task = context(mod, generator)
    generated = task.generate_design_space()
    task.pre_tuning(4, 4, generated)
    return generated, task.generate_measure_candidates()


line = next(
    text
    for text in context(dynamic).generate_design_space()[0].trace.as_python()
    if "sample_perfect_tile" in text
)
print(line)
with expect_error(RuntimeError, match="old_rv != nullptr"):
    candidates(dynamic)

# %% cell: dynamic-own
checked = ms.space_generator.ScheduleFn(
    by_hand, sch_rules=[], postprocs="llvm", mutator_probs={}
)
print(candidates(dynamic, checked)[1], "candidates with postprocessors")
with expect_error(RuntimeError, match="Cannot convert"):
    candidates(dynamic, own)

# %% cell: dynamic-transfer
fixed = tvm.tirx.PrimFunc.specialize(
    dynamic, {dynamic.params[0]: tvm.tirx.decl_buffer((96, 64))}
)
winner = candidates(fixed, own)[1][0].sch.trace
general = s_tir.Schedule(tvm.IRModule({"main": dynamic}))
winner.apply_to_schedule(general, remove_postproc=False)
show(general.mod["main"], keep="for |where")

# %% check
assert any(i.kind.name == "SampleCategorical" for i in winner.insts)

# %% cell: solution-size
longest = context(dense, retiled("SSRSRSS")).generate_design_space()
by_tile = dict(choices(longest[0]))
assert by_tile["tile 64 in 5"] == factorisations(64, 5, 64) == 210
assert size(longest) > size(
    context(dense, retiled("SSRSRS")).generate_design_space()
)

# %% cell: solution-annotated
sch = s_tir.Schedule(dense)
sch.annotate(sch.get_sblock("C"), "schedule_rule", "None")
kept = context(sch.mod).generate_design_space()
assert len(kept) == 1 and not any(
    inst.kind.name == "SamplePerfectTile" for inst in kept[0].trace.insts
)
