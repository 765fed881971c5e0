"""
Three old listings, ported
==========================

A matrix product with a TE schedule, a residual block in Relay, and a run of
the auto-scheduler: each as older texts write it, and as it runs today.
"""

# gallery: timeout=120

# %% cell: setup
import re

import numpy as np
import tvm
from scipy.signal import correlate
from tvm import relax, s_tir, te
from tvm.relax.frontend import nn
from tvm.s_tir import meta_schedule as ms

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.renames import read_renames
from tvm_deepdive_helpers.tuning import host_target, tune

rng = np.random.default_rng(0)


def random(*shape):
    return rng.standard_normal(shape, dtype="float32")


# %% cell: old-gemm
OLD_GEMM = """
A = te.placeholder((N, N), name="A")
B = te.placeholder((N, N), name="B")
k = te.reduce_axis((0, N), name="k")
C = te.compute((N, N), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k))

s = te.create_schedule(C.op)
io, jo, ii, ji = s[C].tile(C.op.axis[0], C.op.axis[1], 16, 32)
ko, ki = s[C].split(C.op.reduce_axis[0], factor=4)
s[C].reorder(io, jo, ko, ii, ki, ji)
s[C].vectorize(ji)
s[C].parallel(io)

func = tvm.build(s, [A, B, C], target="llvm -mcpu=core-avx2")
dev = tvm.device("llvm", 0)
c = tvm.nd.array(np.zeros((N, N), dtype="float32"), dev)
func(tvm.nd.array(a, dev), tvm.nd.array(b, dev), c)
print(c.asnumpy())
"""
print(OLD_GEMM.strip())

# %% cell: new-gemm
N = 128
A = te.placeholder((N, N), name="A")
B = te.placeholder((N, N), name="B")
k = te.reduce_axis((0, N), name="k")
C = te.compute(
    (N, N), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C"
)

sch = s_tir.Schedule(te.create_prim_func([A, B, C]))
block = sch.get_sblock("C")
i, j, k = sch.get_loops(block)
io, ii = sch.split(i, factors=[None, 16])
jo, ji = sch.split(j, factors=[None, 32])
ko, ki = sch.split(k, factors=[None, 4])
sch.reorder(io, jo, ko, ii, ki, ji)
sch.vectorize(ji)
sch.parallel(io)
sch.decompose_reduction(block, ko)

func = tvm.compile(sch.mod, target="llvm")
a, b = random(N, N), random(N, N)
c = tvm.runtime.empty((N, N), "float32")
func(tvm.runtime.tensor(a), tvm.runtime.tensor(b), c)
print("right:", np.allclose(c.numpy(), a @ b, atol=1e-3))

# %% cell: gemm-traps
with expect_error(AttributeError, match="create_schedule"):
    te.create_schedule(C.op)
with expect_error(ValueError, match="CLI target string"):
    tvm.target.Target("llvm -mcpu=core-avx2")
with expect_error(ValueError, match="Unknown device"):
    tvm.device("llvm", 0)

# %%
assert np.allclose(c.numpy(), a @ b, atol=1e-3)

# %% cell: old-block
OLD_BLOCK = """
def bn(data, name):
    gamma, beta = relay.var(name + "_gamma"), relay.var(name + "_beta")
    mean, var = relay.var(name + "_mean"), relay.var(name + "_var")
    return relay.nn.batch_norm(data, gamma, beta, mean, var)[0]

data = relay.var("data", shape=(1, 8, 14, 14))
w1, w2 = relay.var("w1"), relay.var("w2")
x = relay.nn.conv2d(data, w1, channels=8, kernel_size=(3, 3), padding=(1, 1))
x = relay.nn.relu(bn(x, "bn1"))
x = relay.nn.conv2d(x, w2, channels=8, kernel_size=(3, 3), padding=(1, 1))
x = relay.nn.relu(relay.add(bn(x, "bn2"), data))
mod = tvm.IRModule.from_expr(relay.Function(relay.analysis.free_vars(x), x))

with tvm.transform.PassContext(opt_level=3):
    lib = relay.build(mod, target="llvm", params=params)
m = graph_executor.GraphModule(lib["default"](tvm.cpu()))
m.set_input("data", x_np)
m.run()
print(m.get_output(0).asnumpy())
"""
print(OLD_BLOCK.strip())


# %% cell: new-block
class BatchNorm(nn.Module):
    """With the numbers of training, as in inference."""

    def __init__(self, channels):
        for name in ("gamma", "beta", "mean", "var"):
            setattr(self, name, nn.Parameter((channels,), "float32"))

    def forward(self, x):
        normed = relax.op.nn.batch_norm(
            x._expr,
            *(p._expr for p in (self.gamma, self.beta, self.mean, self.var)),
            axis=1,
            training=False,
        )
        return nn.wrap_nested(relax.TupleGetItem(normed, 0), "bn")


class Block(nn.Module):
    def __init__(self, channels=8):
        self.conv1 = nn.Conv2D(channels, channels, 3, padding=1, bias=False)
        self.bn1 = BatchNorm(channels)
        self.conv2 = nn.Conv2D(channels, channels, 3, padding=1, bias=False)
        self.bn2 = BatchNorm(channels)

    def forward(self, data):
        x = nn.relu(self.bn1(self.conv1(data)))
        return nn.relu(self.bn2(self.conv2(x)) + data)


