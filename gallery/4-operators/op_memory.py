"""
Memory management at compile time
=================================

How Relax plans storage for tensors, with bytes before and after, and how
TIR shares, shrinks, moves and places the buffers inside of a kernel.
"""

# %% cell: setup
import itertools
import re

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T
from tvm.target import Target

from tvm_deepdive_helpers import expect_error
from tvm_deepdive_helpers.figures import bar_chart
from tvm_deepdive_helpers.passes import tir_stages
from tvm_deepdive_helpers.running_example import arguments, mlp

tx = relax.transform


def lower(mod, *more):
    """Relax passes up to explicit allocation, and more passes."""
    passes = [tx.LegalizeOps(), tx.RewriteDataflowReshape()]
    passes += [tx.ToNonDataflow(), tx.RemovePurityChecking()]
    with Target("llvm"):
        every = [*passes, tx.CallTIRRewrite(), *more]
        return tvm.transform.Sequential(every)(mod)


def short(mod):
    """The lines about memory and kernels, without types."""
    for line in mod["main"].script().splitlines():
        line = re.sub(r"^(\s*\w+): R\..*? = ", r"\1 = ", line)
        line = re.sub(r'R\.(str|dtype)\("(\w+)"\)', r"\2", line)
        line = re.sub(r", ty_args=.*", ")", line)
        if re.search(r"alloc\w*[_(]|kill|, alloc", line):
            print(line.strip())


short(lower(mlp(8)))

# %% cell: planned
planned = lower(mlp(8), tx.StaticPlanBlockMemory())
short(planned)

# %% cell: report
print(relax.analysis.estimate_memory_usage(planned))


# %% cell: rules
def chain(*widths):
    """A row vector through matrices: tensors of these widths."""
    pairs = list(itertools.pairwise(widths))
    x = relax.Var("x", relax.TensorType((1, widths[0]), "float32"))
    ws = [
        relax.Var(f"w{i}", relax.TensorType(p, "float32"))
        for i, p in enumerate(pairs)
    ]
    bb = relax.BlockBuilder()
    with bb.function("main", [x, *ws]):
        with bb.dataflow():
            h = x
            for w in ws:
                h = bb.emit(relax.op.matmul(h, w))
            out = bb.emit_output(relax.op.nn.relu(h))
        bb.emit_func_output(out)
    return bb.get()


def storages(mod):
    text = lower(mod, tx.StaticPlanBlockMemory()).script()
    found = re.findall(r"alloc_storage\(R\.shape\(\[([^\]]+)\]\)", text)
    return [int(n) if n.isdigit() else n for n in found]


for widths in (
    (1, 64, 64, 64, 64),
    (1, 4, 4, 64, 4),
    (1, 4, 4, 65, 4),
    (1, 64, 4, 3, 4, 4),
):
    print([4 * w for w in widths[1:]], "->", storages(chain(*widths)))

# %% check
assert storages(chain(1, 64, 64, 64, 64)) == [256, 256]
assert storages(chain(1, 4, 4, 64, 4)) == [256, 16]


# %% cell: kept
@I.ir_module
class Looked:
    @R.function(pure=False)
    def main(x: R.Tensor((64,), "float32")) -> R.Tensor((64,), "float32"):
        a = R.add(x, R.const(1, "float32"))
        _ = R.call_packed("book.look", a, ty_args=R.Tuple())
        b = R.exp(a)
        c = R.sigmoid(b)
        d = R.exp(c)
        return d


kept = []


@tvm.register_global_func("book.look")
def look(tensor):
    kept.append(tensor)
    print("in the call:", tensor.numpy()[0])


machine = relax.VirtualMachine(tvm.compile(Looked, "llvm"), tvm.cpu())
machine["main"](tvm.runtime.tensor(np.zeros(64, "float32")))
print("afterwards: ", round(float(kept[0].numpy()[0]), 4))

# %% check
assert abs(kept[0].numpy()[0] - 1 / (1 + np.exp(-np.e))) < 1e-4

# %% cell: dynamic
dynamic = mlp("n")
print("no bound:  ", storages(dynamic))
main = dynamic["main"].with_attr("tir_var_upper_bound", {"n": 16})
bounded = tvm.IRModule({"main": main})
print("n up to 16:", storages(bounded))

