"""
The virtual machine: four instructions
======================================

What the graph executor was, how bytecode is built, read and run, a loop and
a recursion, a profiler in twenty lines, and what runs at the same time.
"""

# %% cell: then
import itertools
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import compare
from tvm_deepdive_helpers.figures import (
    bar_chart,
    boxes_and_arrows,
    timeline,
)
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.native import libraries_on_stack
from tvm_deepdive_helpers.passes import Span
from tvm_deepdive_helpers.recorded import data, read_csv
from tvm_deepdive_helpers.running_example import (
    MLP,
    arguments,
    as_tensors,
    reference,
)

ROOMS = ("graph_executor", "aot_executor", "relax_vm", "vm")
for row in read_csv(data("tvm_rooms.csv")):
    folder, _, name = row["room"].rpartition("/")
    if folder == "src/runtime" and name in ROOMS:
        print(f"{row['room']:28} {row['first']:8} to {row['last']}")
with expect_error(ModuleNotFoundError):
    import tvm.contrib.graph_executor

# %% cell: stateful
mlp = tvm.compile(MLP, "llvm")
vm = relax.VirtualMachine(mlp, tvm.cpu())
x, w1, b1, w2, b2 = inputs = arguments(seed=0)
vm.set_input("main", x, w1, b1, w2=w2, b2=b2)
vm.invoke_stateful("main")
y = vm.get_outputs("main")
print(y.shape, np.allclose(y.numpy(), reference(*inputs), atol=1e-3))
with expect_error(ValueError, match="No inputs set"):
    relax.VirtualMachine(mlp, tvm.cpu()).invoke_stateful("main")

# %% check
assert np.allclose(y.numpy(), reference(*inputs), atol=1e-3)

# %% cell: encoding
b = relax.ExecBuilder()
b.declare_function("kernel")
words = {
    "register 2": b.r(2),
    "number 5": b.imm(5),
    "number -3": b.imm(-3) & (1 << 64) - 1,
    "constant 0": b.convert_constant("float32"),
    "function 0": b.f("kernel"),
    "%void": b.void_arg(),
    "%vm": b.vm_state(),
}
for name, word in words.items():
    print(f"{name:12}{word:#018x}")

# %% check
assert words["number 5"] >> 56 == 1 and words["function 0"] >> 56 == 3

# %% cell: parts-figure
fig, _ = boxes_and_arrows(
    {
        "code": (0, 0),
        "functions": (0, 1),
        "constants": (0, 2),
        "frames": (1.05, 0),
        "func_pool": (1.05, 1),
        "const_pool": (1.05, 2),
        "libs": (2.1, 1),
        "result": (2.1, 0),
    },
    {
        ("frames", "code"): "pc_",
        ("functions", "func_pool"): "looked up",
        ("constants", "const_pool"): "moved",
        ("func_pool", "libs"): "found in",
        ("frames", "result"): "ret",
    },
    labels={
        "code": "instr_data\n64-bit words",
        "functions": "func_table\nnames, kinds, sizes",
        "constants": "constants",
        "frames": "frames_\nregisters of each call",
        "func_pool": "func_pool_\nFunction or VMClosure",
        "const_pool": "const_pool_\non the first device",
        "libs": "kernel library,\nglobal registry",
        "result": "return_value_",
    },
    groups={
        "VMExecutable: can be saved": ["code", "functions", "constants"],
        "VirtualMachine": ["frames", "func_pool", "const_pool"],
    },
    colors={"libs": "purple", "result": "vermilion"},
    title="The program, and the machine that runs it",
)

# %% cell: dynamic


@I.ir_module
class Flatten:
    @R.function
    def main(
        x: R.Tensor(("n", 4), "float32"),
    ) -> R.Tensor(("n * 4",), "float32"):
        n = T.int64()
        with R.dataflow():
            y = R.reshape(x, (n * 4,))
            z = R.nn.relu(y)
            R.output(z)
        return z


flatten = tvm.compile(Flatten, "llvm")
listing = flatten.as_text()
print(listing[: listing.index("\n\n")])

# %% cell: heap
heap_after = []


def watch_heap(func, name, before, result, *operands):
    """After each call that was given the shape heap, note its content."""
    for value in operands:
        if not before and getattr(value, "dtype", "") == "int64":
            heap_after.append((str(name), value.numpy().tolist()))


