"""
Rules, postprocessors and mutators
==================================

What each of MetaSchedule's rules does to a small function, what completes a
candidate, what changes one, and one of each written in Python.
"""

# %% cell: setup
import re
import textwrap

import tvm
from tvm import s_tir, te
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import show
from tvm_deepdive_helpers.tuning import load_intrinsics, tune

load_intrinsics()
CPU = tvm.target.Target(
    {
        "kind": "llvm",
        "mtriple": "x86_64-linux-gnu",
        "mcpu": "x86-64-v3",
        "num-cores": 4,
    }
)
GPU = tvm.target.Target(
    {
        "kind": "cuda",
        "arch": "sm_70",
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": 49152,
        "thread_warp_size": 32,
    }
)

# %% cell: lists
RULES = {
    "ApplyCustomRule": "call the function that a block's annotation names",
    "InlineConstantScalars": "inline blocks that only hold one constant",
    "AutoInline": "inline element-wise blocks",
    "AddRFactor": "split a long reduction into partial results",
    "MultiLevelTiling": "tile, reorder, cache: the main rule",
    "ParallelizeVectorizeUnroll": "note wishes on the root block",
    "RandomComputeLocation": "draw a place for a block in its consumer",
    "CrossThreadReduction": "reduce with the threads of one GPU block",
    "AutoBind": "bind loops that no other rule has bound",
}
POSTPROCS = {
    "DisallowDynamicLoop": "reject loops of unknown extent",
    "RewriteParallelVectorizeUnroll": "carry out the wishes on the root",
    "RewriteReductionBlock": "move the initialisation out of the nest",
    "RewriteLayout": "lay out constant inputs as the tiles read them",
    "RewriteCooperativeFetch": "spread loads over the threads of a block",
    "RewriteUnboundBlock": "bind what no rule has bound",
    "VerifyGPUCode": "reject what exceeds the limits of the GPU",
}
MUTATORS = {
    "MutateTileSize": "move a factor between the parts of one tile",
    "MutateComputeLocation": "draw another place",
    "MutateUnroll": "draw another unroll limit",
    "MutateParallel": "draw another limit for the parallel loop",
    "MutateThreadBinding": "draw another number of threads",
}


def name_of(part):
    """The class of a rule, without its path and its fields."""
    return str(part).split("(")[0].rpartition(".")[2]


for kind in ("llvm", "cuda"):
    print(f"--- {kind}")
    for part, texts in (
        (ms.ScheduleRule.create(kind), RULES),
        (ms.Postproc.create(kind), POSTPROCS),
    ):
        for item in part:
            print(f"{name_of(item):31s}{texts[name_of(item)]}")
        print()
    for item, chance in ms.Mutator.create(kind).items():
        name = name_of(item)
        print(f"{name:23s}{float(chance):5.2f}   {MUTATORS[name]}")

# %% cell: workloads
te_a = te.placeholder((64, 64), name="A")
te_b = te.placeholder((64, 64), name="B")
te_w = te.placeholder((4, 4096), name="W")
k, r = te.reduce_axis((0, 64), "k"), te.reduce_axis((0, 4096), "r")
plus = te.compute((64, 64), lambda i, j: te_a[i, j] + 1.0, "plus")
twice = te.compute((64, 64), lambda i, j: plus[i, j] * 2.0, "twice")
gemm = te.compute(
    (64, 64), lambda i, j: te.sum(te_a[i, k] * te_b[k, j], axis=k), "gemm"
)
relu = te.compute(
    (64, 64), lambda i, j: tvm.tirx.max(gemm[i, j], 0.0), "relu"
)
rows = te.compute((4,), lambda i: te.sum(te_w[i, r], axis=r), "rows")
WORKLOADS = {
    "element-wise": te.create_prim_func([te_a, twice]),
    "row sums": te.create_prim_func([te_w, rows]),
    "product": te.create_prim_func([te_a, te_b, gemm]),
    "product, relu": te.create_prim_func([te_a, te_b, relu]),
}