# %% cell: bound-broken
vm = relax.VirtualMachine(tvm.compile(bounded, "llvm"), tvm.cpu())


def run(rows):
    values = [np.zeros((rows, 64), "float32"), *arguments()[1:]]
    return vm["main"](*map(tvm.runtime.tensor, values)).shape


print(run(3), run(16))
too_much = "storage allocation failure"
with expect_error(tvm.error.InternalError, match=too_much, max_lines=1):
    run(17)

# %% cell: killed
after = [tx.StaticPlanBlockMemory(), tx.LowerAllocTensor()]
short(lower(mlp(8), *after, tx.KillAfterLastUse()))


# %% cell: bytes
def total(mod, plan):
    more = [tx.StaticPlanBlockMemory()] if plan else []
    text = lower(mod, *more, tx.LowerAllocTensor()).script()
    sizes = re.findall(r"alloc_storage\(R\.shape\(\[(\d+)\]\)", text)
    return sum(map(int, sizes))


models = {
    "the MLP, 8 rows": mlp(8),
    "the MLP, 256 rows": mlp(256),
    "8 equal layers": chain(*[256] * 9),
    "a funnel 1024 … 8": chain(*[2**k for k in range(10, 2, -1)]),
}
table = {}
for name, mod in models.items():
    table[name] = total(mod, False), total(mod, True)
    print(f"{name:18} {table[name][0]:7} -> {table[name][1]:7} bytes")

# %% cell: bytes-figure
bars = {}
for name, (without, planned_bytes) in table.items():
    bars[name] = 100.0
    bars[f"{name}: planned"] = 100 * planned_bytes / without
bar_chart(
    bars,
    unit="% of the bytes without planning",
    form=".0f",
    color={n: "vermilion" for n in bars if "planned" in n},
    title="Storage for intermediate results",
)

# %% check
assert all(b < a for a, b in table.values())


# %% cell: sharing
STAGES = """
@T.prim_func(s_tir=True)
def stages(A: T.Buffer((N,), "float32"), D: T.Buffer((N,), "float32")):
    B = T.sblock_alloc_buffer((N,), "float32")
    C = T.sblock_alloc_buffer((N,), "float32")
    E = T.sblock_alloc_buffer((M,), "DTYPE")
    for i in range(N):
        with T.sblock("B"):
            v = T.axis.spatial(N, i)
            B[v] = A[v] + T.float32(1)
    for i in range(N):
        with T.sblock("C"):
            v = T.axis.spatial(N, i)
            C[v] = B[INDEX] * T.float32(2)
    for i in range(M):
        with T.sblock("E"):
            v = T.axis.spatial(M, i)
            E[v] = T.Cast("DTYPE", C[N - 1 - v])
    for i in range(N):
        with T.sblock("D"):
            v = T.axis.spatial(N, i)
            D[v] = T.Cast("float32", E[v % M])
"""


def stages(n=512, m=None, index="N - 1 - v", dtype="float32"):
    text = STAGES.replace("INDEX", index).replace("DTYPE", dtype)
    text = re.sub(r"\bN\b", str(n), text)
    return tvm.script.from_source(re.sub(r"\bM\b", str(m or n), text))


def allocations(func, name, target="llvm"):
    """Allocations after the last pass of that name."""
    found = [s for s in tir_stages(func, target) if s.name.endswith(name)]
    text = found[-1].after.script()
    pattern = r"^\s*(\w+) = T\.alloc_buffer\(\((\d+),\)"
    return dict(re.findall(pattern, text, re.M))


print("before:", allocations(stages(), "VectorizeLoop"))
print("after: ", allocations(stages(), "StorageRewrite"))

# %% cell: refusals
cases = {
    "C reads B forwards": {"index": "v"},
    "E half as long": {"m": 256},
    "E of 16 elements": {"m": 16},
    "E of int32": {"dtype": "int32"},
    "E of float64": {"dtype": "float64"},
    "E of 2 float64": {"n": 5, "m": 2, "dtype": "float64"},
}
for name, options in cases.items():
    left = allocations(stages(**options), "StorageRewrite")
    print(f"{name:19} {left}")

