"""
Measuring operators, and finding the slow one
=============================================

What time_evaluator counts, hot and cold caches, times of every kernel of a
model, what the machine could do, and one kernel brought nearer to it.
"""

# %% cell: setup
import math

import numpy as np
import tvm
import tvm_ffi
from tvm import ir, relax, s_tir, sym, tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import compare, numpy_process
from tvm_deepdive_helpers.figures import COLORS, INK, MUTED, bar_chart, new
from tvm_deepdive_helpers.passes import tir_stages

CPU = tvm.cpu()

# %% cell: counted
calls = []
tvm.register_global_func("deepdive.tick", calls.append)


@T.prim_func
def tick(A: T.Buffer((1,), "float32")):
    T.evaluate(T.call_packed("deepdive.tick", A[0]))


library = tvm.compile(tick, "llvm").mod
one = tvm.runtime.tensor(np.ones(1, "float32"))
for options in ({}, {"number": 3, "repeat": 2}):
    timer = library.time_evaluator("tick", CPU, **options)
    calls.clear()
    result = timer(one)
    print(f"{options!s:28} calls {len(calls):3}", end="  ")
    print(f"results {len(result.results)}")

# %% check
assert len(calls) == 7

# %% cell: at-least
timer = library.time_evaluator(
    "tick", CPU, number=1, repeat=3, min_repeat_ms=2
)
calls.clear()
timer(one)
first = len(calls)
calls.clear()
timer(one)
print("many more than 1 + 1 x 3:", first > 100)
print("the second use starts with the grown number:", len(calls) > 100)

# %% cell: result
result = library.time_evaluator("tick", CPU, number=3, repeat=2)(one)
print(type(result).__name__, sorted(vars(result)))
print(type(result.min).__name__, 0 < result.min <= result.mean < 1)

# %% cell: refusals
executable = tvm.compile(tick, "llvm")
with expect_error(AttributeError, match="time_evaluator"):
    executable.time_evaluator("tick", CPU)
with expect_error(tvm.error.InternalError, match="Cannot find"):
    library.time_evaluator("tock", CPU)
with expect_error(TypeError, match="Expected 1 arguments"):
    library.time_evaluator("tick", CPU)()
with np.errstate(invalid="ignore"):
    nothing = library.time_evaluator("tick", CPU, number=0)(one)
print("number=0:", nothing.min)

# %% check
assert math.isinf(nothing.min)

# %% cell: cold, varies
N = 1 << 16  # 256 KiB


@T.prim_func(s_tir=True)
def double(A: T.Buffer((N,), "float32"), B: T.Buffer((N,), "float32")):
    for i in range(N):
        with T.sblock("B"):
            v = T.axis.spatial(N, i)
            B[v] = A[v] * T.float32(2)


lib = tvm.compile(double, "llvm").mod
a = tvm.runtime.tensor(np.ones(N, "float32"))
b = tvm.runtime.empty((N,), "float32")
FLUSH = 64 << 20
caches = {
    "hot": {"number": 1},
    "cold, number=1": {"number": 1, "cache_flush_bytes": FLUSH},
    "cold, number=20": {"number": 20, "cache_flush_bytes": FLUSH},
}
times = {
    name: lib.time_evaluator("double", CPU, repeat=15, **options)(a, b)
    for name, options in caches.items()
}
for name, t in times.items():
    print(f"{name:16} median {1e6 * t.median:7.1f} µs")

# %% check
assert times["cold, number=1"].median > 1.15 * times["hot"].median
glue(
    "cold_ratio",
    times["cold, number=1"].median / times["hot"].median,
    varies=True,
)

# %% cell: model
M = 256


@I.ir_module
class Model:
    @R.function
    def main(
        x: R.Tensor((M, M), "float32"),
        w: R.Tensor((M, M), "float32"),
        b: R.Tensor((M,), "float32"),
    ) -> R.Tensor((M, M), "float32"):
        with R.dataflow():
            h = R.matmul(x, w)
            h = R.add(h, b)
            h = R.tanh(h)
            h = R.permute_dims(h)
            y = R.nn.softmax(h)
            R.output(y)
        return y


kernels = relax.transform.LegalizeOps()(Model)
rng = np.random.default_rng(0)
arrays = [rng.standard_normal(s).astype("float32") for s in ((M, M), (M, M))]
arrays.append(np.zeros(M, "float32"))
arguments = [tvm.runtime.tensor(a) for a in arrays]
built = tvm.compile(kernels, "llvm")
vm = relax.VirtualMachine(built, CPU)

# %% cell: whole, varies
print(vm.time_evaluator("main", CPU, number=5, repeat=3)(*arguments))