def spaces(func, rules, target=CPU, postprocs=()):
    """The design spaces that some rules make of a function."""
    generator = ms.space_generator.PostOrderApply(
        sch_rules=list(rules), postprocs=list(postprocs), mutator_probs={}
    )
    context = ms.TuneContext(
        func, target=target, space_generator=generator, rand_state=1
    )
    return context.generate_design_space()


rules = {name_of(rule): rule for rule in ms.ScheduleRule.create("llvm")}
print(f"{'':27s}" + "".join(f"{name:>14s}" for name in WORKLOADS))
fired = {}
for name, rule in rules.items():
    cells = []
    for label, func in WORKLOADS.items():
        bare = len(spaces(func, [])[0].trace.insts)
        found = spaces(func, [rule])
        steps = max(len(sch.trace.insts) for sch in found) - bare
        fired[name, label] = (len(found), steps)
        cells.append(f"{len(found)} / {steps}" if steps else "-")
    print(f"{name:27s}" + "".join(f"{cell:>14s}" for cell in cells))

# %% check
assert fired["AutoInline", "element-wise"][1] > 0
assert fired["AddRFactor", "row sums"][0] == 3
assert fired["MultiLevelTiling", "row sums"][1] == 0


# %% cell: inline
def steps(sch):
    """The trace as text, without what only looks up blocks and loops."""
    for line in sch.trace.as_python():
        line = re.sub(r", (preserve|disable)_\w+=\w+", "", line)
        if not re.search(r"get_(sblock|loops|consumers|producers)", line):
            print(line)


chain = WORKLOADS["element-wise"]
(inlined,) = spaces(chain, [rules["AutoInline"]])
steps(inlined)
show(inlined.mod["main"], keep=r"twice\[.*\] =")

# %% check
power = te.compute((64, 64), lambda i, j: te.exp(te_a[i, j]), "power")
total = te.compute((64,), lambda i: te.sum(power[i, k], axis=k), "total")
more = te.compute((64, 64), lambda i, j: power[i, j] + 1.0, "more")
blocks = {}
for last in (total, more):
    func = te.create_prim_func([te_a, last])
    (sch,) = spaces(func, [rules["AutoInline"]])
    children = sch.get_child_blocks(sch.get_sblock("root"))
    blocks[last.op.name] = [sch.get(block).name_hint for block in children]
assert blocks == {"total": ["power", "total"], "more": ["more"]}

# %% cell: rfactor
partial = spaces(WORKLOADS["row sums"], [rules["AddRFactor"]])
for sch in partial:
    blocks = [
        sch.get(b).name_hint
        for b in sch.get_child_blocks(sch.get_sblock("root"))
    ]
    factors = [list(map(int, d)) for d in sch.trace.decisions.values()]
    print(blocks, factors)
steps(partial[1])

# %% cell: tiling
for sch in spaces(WORKLOADS["product"], [rules["MultiLevelTiling"]]):
    moves = [
        str(i.kind.name)
        for i in sch.trace.insts
        if i.kind.name in ("CacheWrite", "ReverseComputeAt")
    ]
    print(moves)
tiling = rules["MultiLevelTiling"]
print(tiling.structure, tiling.max_innermost_factor)

# %% cell: structure
groups = [
    ("S", "i_0 j_0"),
    ("S", "i_1 j_1"),
    ("R", "k_0"),
    ("S", "i_2 j_2"),
    ("R", "k_1"),
    ("S", "i_3 j_3"),
]
notes = {
    "parallel": (0.5, 1, ("0", "1"), "one parallel loop"),
    "cache": (
        0.5,
        -1,
        ("0", "1"),
        "write-back of a cache\nat the end of either",
    ),
    "steps": (3.2, 1, ("2", "3", "4"), "steps on a tile"),
    "tile": (5, 1, ("5",), "register tile,\ninner loop is a vector"),
}
fig, _ = boxes_and_arrows(
    {str(n): (n, 0) for n in range(6)}
    | {name: (x, y) for name, (x, y, _, _) in notes.items()},
    [
        (group, name)
        for name, (_, _, parts, _) in notes.items()
        for group in parts
    ],
    labels={
        str(n): f"{kind}\n{loops}" for n, (kind, loops) in enumerate(groups)
    }
    | {name: text for name, (_, _, _, text) in notes.items()},
    colors={
        str(n): "orange" for n, (kind, _) in enumerate(groups) if kind == "R"
    }
    | dict.fromkeys(notes, "green"),
    column=1.3,
    title="The structure SSRSRS of a product, outermost loops on the left",
)