# %% cell: place
sch = tvm.s_tir.Schedule(stages())
outer, _ = sch.split(sch.get_loops("C")[0], [None, 16])
sch.compute_at("B", outer)
print(allocations(sch.mod["main"], "StorageRewrite"))
for stage in tir_stages(sch.mod, "llvm"):
    if stage.name.endswith("CompactBufferAllocation"):
        text = stage.after.script()
        print(*re.findall(r"\w+ = T\.sblock_alloc_buffer.*", text), sep="\n")


# %% cell: workspace
def where(length):
    text = tir_stages(stages(length), "llvm")[-1].after.script()
    call = re.search(r"TVMBackendAllocWorkspace\((.*?)\)\)", text)
    return f"workspace({call[1]}" if call else "stack"


for length in (128, 255, 256, 512):
    print(f"{4 * length:5} bytes:", where(length)[:60])


# %% cell: shared
@T.prim_func(s_tir=True)
def kernel(A: T.Buffer((4, 64), "float32"), B: T.Buffer((4, 64), "float32")):
    S = T.sblock_alloc_buffer((4, 64), "float32", scope="shared.dyn")
    U = T.sblock_alloc_buffer((4, 64), "float32", scope="shared.dyn")
    V = T.sblock_alloc_buffer((4, 64), "float32", scope="shared.dyn")
    for i in T.thread_binding(4, "blockIdx.x"):
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("S"):
                vi, vj = T.axis.remap("SS", [i, j])
                S[vi, vj] = A[vi, vj]
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("U"):
                vi, vj = T.axis.remap("SS", [i, j])
                U[vi, vj] = S[vi, 63 - vj]
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("V"):
                vi, vj = T.axis.remap("SS", [i, j])
                V[vi, vj] = U[vi, 63 - vj] * T.float32(2)
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("out"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = V[vi, 63 - vj]


cuda = Target({"kind": "cuda", "arch": "sm_80"}, host="llvm")
for name in ("CompactBufferAllocation", "StorageRewrite"):
    text = [s for s in tir_stages(kernel, cuda) if s.name.endswith(name)]
    text = text[-1].after.script()
    pattern = r"(\w+) = T\.\w*alloc_buffer\(\((\d+(?:, \d+)*),?\).*shared.dyn"
    print(f"{name}:", *re.findall(pattern, text))
print("in one:", allocations(kernel, "MergeSharedMemoryAllocations", cuda))


# %% cell: merge-trap
@T.prim_func(s_tir=True)
def pair(A: T.Buffer((4, 64), "float32"), B: T.Buffer((4, 64), "float32")):
    S = T.sblock_alloc_buffer((4, 64), "float32", scope="shared.dyn")
    U = T.sblock_alloc_buffer((4, 64), "float32", scope="shared.dyn")
    for i in T.thread_binding(4, "blockIdx.x"):
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("S"):
                vi, vj = T.axis.remap("SS", [i, j])
                S[vi, vj] = A[vi, vj]
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("U"):
                vi, vj = T.axis.remap("SS", [i, j])
                U[vi, vj] = S[vi, 63 - vj] * T.float32(2)
        for j in T.thread_binding(64, "threadIdx.x"):
            with T.sblock("out"):
                vi, vj = T.axis.remap("SS", [i, j])
                B[vi, vj] = U[vi, 63 - vj]


merge = "MergeSharedMemoryAllocations"
(stage,) = [s for s in tir_stages(pair, cuda) if s.name.endswith(merge)]
print(allocations(pair, merge, cuda))
for line in stage.after.script().splitlines():
    if re.search(r"buf_dyn|\] = |storage_sync", line):
        print(line.strip())

# %% cell: solution-order
for widths in ((1, 64, 4, 3, 4, 4), (1, 3, 4, 4, 64, 4)):
    print(widths[1:], storages(chain(*widths)))

# %% cell: solution-fused
with Target("llvm"):
    fused = relax.get_pipeline("zero")(mlp(8))
print("plain:", total(mlp(8), True), " fused:", total(fused, True))