vm = relax.VirtualMachine(flatten, tvm.cpu())
vm.set_instrument(watch_heap)
result = vm["main"](tvm.runtime.tensor(np.ones((3, 4), "float32")))
for name, content in heap_after:
    known = [v if v in (3, 12, 48) else "?" for v in content]
    print(f"{name:28}", *known)
print(result.shape)

# %% check
assert [3, 12, 48] in [content for _, content in heap_after]
assert result.shape == (12,)

# %% cell: wrong-arguments
four_by_3 = tvm.runtime.tensor(np.ones((4, 3), "float32"))
doubles = tvm.runtime.tensor(np.ones((3, 4), "float64"))
with expect_error(tvm.error.InternalError, match="expects 1 arguments"):
    vm["main"](four_by_3, four_by_3)
with expect_error(ValueError, match="dtype float32 but get float64"):
    vm["main"](doubles)
with expect_error(RuntimeError, match="mismatch to specified constant"):
    vm["main"](four_by_3)

# %% cell: missing-function
b = relax.ExecBuilder()
with b.function("f", num_inputs=0):
    b.emit_call("book.nowhere", [], dst=b.r(0))
    b.emit_ret(b.r(0))
with expect_error(tvm.error.InternalError, match="Cannot find ffi::Func"):
    relax.VirtualMachine(b.get(), tvm.cpu())

# %% cell: branch


@I.ir_module
class Choose:
    @R.function
    def main(
        c: R.Tensor((), "bool"), x: R.Tensor((2,), "float32")
    ) -> R.Tensor((2,), "float32"):
        if c:
            y = R.add(x, x)
        else:
            y = R.multiply(x, x)
        return y


choose = tvm.compile(Choose, "llvm")
listing = choose.as_text()
for number, line in enumerate(listing[: listing.index("\n\n")].split("\n")):
    if number > 3:
        print(f"{number - 1:2}{line}")
vm = relax.VirtualMachine(choose, tvm.cpu())
three = tvm.runtime.tensor(np.full(2, 3, "float32"))
for condition in (True, False):
    flag = tvm.runtime.tensor(np.array(condition))
    print(condition, vm["main"](flag, three))

# %% check
assert vm["main"](flag, three).numpy()[0] == 9

# %% cell: loop


@T.prim_func
def halve(A: T.Buffer((8,), "float32")):
    for i in range(8):
        A[i] = A[i] * T.float32(0.5)


@T.prim_func
def above_one(A: T.Buffer((8,), "float32"), B: T.Buffer((), "bool")):
    B[()] = A[0] > T.float32(1)


kernels = {"halve": halve, "above_one": above_one}
named = {k: f.with_attr("global_symbol", k) for k, f in kernels.items()}
library = tvm.compile(tvm.IRModule(named), "llvm").mod

b = relax.ExecBuilder()
text = b.convert_constant
with b.function("shrink", num_inputs=1):
    storage = [b.vm_state(), (1,), b.imm(0), text("uint8"), text("global")]
    b.emit_call("vm.builtin.alloc_storage", storage, dst=b.r(1))
    scalar = [b.r(1), b.imm(0), (), text("bool")]
    b.emit_call("vm.builtin.alloc_tensor", scalar, dst=b.r(2))
    b.emit_call("above_one", [b.r(0), b.r(2)])  # the loop begins here
    b.emit_call("vm.builtin.read_if_cond", [b.r(2)], dst=b.r(3))
    b.emit_if(b.r(3), 3)
    b.emit_call("halve", [b.r(0)])
    b.emit_goto(-4)
    b.emit_ret(b.r(0))
link = tvm.get_global_func("relax.VMLink")
llvm = tvm.target.Target("llvm")
shrink = relax.VMExecutable(link(b, llvm, library, [], {}))
print(shrink.as_text().split("\n\n")[0])
vm = relax.VirtualMachine(shrink, tvm.cpu())
print(vm["shrink"](tvm.runtime.tensor(np.full(8, 40, "float32"))))

# %% check
small = vm["shrink"](tvm.runtime.tensor(np.full(8, 40, "float32")))
assert (small.numpy() == 40 / 2**6).all()

# %% cell: recursion