# %% cell: vm-timer
with expect_error(TypeError, match="cache_flush_bytes"):
    vm.time_evaluator("main", CPU, cache_flush_bytes=FLUSH)

# %% cell: capture
operands = {}


def keep(func, name, before, result, *args):
    """Remember what each kernel was called with."""
    if before and not str(name).startswith("vm."):
        operands.setdefault(str(name), args)


vm.set_instrument(keep)
y = vm["main"](*arguments)
for name, args in operands.items():
    print(f"{name:16}", *(tuple(a.shape) for a in args))

# %% check
expected = np.tanh(arrays[0] @ arrays[1]).T
expected = np.exp(expected) / np.exp(expected).sum(-1, keepdims=True)
np.testing.assert_allclose(y.numpy(), expected, atol=1e-5)

# %% cell: each
[machine_code] = built.mod.imports


def seconds(library, name):
    """Shortest time of a kernel, with what the model gave it."""
    timer = library.time_evaluator(
        name, CPU, number=1, repeat=7, min_repeat_ms=2
    )
    return timer(*operands[name]).min


measured = {name: seconds(machine_code, name) for name in operands}

# %% cell: each-figure, varies
milli = {
    name: 1e3 * s
    for name, s in sorted(measured.items(), key=lambda item: -item[1])
}
fig, _ = bar_chart(milli, unit="ms", title="One call of each kernel")

# %% check
assert next(iter(milli)) == "matmul"
glue(
    "matmul_share",
    100 * milli["matmul"] / sum(milli.values()),
    varies=True,
)

# %% cell: work


def work(func):
    """Operations of a kernel, and bytes of the buffers it is given."""
    module = tvm.IRModule({"main": func})
    flops = s_tir.analysis.estimate_tir_flops(module)
    sizes = [
        math.prod(int(n) for n in p.shape) * p.dtype.itemsize
        for p in func.params
    ]
    return flops, sum(sizes)


print(f"{'kernel':16} {'operations':>11} {'bytes':>8}  operations per byte")
for name in operands:
    flops, size = work(kernels[name])
    print(f"{name:16} {flops:11,.0f} {size:8,}  {flops / size:.2f}")

# %% check
assert work(kernels["matmul"]) == (2 * M**3, 3 * 4 * M * M)
assert work(kernels["transpose"])[0] == 0

# %% cell: strides


def strides(func):
    """How far each access moves with one step of its innermost loop."""
    public = func.with_attr("global_symbol", "main")
    stages = {s.name: s for s in tir_stages(public)}
    flat = stages["tirx.FlattenBuffer"].after
    (body,) = (f.body for f in flat.functions.values())
    moves, loops = {}, []

    def note(access):
        if isinstance(access, tirx.BufferStore):
            buffer = access.buffer
        else:
            buffer = access.source
        loop = loops[-1]
        index = access.indices[0]
        var = loop.loop_var
        after = tvm_ffi.structural_map(
            index, (tirx.Var, lambda v: v + 1 if v.same_as(var) else v)
        )
        step = sym.Analyzer().simplify(after - index)
        name = buffer.name.removesuffix("_1")
        moves.setdefault(loop.loop_var.name, {})[name] = int(step)

    def walk(node):
        if isinstance(node, tirx.For):
            loops.append(node)
            walk(node.body)
            loops.pop()
        elif isinstance(node, tirx.SeqStmt):
            for part in node.seq:
                walk(part)
        elif isinstance(node, tirx.BufferStore):
            note(node)
            tvm_ffi.structural_walk(node.value, (ir.TensorLoad, note))

    walk(body)
    return moves


for name in ("add", "transpose", "matmul"):
    print(f"{name:10}", strides(kernels[name]))

# %% check
assert strides(kernels["transpose"])["ax1"]["h"] == M
assert strides(kernels["matmul"])["k"] == {"matmul": 0, "x": 1, "w": M}