# %% cell: gpu
gpu_rules = {name_of(rule): rule for rule in ms.ScheduleRule.create("cuda")}
(on_gpu,) = spaces(WORKLOADS["product"], [gpu_rules["MultiLevelTiling"]], GPU)
kinds = [str(inst.kind.name) for inst in on_gpu.trace.insts]
text = " ".join(
    f"{kind}:{kinds.count(kind)}" for kind in dict.fromkeys(kinds)
)
print(textwrap.fill(text, 78))
show(on_gpu.mod["main"], keep="thread_binding|sblock_alloc", context=0)

# %% cell: wishes
(wished,) = spaces(
    WORKLOADS["product"], [rules["ParallelizeVectorizeUnroll"]]
)
steps(wished)


# %% cell: location
exp_sum = te.create_prim_func([te_a, total])
(placed,) = spaces(
    exp_sum, [rules["AutoInline"], rules["RandomComputeLocation"]]
)
steps(placed)
show(placed.mod["main"], keep="for |sblock\\(", context=0)

# %% cell: gpu-rules
for label, name in (
    ("row sums", "CrossThreadReduction"),
    ("element-wise", "AutoBind"),
):
    found = spaces(WORKLOADS[label], [gpu_rules[name]], GPU)
    drawn = [
        list(map(int, inst.attrs[0]))
        for inst in found[-1].trace.insts
        if inst.kind.name == "SampleCategorical"
    ]
    print(f"--- {name}: {len(found)} space(s), threads from", drawn[0])
    show(found[-1].mod["main"], keep="for ", context=0)

# %% check
assert len(found) == 1


# %% cell: custom
@tvm.register_global_func("s_tir.meta_schedule.cpu.book.strip")
def strip(sch, block):
    """A space for one kind of block: strips of 8 or 16 columns."""
    variants = []
    for width in (8, 16):
        copy = sch.copy()
        j = copy.get_loops(block)[1]
        _, inner = copy.split(j, [None, width])
        copy.vectorize(inner)
        variants.append(copy)
    return variants


marked = s_tir.Schedule(chain)
marked.annotate(marked.get_sblock("twice"), "schedule_rule", "book.strip")
found = spaces(marked.mod, [rules["ApplyCustomRule"]])
print(len(found), "spaces")
missing = s_tir.Schedule(chain)
missing.annotate(missing.get_sblock("twice"), "schedule_rule", "nobody")
(left,) = spaces(missing.mod, [rules["ApplyCustomRule"]])

# %% check
assert len(found) == 2
assert "schedule_rule" not in left.mod.script()

# %% cell: postprocs
tiled = spaces(WORKLOADS["product"], ms.ScheduleRule.create("llvm"))[-1]
tiles = [2, 2, 4, 4], [2, 2, 1, 16], [16, 4]
trace = tiled.trace
samples = [i for i in trace.insts if i.kind.name == "SamplePerfectTile"]
for inst, decision in zip(samples, tiles, strict=True):
    trace = trace.with_decision(inst, decision, remove_postproc=True)
candidate = s_tir.Schedule(WORKLOADS["product"])
trace.apply_to_schedule(candidate, remove_postproc=True)
candidate.enter_postproc()
for postproc in ms.Postproc.create("llvm"):
    context = ms.TuneContext(
        WORKLOADS["product"],
        target=CPU,
        space_generator=ms.space_generator.PostOrderApply(
            sch_rules=[], postprocs=[postproc], mutator_probs={}
        ),
    )
    before = len(candidate.trace.insts)
    fine = postproc.apply(candidate)
    added = [str(i.kind.name) for i in candidate.trace.insts[before:]]
    print(f"{name_of(postproc)}: {fine}")
    if added:
        print(textwrap.indent(textwrap.fill(" ".join(added), 70), "    "))