@I.ir_module
class Down:
    @R.function(pure=False)
    def down(n: R.Tensor((), "int64")) -> R.Tensor((), "int64"):
        cls = Down
        more = R.greater(n, R.const(0, "int64"))
        _ = R.call_packed("book.depth", n, ty_args=(R.Tuple(),))
        if more:
            less = R.subtract(n, R.const(1, "int64"))
            out = cls.down(less)
        else:
            out = n
        return out


depths = []


@tvm.register_global_func("book.depth")
def depth(n):
    """Count the frames of the runtime below us."""
    frames = libraries_on_stack(2000)
    depths.append(frames.count("libtvm_runtime.so"))
    if n.numpy() == 99:
        raise ValueError("99")


vm = relax.VirtualMachine(tvm.compile(Down, "llvm"), tvm.cpu())
vm["down"](tvm.runtime.tensor(np.array(4)))
print("frames of libtvm_runtime:", depths)
per_call = {deep - less for less, deep in itertools.pairwise(depths)}
with expect_error(ValueError, match="99"):
    vm["down"](tvm.runtime.tensor(np.array(100)))
depths.clear()
vm["down"](tvm.runtime.tensor(np.array(0)))
print("after an error, at depth 0:", depths)

# %% check
assert len(per_call) == 1 and len(depths) == 1
glue("frames_per_call", per_call.pop())

# %% cell: too-deep


def too_deep():
    """A call of itself, without an end."""
    import tvm
    from tvm import relax

    b = relax.ExecBuilder()
    with b.function("f", num_inputs=0):
        b.emit_call("f", [], dst=b.r(0))
        b.emit_ret(b.r(0))
    relax.VirtualMachine(b.get(), tvm.cpu())["f"]()


print(run_isolated(too_deep).describe())

# %% cell: profile


class Profiler:
    """Times of each function that the machine calls, in nanoseconds."""

    def __init__(self):
        self.times, self.begin = defaultdict(list), 0

    def __call__(self, func, name, before, result, *operands):
        if before:
            self.begin = time.perf_counter_ns()
        else:
            ns = time.perf_counter_ns() - self.begin
            self.times[str(name)].append(ns)


vm = relax.VirtualMachine(mlp, tvm.cpu())
args = as_tensors(inputs)
vm["main"](*args)
print("vm.profile exists:", hasattr(vm, "profile"))
profiler, RUNS = Profiler(), 50
vm.set_instrument(profiler)
for _ in range(RUNS):
    vm["main"](*args)

# %% cell: profile-figure, varies
micro = {
    f"{name} ({len(ns) // RUNS})": np.median(ns) * len(ns) / RUNS / 1e3
    for name, ns in profiler.times.items()
}
micro = dict(sorted(micro.items(), key=lambda item: -item[1]))
fig, _ = bar_chart(
    micro, unit="µs in one run", title="Running example, calls in brackets"
)