# %% cell: roofs, varies
def copy_speed(count):
    """Bytes a second, read and written, of a copy of so many floats."""
    source = np.ones(count, "float32")
    sink = np.empty_like(source)
    number = max(1, (1 << 20) // count)
    copying = compare(
        {"copy": lambda: np.copyto(sink, source)}, rounds=7, number=number
    )
    return 2 * source.nbytes / copying["copy"].min_s


memory, cache = copy_speed(16 << 20), copy_speed(M * M)
setup = "a = np.ones((512, 512), 'float32')"
with numpy_process(setup, "a @ a") as timer:
    peak = 2 * 512**3 / min(timer() for _ in range(7))
print(f"copy of 64 MiB:   {memory / 1e9:6.1f} GB/s")
print(f"copy of 256 KiB:  {cache / 1e9:6.1f} GB/s")
print(f"BLAS, one thread: {peak / 1e9:6.1f} billion operations a second")

# %% check
assert cache > memory

# %% cell: bounds, varies


def bound(flops, size):
    """Seconds that the machine needs at least."""
    return max(flops / peak, size / cache)


print("kernel           measured   at least   times     lost")
lost = {}
for name, s in measured.items():
    least = bound(*work(kernels[name]))
    lost[name] = s - least
    print(
        f"{name:15} {1e6 * s:6.0f} µs {1e6 * least:7.1f} µs"
        f" {s / least:7.1f} {1e6 * lost[name]:6.0f} µs"
    )

# %% check
assert max(lost, key=lost.get) == "matmul"
matmul_factor = measured["matmul"] / bound(*work(kernels["matmul"]))
assert matmul_factor > 3
assert measured["transpose"] > 1.5 * measured["add"]
glue("matmul_factor", matmul_factor, varies=True)

# %% cell: faster


def by_rows(func):
    """Let the innermost loop of a product walk along rows."""
    sch = s_tir.Schedule(func)
    i, j, k = sch.get_loops("matmul")
    sch.reorder(i, k, j)
    sch.vectorize(sch.split(j, [None, 16])[1])
    sch.decompose_reduction("matmul", k)
    return sch.mod["main"]


improved = kernels.clone()
improved["matmul"] = by_rows(kernels["matmul"])
print(strides(improved["matmul"]))
rebuilt = tvm.compile(improved, "llvm")
better = relax.VirtualMachine(rebuilt, CPU)
right = np.allclose(better["main"](*arguments).numpy(), expected, atol=1e-5)
print("same result:", right)

# %% check
assert strides(improved["matmul"])["i1_1"]["w"] == 1

# %% cell: race, varies
plain = relax.VirtualMachine(built, CPU)
whole = compare(
    {
        "as legalised": lambda: plain["main"](*arguments),
        "matmul by rows": lambda: better["main"](*arguments),
    },
    rounds=5,
)
whole.table()

# %% check
assert right
gain = whole.ratio("as legalised", "matmul by rows")
assert gain > 2
glue("gain", gain, varies=True)

# %% cell: roofline, varies
after = dict(measured)
after["matmul"] = seconds(rebuilt.mod.imports[0], "matmul")
fig, ax = new("text", 3.6)
intensity = np.logspace(-1.2, 2.2, 100)
for speed, label, at, shift in (
    (memory, "copy from memory", 3, (8, -12)),
    (cache, "copy from cache", 0.4, (8, -12)),
):
    roof = np.minimum(peak, speed * intensity) / 1e9
    ax.plot(intensity, roof, color=COLORS["navy"])
    ax.annotate(
        label,
        (at, min(peak, speed * at) / 1e9),
        shift,
        textcoords="offset points",
        color=COLORS["navy"],
    )
ax.annotate(
    "BLAS",
    (60, peak / 1e9),
    (0, 5),
    textcoords="offset points",
    color=COLORS["navy"],
)
for name in ("add", "softmax", "matmul"):
    flops, size = work(kernels[name])
    x, y = flops / size, flops / measured[name] / 1e9
    ax.plot(x, y, "o", color=INK)
    ax.annotate(name, (x, y), (7, -4), textcoords="offset points")
ax.plot(x, flops / after["matmul"] / 1e9, "o", color=COLORS["green"])
ax.annotate(
    "",
    (x, flops / after["matmul"] / 1e9),
    (x, y),
    arrowprops={"arrowstyle": "->", "color": MUTED},
)
ax.annotate(
    "by rows",
    (x, flops / after["matmul"] / 1e9),
    (7, -4),
    textcoords="offset points",
)
ax.set(
    xscale="log",
    yscale="log",
    xlabel="operations per byte",
    ylabel="billion operations a second",
)
ax.set_ylim(top=2 * peak / 1e9)
ax.grid(True)

# %% check
assert after["matmul"] < measured["matmul"] / 2

# %% cell: solution-cold, varies
for name, flush in (("hot", 0), ("cold", FLUSH)):
    timer = better.module.time_evaluator(
        "main", CPU, number=1, repeat=9, cache_flush_bytes=flush
    )
    print(f"{name:5} {1e6 * timer(*arguments).median:6.0f} µs")

# %% cell: solution-amdahl, varies
predicted = sum(after.values())
observed = whole["matmul by rows"].min_s
print(f"predicted {1e3 * predicted:.2f} ms, measured {1e3 * observed:.2f} ms")
kernels_s = sum(measured.values())
ceiling = kernels_s / (kernels_s - lost["matmul"])
print(f"a perfect matmul would make the model {ceiling:.1f} times as fast")

# %% check
assert predicted < kernels_s / 2
assert ceiling > 2
