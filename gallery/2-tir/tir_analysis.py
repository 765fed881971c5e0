"""
Analysis and verification of TIR
================================

Well-formedness, regions, dependences, memory and limits of a GPU, bounds,
estimates, and the arithmetic analyzer that a schedule asks.
"""

# %% cell: setup
import re

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, s_tir, sym, tirx
from tvm.script import tirx as T
from tvm_ffi.access_path import AccessPath

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import boxes_and_arrows
from tvm_deepdive_helpers.ir import cut, show
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import quiet
from tvm_deepdive_helpers.passes import tir_stages

CUDA = {"kind": "cuda", "arch": "sm_80"}
well_formed = s_tir.analysis.verify_well_formed


# %% cell: who-checks
fig, _ = boxes_and_arrows(
    {
        "decorator": (0, 0),
        "schedule": (0, 1),
        "pipeline": (0, 2),
        "code": (0, 3),
        "call": (0, 4),
        "wf": (1, 0),
        "pre": (1, 1),
        "vm": (1, 2),
        "cg": (1, 3),
        "asserts": (1, 4),
    },
    [
        ("decorator", "schedule"),
        ("schedule", "pipeline"),
        ("pipeline", "code"),
        ("code", "call"),
        ("decorator", "wf"),
        ("schedule", "pre"),
        ("pipeline", "vm"),
        ("code", "cg"),
        ("call", "asserts"),
    ],
    labels={
        "decorator": "@T.prim_func",
        "schedule": "s_tir.Schedule",
        "pipeline": "TIR pipeline",
        "code": "code generator",
        "call": "call",
        "wf": "definitions, block boundaries:\nverify_well_formed",
        "pre": "preconditions of each primitive:\ndependences, bindings",
        "vm": "VerifyMemory, VerifyVTCMLimit,\nassumptions of single passes",
        "cg": "nodes that it does not know",
        "asserts": "types, shapes, strides:\nassertions of MakePackedAPI",
    },
    colors=dict.fromkeys(("wf", "pre", "vm", "cg", "asserts"), "green"),
    title="What is checked between the decorator and the call",
)

# %% cell: ill-formed
i, j = (tirx.Var(name, "int32") for name in "ij")
A, B = (tirx.decl_buffer((8,), "float32", name) for name in "AB")


def store(buffer, index):
    return tirx.BufferStore(buffer, tirx.FloatImm("float32", 1), [index])


def loop(var, body):
    return tirx.For(var, 0, 8, tirx.ForKind.SERIAL, body)


def func(*statements):
    return tirx.PrimFunc([A], tirx.stmt_seq(*statements))


CASES = {
    "correct": func(loop(i, store(A, i))),
    "no definition": func(loop(i, store(A, j))),
    "after its loop": func(loop(i, store(A, i)), store(A, i)),
    "one variable twice": func(loop(i, store(A, i)), loop(i, store(A, i))),
    "unknown buffer": func(loop(i, store(B, i))),
}


def undefined(case):
    try:
        free = tirx.analysis.undefined_vars(case.body, list(case.params))
        return [var.name for var in free]
    except tvm.error.InternalError:
        return "error"


print(f"{'':19s} well formed  SSA    undefined_vars")
for name, case in CASES.items():
    verdicts = well_formed(case, False), tirx.analysis.verify_ssa(case)
    print(
        f"{name:19s} {verdicts[0]!s:12s} {verdicts[1]!s:6s} {undefined(case)}"
    )

# %% check
assert [well_formed(c, False) for c in CASES.values()] == [True] + [False] * 4
assert undefined(CASES["after its loop"]) == []

# %% cell: messages
with expect_error(tvm.error.InternalError, match="no longer in-scope"):
    well_formed(CASES["after its loop"])
with expect_error(tvm.error.InternalError, match="undefined variable") as bad:
    well_formed(CASES["no definition"])

# %% cell: underline


def path_of(message):
    """The access path in the text of an error, as an object."""
    path = AccessPath.root()
    steps = re.search(r"<root>([\w.\[\]]*\w\]?)", message)[1]
    for field, item in re.findall(r"\.(\w+)|\[(\d+)\]", steps):
        path = path.attr(field) if field else path.array_item(int(item))
    return path