# %% check
glue(
    "matmul_share",
    100 * micro["matmul (1)"] / sum(micro.values()),
    varies=True,
)
assert next(iter(micro)) == "matmul (1)", micro
glue("calls_per_run", sum(map(len, profiler.times.values())) // RUNS)

# %% cell: skip
vm.set_instrument(
    lambda func, name, before, *rest: (
        relax.VMInstrumentReturnKind.SKIP_RUN
        if before and name == "relu"
        else relax.VMInstrumentReturnKind.NO_OP
    )
)
without = vm["main"](*args).numpy()
print("relu skipped, result changed:", not np.allclose(without, y.numpy()))

# %% cell: saved
timed = relax.VirtualMachine(mlp, tvm.cpu())
timed.save_function("main", "saved", *args, include_return=False)
print("returns", timed["saved"]())
runs = Counter()
timed.set_instrument(
    lambda func, name, before, *rest: runs.update([str(name)] * before)
)
evaluate = timed.time_evaluator("saved", tvm.cpu(), number=2, repeat=3)
print(len(evaluate().results), "times from", runs["matmul"], "runs")

# %% check
assert runs["matmul"] == 1 + 2 * 3

# %% cell: compiled, varies
executables = {
    mode: relax.build(MLP, "llvm", exec_mode=mode)
    for mode in ("bytecode", "compiled")
}
print(executables["compiled"].as_text().rstrip())
machines = {
    mode: relax.VirtualMachine(executable, tvm.cpu())
    for mode, executable in executables.items()
}
modes = compare(
    {k: lambda f=m["main"]: f(*args) for k, m in machines.items()}, number=200
)
modes.table()

# %% check
same = [m["main"](*args).numpy() for m in machines.values()]
assert np.array_equal(*same)
glue("compiled_ratio", modes.ratio("bytecode", "compiled"), varies=True)
glue("run_us", 1e6 * modes["bytecode"].min_s, varies=True)

# %% cell: independent


@I.ir_module
class Fork:
    @R.function
    def main(x: R.Tensor((256, 256), "float32")) -> R.Tuple(
        R.Tensor((256, 256), "float32"), R.Tensor((256, 256), "float32")
    ):
        with R.dataflow():
            left = R.matmul(x, x)  # these two do not
            right = R.matmul(x, R.permute_dims(x))  # need each other
            both = (left, right)
            R.output(both)
        return both


fork = tvm.compile(Fork, "llvm")
big = tvm.runtime.tensor(
    np.random.default_rng(0).random((256, 256), "float32")
)


def spans_of(machine, row, zero):
    """Run once, and return when each kernel ran."""
    spans, begin = [], [0.0]

    def watch(func, name, before, *rest):
        now = 1e3 * (time.perf_counter() - zero)
        if before:
            begin[0] = now
        elif not str(name).startswith("vm."):
            spans.append(Span(str(name), begin[0], now - begin[0], row))

    machine.set_instrument(watch)
    machine["main"](big)
    return spans


machine = relax.VirtualMachine(fork, tvm.cpu())
machine["main"](big)
alone = spans_of(machine, 0, time.perf_counter())
ends = [span.start_ms + span.ms for span in alone]
waits = [s.start_ms >= end for s, end in zip(alone[1:], ends, strict=False)]
print(len(alone), "kernels, each after the one before:", all(waits))

# %% check
assert all(waits) and len(alone) == 3

# %% cell: threads, varies
local = threading.local()
barrier = threading.Barrier(2)


def serve(row):
    """Run in this thread, on a machine that only this thread uses."""
    if not hasattr(local, "machine"):
        local.machine = relax.VirtualMachine(fork, tvm.cpu())
    barrier.wait()
    return spans_of(local.machine, row, zero)


with ThreadPoolExecutor(2) as pool:
    list(pool.map(lambda _: barrier.wait(), range(2)))
    zero = time.perf_counter()
    first, second = pool.map(serve, range(2))
fig, ax = timeline([*first, *second], title="Two machines, two threads")
ax.set_ylabel("thread")

# %% check
assert first[0].start_ms < second[-1].start_ms + second[-1].ms
assert second[0].start_ms < first[-1].start_ms + first[-1].ms

# %% cell: solution-nan


@I.ir_module
class Unstable:
    @R.function
    def main(x: R.Tensor((4,), "float32")) -> R.Tensor((4,), "float32"):
        with R.dataflow():
            a = R.subtract(x, R.const(1.0))
            b = R.log(a)
            c = R.tanh(b)
            R.output(c)
        return c


def first_nan(func, name, before, result, *operands):
    """Stop at the first kernel whose output holds a NaN."""
    if before or str(name).startswith("vm."):
        return
    if np.isnan(operands[-1].numpy()).any():
        raise ArithmeticError(f"NaN from {name}, input {operands[0]}")


vm = relax.VirtualMachine(tvm.compile(Unstable, "llvm"), tvm.cpu())
vm.set_instrument(first_nan)
with expect_error(RuntimeError, match="NaN from tir_log"):
    vm["main"](tvm.runtime.tensor(np.array([3, 2, 0.5, 1], "float32")))

# %% cell: solution-steps
counted = Counter()
vm = relax.VirtualMachine(shrink, tvm.cpu())
vm.set_instrument(
    lambda func, name, before, *rest: counted.update([str(name)] * before)
)
for start in (1, 40):
    counted.clear()
    vm["shrink"](tvm.runtime.tensor(np.full(8, start, "float32")))
    print(f"from {start:2}: {counted.total():2} calls,", end=" ")
    print(counted["halve"], "times halve")

# %% check
assert counted["halve"] == 6 and counted.total() == 2 + 7 * 2 + 6