# %% cell: postprocessed
show(candidate.mod["main"], keep="for |sblock\\(", context=0)


# %% cell: gpu-postprocs
def complete(func, sch, postproc):
    """Let a postprocessor work on a schedule for the GPU."""
    ms.TuneContext(
        func,
        target=GPU,
        space_generator=ms.space_generator.PostOrderApply(
            sch_rules=[], postprocs=[postproc], mutator_probs={}
        ),
    )
    sch.enter_postproc()
    return postproc.apply(sch)


show(on_gpu.mod["main"], keep="for ax0_ax1_fused|cooperative", context=0)
complete(WORKLOADS["product"], on_gpu, ms.postproc.RewriteCooperativeFetch())
print("--- RewriteCooperativeFetch")
show(on_gpu.mod["main"], keep="for ax0_ax1_fused|cooperative", context=0)
unbound = s_tir.Schedule(chain)
complete(chain, unbound, ms.postproc.RewriteUnboundBlock())
print("--- RewriteUnboundBlock, on a function without any rule")
show(unbound.mod["main"], keep="for ", context=0)

# %% check
assert "cooperative" not in on_gpu.mod.script()

# %% cell: verify
bound = s_tir.Schedule(chain)
i, j = bound.get_loops(bound.get_sblock("plus"))
bound.bind(bound.fuse(i, j), "threadIdx.x")
limits = ms.postproc.VerifyGPUCode()
gpu_context = ms.TuneContext(
    chain,
    target=GPU,
    space_generator=ms.space_generator.PostOrderApply(
        sch_rules=[], postprocs=[limits], mutator_probs={}
    ),
)
print("4096 threads in a block:", limits.apply(bound))

# %% check
assert limits.apply(bound) is False

# %% cell: mutate, varies
mutators = {name_of(m): m for m in ms.Mutator.create("llvm")}
old = {
    i: list(map(int, d)) for i, d in trace.decisions.items() if i in samples
}
for _ in range(4):
    new = mutators["MutateTileSize"].apply(trace)
    for inst, decision in new.decisions.items():
        if inst in old and list(map(int, decision)) != old[inst]:
            print(old[inst], "->", list(map(int, decision)))

# %% check
for _ in range(50):
    new = mutators["MutateTileSize"].apply(trace)
    changed = [
        inst
        for inst in samples
        if list(map(int, new.decisions[inst])) != old[inst]
    ]
    assert len(changed) <= 1


# %% cell: own-rule
@derived_object
class RegisterTile(ms.schedule_rule.PyScheduleRule):
    """Two heights of a register tile for the product, its width drawn."""

    def _initialize_with_tune_context(self, context):
        self.calls = []

    def apply(self, sch, block):
        name = sch.get(block).name_hint
        self.calls.append(name)
        if name != "gemm":
            return [sch]
        variants = []
        for height in (2, 4):
            copy = sch.copy()
            i, j, k = copy.get_loops(block)
            width = copy.sample_perfect_tile(j, 2, max_innermost_factor=32)
            io, ii = copy.split(i, [None, height])
            jo, ji = copy.split(j, width)
            copy.reorder(io, jo, k, ii, ji)
            copy.vectorize(ji)
            copy.unroll(ii)
            variants.append(copy)
        return variants

    def clone(self):
        return RegisterTile()


rule = RegisterTile()
mine = spaces(WORKLOADS["product, relu"], [rule])
print(len(mine), "spaces; asked about", rule.calls)


# %% cell: own-postproc
@derived_object
class WideEnough(ms.postproc.PyPostproc):
    """Reject candidates whose vectors are short."""

    def _initialize_with_tune_context(self, context):
        pass

    def apply(self, sch):
        for block in sch.get_child_blocks(sch.get_sblock("root")):
            last = sch.get(sch.get_loops(block)[-1])
            if last.kind == tvm.tirx.ForKind.VECTORIZED and last.extent < 8:
                return False
        return True

    def clone(self):
        return WideEnough()