path = path_of(str(bad.exception))
print(path)
text = CASES["no definition"].script(path_to_underline=[path])
print(cut(text, start=r"    for i"))

# %% cell: crash


def nested_twice():
    from tvm import error, s_tir, tirx

    i = tirx.Var("i", "int32")
    A = tirx.decl_buffer((8,), "float32", "A")
    body = tirx.BufferStore(A, tirx.FloatImm("float32", 1), [i])
    for _ in range(2):
        body = tirx.For(i, 0, 8, tirx.ForKind.SERIAL, body)
    func = tirx.PrimFunc([A], body)
    try:
        s_tir.analysis.verify_well_formed(func, assert_mode=False)
    except error.InternalError:
        print("s_tir: InternalError", flush=True)
    tirx.analysis.verify_well_formed(func, assert_mode=False)


ended = run_isolated(nested_twice)
print(ended.stdout, end="")
print("tirx: ", ended.describe())

# %% check
assert ended.signal == "SIGSEGV"
assert "InternalError" in ended.stdout

# %% cell: boundaries


@T.prim_func(s_tir=True)
def scale(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("B"):
            v = T.axis.spatial(8, i)
            B[v] = A[v] * T.float32(2)


outer = scale.body.block.body.loop_var
leaky = tvm_ffi.structural_map(
    scale,
    (
        tirx.BufferStore,
        lambda s: tirx.BufferStore(s.buffer, s.value, [outer]),
    ),
)
with expect_error(tvm.error.InternalError, match="outside of any block"):
    s_tir.analysis.verify_well_formed(leaky)
with expect_error(tvm.error.InternalError, show=False):
    s_tir.Schedule(leaky)
with expect_error(tvm.error.InternalError, match="does not support"):
    tirx.analysis.verify_well_formed(scale)

# %% cell: watch


@tvm.ir.instrument.pass_instrument
class WellFormed:
    """Check every module that a pass returns."""

    def run_after_pass(self, mod, info):
        if not well_formed(mod, assert_mode=False):
            print(f"{info.name} returned an ill-formed module")


@tirx.transform.prim_func_pass(opt_level=0, name="deepdive.RenameLoops")
def rename_loops(func, mod, ctx):
    def on_loop(node):
        fresh = tirx.Var(node.loop_var.name + "_new", node.loop_var.ty)
        return tirx.For(
            fresh, node.min, node.extent, node.kind, node.body
        )  # the body still has the old variable

    return tvm_ffi.structural_map(func, (tirx.For, on_loop))


with tvm.transform.PassContext(instruments=[WellFormed()]):
    tirx.build(scale, target="llvm")
    print("default pipeline: nothing to report")
    rename_loops(tvm.IRModule({"main": scale}))

# %% cell: regions


@T.prim_func(s_tir=True)
def window(X: T.Buffer((10,), "float32"), Z: T.Buffer((8,), "float32")):
    Y = T.sblock_alloc_buffer((10,), "float32")
    for i in range(10):
        with T.sblock("Y"):
            v = T.axis.spatial(10, i)
            Y[v] = X[v] * T.float32(2)
    for i in range(8):
        with T.sblock("Z"):
            v = T.axis.spatial(8, i)
            Z[v] = Y[v] + Y[v + 1] + Y[v + 2]


def buffers(func):
    """All buffers of a function, each as a key for itself."""
    found = {p: p for p in func.params}
    tvm_ffi.structural_walk(
        func.body,
        (
            s_tir.SBlock,
            lambda b: found.update({x: x for x in b.alloc_buffers}),
        ),
    )
    return found


def block(func, name):
    sch = s_tir.Schedule(func)
    return sch.get(sch.get_sblock(name))


reads, writes = s_tir.analysis.get_sblock_read_write_region(
    block(window, "Z"), buffers(window)
)
print("reads", *reads, " writes", *writes)
print(
    "with an empty map:",
    s_tir.analysis.get_sblock_read_write_region(block(window, "Z"), {}),
)

# %% cell: opaque


@T.prim_func(s_tir=True)
def foreign(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
    for i in range(4):
        with T.sblock("call"):
            v = T.axis.spatial(4, i)
            T.reads(A[v * 4 : v * 4 + 4])
            T.writes(B[v * 4 : v * 4 + 4])
            T.evaluate(T.call_extern("int32", "f", A.data, B.data, v))


kinds = s_tir.analysis.get_sblock_access_region(
    block(foreign, "call"), buffers(foreign)
)
for kind, regions in zip(("reads", "writes", "opaque"), kinds, strict=True):
    print(f"{kind:7s}", *regions)

# %% cell: false-region


@T.prim_func(s_tir=True)
def false_window(X: T.Buffer((10,), "float32"), Z: T.Buffer((8,), "float32")):
    Y = T.sblock_alloc_buffer((10,), "float32")
    for i in range(10):
        with T.sblock("Y"):
            v = T.axis.spatial(10, i)
            Y[v] = X[v] * T.float32(2)
    for i in range(8):
        with T.sblock("Z"):
            v = T.axis.spatial(8, i)
            T.reads(Y[v])  # not true
            T.writes(Z[v])
            Z[v] = Y[v] + Y[v + 1] + Y[v + 2]


x = np.arange(10, dtype="float32")
expected = 2 * (x[:-2] + x[1:-1] + x[2:])
right = {}
for function in (window, false_window):
    sch = s_tir.Schedule(function, debug_mask="all")
    sch.compute_at("Y", sch.get_loops("Z")[0])
    z = tvm.runtime.tensor(np.zeros(8, "float32"))
    tvm.compile(sch.mod, target="llvm")(tvm.runtime.tensor(x), z)
    name = function.attrs["global_symbol"]
    right[name] = np.array_equal(z.numpy(), expected)
    print(
        f"{name:13s} well formed: {well_formed(function, False)},"
        f" right after compute_at: {right[name]}"
    )

# %% check
assert right == {"window": True, "false_window": False}

# %% cell: lca
where = s_tir.analysis.detect_buffer_access_lca(window)
for buffer, statement in sorted(where.items(), key=lambda kv: kv[0].name):
    print(buffer.name, "->", statement.name_hint)

# %% cell: dependences
sch = s_tir.Schedule(window)
scope = sch.state.get_sblock_scope(sch.get_sref(sch.get_sblock("root")))
for name in ("Y", "Z"):
    for dep in scope.get_deps_by_src(sch.get_sref(sch.get_sblock(name))):
        kind = s_tir.schedule.DepKind(dep.kind).name
        print(f"{dep.src.stmt.name_hint} -> {dep.dst.stmt.name_hint}: {kind}")

# %% cell: verify-memory


@T.prim_func(s_tir=True)
def unbound(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
    for i in range(64):
        with T.sblock("B"):
            v = T.axis.spatial(64, i)
            B[v] = A[v] + T.float32(1)


verify_memory = tirx.transform.VerifyMemory()
stages = {s.name: s for s in tir_stages(unbound, CUDA)}
with expect_error(RuntimeError, match="Did you forget to bind", max_lines=3):
    verify_memory(stages["s_tir.LowerOpaqueBlock"].after)
verify_memory(stages["tirx.FlattenBuffer"].after)
print("after FlattenBuffer: no complaint")
show(stages["tirx.FlattenBuffer"].after["unbound"], keep="A_1", context=0)

# %% cell: host-code
target = tvm.target.Target(CUDA, host="llvm")
bound = s_tir.Schedule(unbound)
bound.bind(bound.get_loops("B")[0], "threadIdx.x")
for name, function in (("unbound", unbound), ("bound", bound.mod)):
    library = tvm.compile(function, target=target).mod
    kinds = [module.kind for module in library.imports]
    print(f"{name:8s} device modules: {kinds}")

# %% check
assert (
    tirx.analysis.verify_memory(unbound.with_attr("target", target)) is False
)
assert tvm.compile(unbound, target=target).mod.imports == []

# %% cell: gpu-limits


@T.prim_func(s_tir=True)
def crowd(A: T.Buffer((4096,), "float32")):
    for b in T.thread_binding(2, thread="blockIdx.x"):
        for t in T.thread_binding(2048, thread="threadIdx.x"):
            with T.sblock("A"):
                v = T.axis.spatial(4096, b * 2048 + t)
                A[v] = T.float32(0)


lowered = {s.name: s for s in tir_stages(crowd, CUDA)}[
    "s_tir.LowerOpaqueBlock"
]
verify = s_tir.analysis.verify_gpu_code
limit = {"max_threads_per_block": 1024}
print("lowered:    ", verify(lowered.after["crowd"], limit))
print("with blocks:", verify(lowered.before["crowd"], limit))
with expect_error(tvm.error.InternalError, match="Invalid check item"):
    verify(lowered.after["crowd"], {"max_threads": 1024})

# %% cell: bounds


@T.prim_func(s_tir=True)
def beyond(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("B"):
            v = T.axis.spatial(8, i)
            B[v] = A[v + 4]


check = s_tir.analysis.OOBChecker()
with quiet(), expect_error(s_tir.ScheduleError, keep="Error message"):
    check(tvm.IRModule({"main": beyond}))
print("well formed:", well_formed(beyond, False))

# %% cell: estimates


@T.prim_func(s_tir=True)
def product(
    A: T.Buffer((32, 32), "float32"),
    B: T.Buffer((32, 32), "float32"),
    C: T.Buffer((32, 32), "float32"),
):
    for i, j, k in T.grid(32, 32, 32):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


mod = tvm.IRModule({"main": product})
flops = s_tir.analysis.estimate_tir_flops(mod)
print("operations:  ", flops, "by hand:", 2 * 32**3)
print("anchor block:", s_tir.analysis.find_anchor_sblock(mod).name_hint)
print("pure:        ", s_tir.analysis.is_pure_function(product))


@T.prim_func(s_tir=True)
def any_length(a: T.handle):
    n = T.int32()
    A = T.match_buffer(a, (n,), "float32")
    for i in range(n):
        with T.sblock("A"):
            v = T.axis.spatial(n, i)
            A[v] = A[v] + T.float32(1)


unknown = tvm.IRModule({"main": any_length})
print("n additions: ", s_tir.analysis.estimate_tir_flops(unknown))
print("its anchor:  ", s_tir.analysis.find_anchor_sblock(unknown))
for name in ("ConvertBlocksToOpaque", "LowerOpaqueBlock"):
    after = {s.name: s for s in tir_stages(window)}[f"s_tir.{name}"].after
    size = s_tir.analysis.calculate_allocated_bytes(after)
    print(f"bytes after {name}: {size['window']}")

# %% check
assert flops == 2 * 32**3
assert s_tir.analysis.estimate_tir_flops(unknown) == 2**31 - 1


@T.prim_func(s_tir=True)
def guarded(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("B"):
            v = T.axis.spatial(8, i)
            B[v] = T.if_then_else(v < 4, A[v + 4], T.float32(0))


check(tvm.IRModule({"main": guarded}))  # the condition is seen
assert tirx.analysis.verify_memory(unbound)  # no target, no complaint


@T.prim_func(s_tir=True)
def inside(A: T.Buffer((8,), "float32")):
    B = T.alloc_buffer((8,), "float32")
    for i in range(8):
        B[i] = A[i]


@T.prim_func(s_tir=True)
def inside_block(A: T.Buffer((8,), "float32")):
    B = T.sblock_alloc_buffer((8,), "float32")
    for i in range(8):
        with T.sblock("B"):
            v = T.axis.spatial(8, i)
            B[v] = A[v]


assert s_tir.analysis.is_pure_function(inside)
assert not s_tir.analysis.is_pure_function(inside_block)


@T.prim_func(s_tir=True, check_well_formed=False)
def unchecked(A: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("A"):
            v = T.axis.spatial(8, i)
            A[i] = A[v]


assert not well_formed(unchecked, False)
tvm.compile(unchecked, target="llvm")  # a build does not verify

# %% cell: analyzer
i, j = (tirx.Var(name, "int32") for name in "ij")
index = i * 16 + j
know = sym.Analyzer()
print("nothing known:", know.simplify(index // 16))
know.bind(i, ir.Range(0, 7))
know.bind(j, ir.Range(0, 16))
print("ranges known: ", know.simplify(index // 16))
print("bounds:       ", know.const_int_bound(index))
print("multiple of:  ", know.modular_set(i * 16 + 4))
print("below 112:    ", know.can_prove(index < 112))
print("below 100:    ", know.can_prove(index < 100))
with know.constraint_scope(index < 100):
    print(
        "in the scope of `index < 100`, i * 16 < 100:",
        know.can_prove(i * 16 < 100),
    )

# %% cell: rebind
with expect_error(tvm.error.InternalError, match="different const bound"):
    know.bind(i, ir.Range(0, 3))

# %% cell: strength
n = tirx.Var("n", "int32")
know.bind(n, ir.Range(1, 1000))
m = tirx.Var("m", "int32")
claims = ((n + 15) // 16 * 16 >= n, m * m >= 0, n % 6 == 0)
strong = sym.ProofStrength.SYMBOLIC_BOUND
for claim in claims:
    verdict = know.can_prove(claim), know.can_prove(claim, strong)
    print(f"{claim!s:24s} default {verdict[0]!s:6s} stronger {verdict[1]}")
print("with Z3:", know.is_z3_enabled)

# %% cell: where


def tiles(extent):
    """Split a loop of this extent by 16; is a condition left?"""

    @T.prim_func(s_tir=True)
    def copy(a: T.handle, b: T.handle):
        n = T.int32()
        A = T.match_buffer(a, (extent(n),), "float32")
        B = T.match_buffer(b, (extent(n),), "float32")
        for i in range(extent(n)):
            with T.sblock("B"):
                v = T.axis.spatial(extent(n), i)
                B[v] = A[v]

    sch = s_tir.Schedule(copy)
    sch.split(sch.get_loops("B")[0], [None, 16])
    condition = re.search(r"T\.where\((.*)\)", sch.mod.script())
    return condition[1] if condition else "none"


print("n:             ", tiles(lambda n: n))
print("n * 16:        ", tiles(lambda n: n * 16))
print("n * 4:         ", tiles(lambda n: n * 4))

# %% cell: iter-map
domain = {i: ir.Range(0, 7), j: ir.Range(0, 16)}
QUESTIONS = {
    "i * 16 + j": ([i * 16 + j], True),
    "i * 16 + j, below 100": ([i * 16 + j], i * 16 + j < 100),
    "j // 4, j % 4": ([j // 4, j % 4], True),
    "i + j": ([i + j], True),
    "j, j": ([j, j], True),
    "i // 2, i % 2": ([i // 2, i % 2], True),
}
for text, (indices, condition) in QUESTIONS.items():
    answers = []
    for level in ("surjective", "bijective"):
        result = sym.detect_iter_map(indices, domain, condition, level)
        answers.append("yes" if result.indices else result.errors[0])
    print(
        f"{text}\n    surjective: {answers[0]}\n    bijective:  {answers[1]}"
    )

# %% cell: solution-regions


def false_regions(func):
    """Blocks whose declared regions differ from what their body does."""
    known = buffers(func)
    problems = []

    def on_block(node):
        if not node.iter_vars:
            return
        actual = s_tir.analysis.get_sblock_read_write_region(node, known)
        declared = [node.reads, node.writes]
        for word, is_, says in zip(
            ("reads", "writes"), actual, declared, strict=True
        ):
            if {str(r) for r in is_} != {str(r) for r in says}:
                problems.append(
                    f"{node.name_hint} {word} {', '.join(map(str, is_))},"
                    f" declared {', '.join(map(str, says))}"
                )

    tvm_ffi.structural_walk(func.body, (s_tir.SBlock, on_block))
    return problems


print(false_regions(window))
print(false_regions(false_window))

# %% check
assert false_regions(window) == false_regions(product) == []
assert len(false_regions(false_window)) == 1

# %% cell: solution-prove
ask = sym.Analyzer()
rows = tirx.Var("rows", "int32")
ask.bind(rows, ir.Range(1, 1 << 20))
tile, row, column = (tirx.Var(name, "int32") for name in ("t", "r", "c"))
ask.bind(tile, ir.Range(0, (rows + 7) // 8))
ask.bind(row, ir.Range(0, 8))
ask.bind(column, ir.Range(0, 64))
flat = (tile * 8 + row) * 64 + column
print("without padding:", ask.can_prove(flat < rows * 64, strong))
padded = (rows + 7) // 8 * 8
print("padded rows:    ", ask.can_prove(flat < padded * 64, strong))

# %% check
assert not ask.can_prove(flat < rows * 64, strong)
assert ask.can_prove(flat < padded * 64, strong)