spec = {"forward": {"data": nn.spec.Tensor((1, 8, 14, 14), "float32")}}
mod, params = Block().export_tvm(spec)
for binding in mod["forward"].body.blocks[0].bindings:
    value = binding.value
    what = value.op.name if isinstance(value, relax.Call) else "item 0"
    print(f"{binding.var.name:8s} {what}")

# %% cell: run-block
values = {name: abs(random(*(int(n) for n in p.shape))) for name, p in params}
x = random(1, 8, 14, 14)
executable = tvm.compile(relax.get_pipeline("zero")(mod), target="llvm")
vm = relax.VirtualMachine(executable, tvm.cpu())
y = vm["forward"](
    *(tvm.runtime.tensor(v) for v in (x, *values.values()))
).numpy()
print(y.shape, sorted(values))


# %%
def conv(x, w):
    rows = [
        sum(
            correlate(np.pad(x[0, c], 1), w[o, c], mode="valid")
            for c in range(x.shape[1])
        )
        for o in range(w.shape[0])
    ]
    return np.stack(rows)[None]


def norm(x, name):
    gamma, beta, mean, var = (
        values[f"{name}.{part}"].reshape(-1, 1, 1)
        for part in ("gamma", "beta", "mean", "var")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * gamma + beta


h = np.maximum(norm(conv(x, values["conv1.weight"]), "bn1"), 0)
expected = np.maximum(norm(conv(h, values["conv2.weight"]), "bn2") + x, 0)
assert np.allclose(y, expected, rtol=1e-3, atol=1e-2)
kernels = [
    var.name_hint
    for var, func in relax.get_pipeline("zero")(mod).functions.items()
    if isinstance(func, tvm.tirx.PrimFunc)
]
glue("kernels", len(kernels))

# %% cell: old-tuning
OLD_TUNING = """
@auto_scheduler.register_workload
def matmul(N):
    A = te.placeholder((N, N), name="A")
    B = te.placeholder((N, N), name="B")
    k = te.reduce_axis((0, N), name="k")
    C = te.compute((N, N), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k))
    return [A, B, C]

task = auto_scheduler.SearchTask(
    func=matmul, args=(256,), target="llvm -mcpu=core-avx2"
)
options = auto_scheduler.TuningOptions(
    num_measure_trials=64,
    measure_callbacks=[auto_scheduler.RecordToFile("matmul.json")],
)
task.tune(options)
sch, args = task.apply_best("matmul.json")
func = tvm.build(sch, args, target="llvm -mcpu=core-avx2")
"""
print(OLD_TUNING.strip())


# %% cell: new-tuning
def matmul(n):
    """The workload: a function that returns a module; no registration."""
    A = te.placeholder((n, n), name="A")
    B = te.placeholder((n, n), name="B")
    k = te.reduce_axis((0, n), name="k")
    C = te.compute(
        (n, n), lambda i, j: te.sum(A[i, k] * B[k, j], axis=k), name="C"
    )
    return tvm.IRModule({"main": te.create_prim_func([A, B, C])})


task = matmul(256)
target = host_target()  # a dictionary inside, with "num-cores"
tuned = tune(task, target, trials=16, strategy="replay-trace")
sch = ms.tir_integration.compile_tir(tuned.database, task, target)
func = tvm.compile(sch.mod, target=target)

a, b = random(256, 256), random(256, 256)
c = tvm.runtime.empty((256, 256), "float32")
func(tvm.runtime.tensor(a), tvm.runtime.tensor(b), c)
print(len(tuned.records), "records")
print("right:", np.allclose(c.numpy(), a @ b, atol=1e-3))

# %%
assert np.allclose(c.numpy(), a @ b, atol=1e-3)
assert len(tuned.records) == 16

# %% cell: old-names
rows = read_renames(data("renames.toml"))
changed = [row.old for row in rows if row.outcome != "works"]


def has_row(name):
    """Whether a row is about this name, or about calls of it."""
    full = name if name.startswith("tvm.") else f"tvm.{name}"
    return any(old == full or old.startswith(f"{full}(") for old in changed)


OLD = {"GEMM": OLD_GEMM, "block": OLD_BLOCK, "tuning": OLD_TUNING}
for title, text in OLD.items():
    dotted = set(
        re.findall(r"\b(?:te|tvm|relay|auto_scheduler)\.[\w.]+", text)
    )
    stale = sorted(filter(has_row, dotted))
    print(f"{title}: {len(stale)} of {len(dotted)} names have a row:")
    print("   ", ", ".join(stale))

# %% cell: solution-rfactor
sch = s_tir.Schedule(te.create_prim_func([A, B, C]))
i, j, k = sch.get_loops("C")
ko, ki = sch.split(k, factors=[None, 16])
partial = sch.rfactor(ki, factor_axis=0)
print("blocks:", [sch.get(partial).name_hint, "C"])
func = tvm.compile(sch.mod, target="llvm")
a, b = random(N, N), random(N, N)
c = tvm.runtime.empty((N, N), "float32")
func(tvm.runtime.tensor(a), tvm.runtime.tensor(b), c)
print("right:", np.allclose(c.numpy(), a @ b, atol=1e-3))

# %%
assert np.allclose(c.numpy(), a @ b, atol=1e-3)