def widths(postprocs):
    """Extents of the vectorised loops of 40 candidates."""
    generator = ms.space_generator.PostOrderApply(
        sch_rules=[RegisterTile()], postprocs=postprocs, mutator_probs={}
    )
    context = ms.TuneContext(
        WORKLOADS["product"],
        target=CPU,
        space_generator=generator,
        search_strategy="replay-trace",
        rand_state=1,
        num_threads=1,
    )
    context.pre_tuning(40, 40)
    drawn = context.generate_measure_candidates()
    found = [
        int(next(iter(c.sch.trace.decisions.values()))[-1]) for c in drawn
    ]
    return sorted(set(found))


print("without:", widths([]))
print("with:   ", widths([WideEnough()]))

# %% check
assert min(widths([WideEnough()])) >= 8 > min(widths([]))


# %% cell: postproc-error
@derived_object
class Fragile(ms.postproc.PyPostproc):
    """Raise instead of returning False."""

    def _initialize_with_tune_context(self, context):
        pass

    def apply(self, sch):
        if sch.get_sblock("gemm_global"):  # a ScheduleError without a cache
            raise ValueError("not this one")
        return True

    def clone(self):
        return Fragile()


with expect_error(RuntimeError, match="not this one"):
    tune(
        WORKLOADS["product"],
        trials=4,
        strategy="replay-trace",
        space=ms.space_generator.PostOrderApply(
            sch_rules="llvm", postprocs=[Fragile()], mutator_probs={}
        ),
    )


# %% cell: own-mutator
@derived_object
class NextUnroll(ms.mutator.PyMutator):
    """Take the next unroll limit of the list, in turn."""

    def _initialize_with_tune_context(self, context):
        self.calls = 0

    def apply(self, trace, _):
        self.calls += 1
        for inst, decision in trace.decisions.items():
            if inst.kind.name == "SampleCategorical":
                new = (int(decision) + 1) % len(inst.attrs[0])
                return trace.with_decision(inst, new, remove_postproc=True)
        return None

    def clone(self):
        return NextUnroll()


mutator = NextUnroll()
result = tune(
    WORKLOADS["product"],
    trials=12,
    batch=6,
    population=16,
    space=ms.space_generator.PostOrderApply(
        sch_rules="llvm",
        postprocs="llvm",
        mutator_probs={mutator: 0.5, ms.mutator.MutateTileSize(): 0.5},
    ),
)
print(len(result.trials), "trials; the mutator was asked:", mutator.calls > 0)

# %% check
assert mutator.calls > 0 and all(t.error is None for t in result.trials)

# %% cell: solution-fires
row = te.compute((64,), lambda i: te.sum(te_a[i, k], axis=k), "row")
vector = te.placeholder((64,), name="v")
matvec = te.compute((64,), lambda i: te.sum(te_a[i, k] * vector[k], k), "mv")
own = te.compute(
    (64, 64), lambda i, j: te.sum(te_a[i, k] * te_a[j, k], axis=k), "own"
)
for output, inputs, tiled_too in (
    (row, [te_a], 1),
    (matvec, [te_a, vector], 3),
    (own, [te_a], 1),
):
    func = te.create_prim_func([*inputs, output])
    assert len(spaces(func, [rules["MultiLevelTiling"]])) == tiled_too

# %% cell: solution-order
both = [gpu_rules["MultiLevelTiling"], gpu_rules["AutoInline"]]
blocks = []
for order in (both, both[::-1]):
    (sch,) = spaces(WORKLOADS["product, relu"], order, GPU)
    children = sch.get_child_blocks(sch.get_sblock("root"))
    blocks.append([sch.get(block).name_hint for block in children])
    print(blocks[-1])
assert "relu" not in blocks[0] and blocks[1] == [*blocks[0], "relu"]
