"""
Measuring: builders and runners
===============================

How a candidate becomes a file, and the file a time: processes, time limits,
failures, other machines, and noise.
"""

# gallery: timeout=300

# %% cell: setup
import socket
import tarfile
import time
from pathlib import Path

import numpy as np
import tvm
from tvm import rpc
from tvm.ir.utils import derived_object
from tvm.rpc.server import Server
from tvm.rpc.tracker import Tracker
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.builder import BuilderInput, LocalBuilder
from tvm.s_tir.meta_schedule.runner import (
    EvaluatorConfig,
    LocalRunner,
    RPCConfig,
    RPCRunner,
    RunnerInput,
)
from tvm.s_tir.meta_schedule.runner.local_runner import (
    default_alloc_argument,
    default_run_evaluator,
)
from tvm.script import tirx as T

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.bench import cpu_timer
from tvm_deepdive_helpers.figures import alt, new
from tvm_deepdive_helpers.tuning import host_target, one_thread, tune

one_thread()
TARGET = host_target()
N = 64


@T.prim_func(s_tir=True)
def gemm(
    A: T.Buffer((N, N), "float32"),
    B: T.Buffer((N, N), "float32"),
    C: T.Buffer((N, N), "float32"),
):
    T.func_attr({"tirx.noalias": True})
    for i, j, k in T.grid(N, N, N):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


def calls(name, *args):
    """A function with the arguments of `gemm` that calls one of libc."""

    @T.prim_func(s_tir=True)
    def main(
        A: T.Buffer((N, N), "float32"),
        B: T.Buffer((N, N), "float32"),
        C: T.Buffer((N, N), "float32"),
    ):
        T.evaluate(T.call_extern("int32", name, *args))

    return tvm.IRModule({"main": main})


good = tvm.IRModule({"main": gemm.with_attr("global_symbol", "main")})

# %% cell: builder


def plain_build(mod, target, params):
    """What the default does, without importing the intrinsics."""
    if "refuse" in mod["main"].attrs:
        raise ValueError("the compiler gives up")
    if "hang" in mod["main"].attrs:
        time.sleep(60)
    return tvm.tirx.build(mod, target=target)


builder = LocalBuilder(max_workers=1, timeout_sec=6, f_build=plain_build)
refused = good.clone()
refused["main"] = gemm.with_attr("refuse", 1)
hanging = good.clone()
hanging["main"] = gemm.with_attr("hang", 1)
answers = builder.build(
    [BuilderInput(mod, TARGET) for mod in (good, refused, hanging, good)]
)
for answer in answers:
    path, error = answer.artifact_path, answer.error_msg
    print(path.split("/")[-1] if path else error.strip().split("\n")[-1])
print(answers[1].error_msg.split("\n")[0])

# %% check
assert [a.error_msg is None for a in answers] == [True, False, False, True]
assert "gives up" in answers[1].error_msg
assert "Timeout" in answers[2].error_msg

# %% cell: artifact
first = answers[0].artifact_path
with tarfile.open(first) as archive:
    print(archive.getnames())
folders = {Path(a.artifact_path).parent for a in answers if a.artifact_path}
print(len(folders), "folders, not below the working folder")
loaded = tvm.runtime.load_module(first)
print(type(loaded).__name__, loaded.kind)

# %% cell: no-such-name
try:
    LocalBuilder(max_workers=1, f_build="book.no_such_function")
except ValueError as err:
    print(str(err).strip().split("\n")[-1])
else:
    raise AssertionError("an unknown name was accepted")

# %% cell: runner
runner = LocalRunner(
    timeout_sec=10, evaluator_config=EvaluatorConfig(2, 3, 0), alloc_repeat=2
)
args_info = ArgInfo.from_prim_func(gemm)
future = runner.run([RunnerInput(first, "cpu", args_info)])[0]
answer = future.result()
print(type(future).__name__, future.done(), answer.error_msg)
print(len(answer.run_secs), "times")

# %% check
assert len(answer.run_secs) == 3 * 2

# %% cell: counting


@T.prim_func(s_tir=True)
def tick(A: T.Buffer((1,), "float32")):
    with T.sblock("tick"):
        A[0] = A[0] + T.float32(1)


clicks = tvm.compile(tick, target=TARGET)["main"]
counting = tvm.compile(tick.with_attr("global_symbol", "main"), TARGET)


def calls_of(*config):
    """How often the kernel runs, and how many times come out."""
    counter = tvm.runtime.tensor(np.zeros(1, "float32"))
    times = default_run_evaluator(
        counting.mod, tvm.cpu(), EvaluatorConfig(*config), [[counter]]
    )
    return int(counter.numpy()[0]), len(times)


print("defaults:", EvaluatorConfig())
print("number 1, repeat 1, min_repeat_ms 0:", calls_of(1, 1, 0))
print("number 3, repeat 2, min_repeat_ms 0:", calls_of(3, 2, 0))

# %% cell: stretched, varies
print("number 3, repeat 1, min_repeat_ms 1:", calls_of(3, 1, 1))

# %% check
assert calls_of(1, 1, 0) == (2, 1) and calls_of(3, 2, 0) == (7, 2)
assert max(calls_of(3, 1, 1)[0] for _ in range(5)) > 100

# %% cell: arguments
kinds = [["TENSOR", dtype, [6]] for dtype in ("float32", "int8", "int32")]
filled = [v.numpy() for v in default_alloc_argument(tvm.cpu(), kinds, 1)[0]]

# %% cell: arguments-seen, varies
for array in filled:
    print(f"{array.dtype!s:8s} {array.min():.4g} to {array.max():.4g}")

# %% check
assert array.dtype == "int32" and array.min() > 1e9

# %% cell: sabotage
BAD = {
    2: ("does not build", refused),
    3: ("calls abort", calls("abort")),
    4: ("sleeps for a minute", calls("sleep", 60)),
}


@derived_object
class Sabotage(ms.builder.PyBuilder):
    """Hand on to another builder, with some modules replaced."""

    def __init__(self, inner, bad):
        super().__init__()
        self._inner, self._bad = inner, bad

    def build(self, build_inputs):
        inputs = list(build_inputs)
        for at, (_, mod) in self._bad.items():
            inputs[at] = BuilderInput(mod, inputs[at].target)
        return self._inner.build(inputs)


@derived_object
class Lessons(ms.cost_model.PyCostModel):
    """A cost model that notes what it is taught."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def update(self, context, candidates, results):
        self.seen += [r.error_msg is None for r in results]

    def predict(self, context, candidates):
        return np.zeros(len(candidates))


# %% cell: failures
lessons = Lessons()
run = tune(
    gemm,
    TARGET,
    trials=6,
    batch=6,
    strategy="replay-trace",
    builder=Sabotage(builder, BAD),
    runner=runner,
    cost_model=lessons,
)
records = run.database.get_all_tuning_records()
for number, (trial, record) in enumerate(
    zip(run.trials, records, strict=True)
):
    what, _ = BAD.get(number, ("good", None))
    lines = (trial.error or "").strip().split("\n")
    seconds = [float(second) for second in record.run_secs]
    kept = seconds if trial.error else f"{len(seconds)} times"
    print(f"{what:20s}{kept!s:17s}{lines[-1]}")

# %% cell: after-failures
top = run.database.get_top_k(records[0].workload, 10)
print(len(records), "records, of which can be best:", len(top))
print("taught to the model:", lessons.seen)

# %% check
ok = [True, True, False, False, False, True]
assert [t.error is None for t in run.trials] == ok
assert len(top) == 3 and "Timeout" in run.trials[4].error
assert [float(r.run_secs[0]) == 1e10 for r in records] == [not k for k in ok]
assert lessons.seen == [True, True, False, False, True]

# %% cell: noise, varies
kernel = tvm.compile(good, target=TARGET)
args = default_alloc_argument(
    tvm.cpu(), [info.as_json() for info in args_info], 1
)
once = EvaluatorConfig(number=1, repeat=400, min_repeat_ms=0)
wall = np.sort(default_run_evaluator(kernel.mod, tvm.cpu(), once, args))
clock = cpu_timer(lambda: kernel["main"](*args[0]))
own = np.sort([clock() for _ in range(400)])
for name, times in (("wall clock", wall), ("processor time", own)):
    least, middle, most = times[[0, 200, -1]] / times[0]
    print(f"{name:15s}{least:6.2f}{middle:6.2f}{most:8.2f}")

# %% cell: noise-figure, varies
fig, ax = new(height=2.8)
share = np.arange(400) / 4
ax.plot(share, wall / wall[0], label="wall clock")
ax.plot(share, own / own[0], label="processor time of the thread")
ax.set_yscale("log")
ax.set_xlabel("% of the samples are at most")
ax.set_ylabel("times the fastest")
ax.legend()
alt(
    fig,
    "Two curves of sorted samples. Both are flat near one and rise at the "
    "right end, the wall clock higher than the processor time.",
)

# %% cell: wrong-winner, varies
chance = np.random.default_rng(0)


def wrong(times, summary, size, slower=1.1, rounds=4000):
    """How often a kernel that is slower by a tenth looks faster."""
    fast = summary(chance.choice(times, (rounds, size)), axis=1)
    slow = summary(chance.choice(times, (rounds, size)) * slower, axis=1)
    return np.mean(slow < fast)


for name, summary in (
    ("mean", np.mean),
    ("median", np.median),
    ("minimum", np.min),
):
    rates = [wrong(wall, summary, size) for size in (1, 3, 10)]
    print(f"{name:8s}", *(f"{rate:6.1%}" for rate in rates))
glue("wrong-one", 100 * wrong(wall, np.mean, 1), varies=True)
glue("wrong-min", 100 * wrong(wall, np.min, 10), varies=True)

# %% check
assert wrong(wall, np.min, 10) <= wrong(wall, np.mean, 1) + 0.02

# %% cell: which-number
pair = [[1.0, 1.1, 9.0], [2.0, 2.0, 2.0]]
memory = ms.database.MemoryDatabase()
trace = records[0].trace
for times in pair:
    memory.commit_tuning_record(
        ms.database.TuningRecord(
            trace, records[0].workload, times, TARGET, args_info
        )
    )
(best,) = memory.get_top_k(records[0].workload, 1)
print("the database prefers", [float(t) for t in best.run_secs])
print("medians:", [float(np.median(times)) for times in pair])

# %% check
assert [float(t) for t in best.run_secs] == pair[1]

# %% cell: farm
HOST = "127.0.0.1"


def start(kind, **options):
    """Start a tracker or a server on a free port, or on one behind it."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    return kind(HOST, port=port, port_end=port + 99, silent=True, **options)


def free():
    """How many servers wait for work."""
    queue = devices.summary()["queue_info"].get("board", {})
    return queue.get("free", 0)


def wait_for(count, limit=60.0):
    """Wait until so many servers are free."""
    end = time.monotonic() + limit
    while free() != count:
        if time.monotonic() > end:
            raise TimeoutError(devices.summary())
        time.sleep(0.05)


tracker = start(Tracker)
address = (HOST, tracker.port)
servers = [start(Server, tracker_addr=address, key="board") for _ in range(2)]
devices = rpc.connect_tracker(*address)
wait_for(2)
config = RPCConfig(*address, "board", session_timeout_sec=15)
print(config.count_num_servers(), "servers;", devices.summary()["queue_info"])

# %% cell: two-at-a-time
remote = RPCRunner(
    config,
    EvaluatorConfig(number=1, repeat=1, min_repeat_ms=0),
    max_workers=config.count_num_servers(),
)
kernels = [("sleep", 2), ("sleep", 2), ("sleep", 60), ("abort",)]
made = builder.build(
    [BuilderInput(calls(*kernel), TARGET) for kernel in kernels]
)
tries = [first, first, made[0].artifact_path, made[1].artifact_path]
items = [RunnerInput(path, "cpu", args_info) for path in tries]
results = [future.result() for future in remote.run(items[:2])]
wait_for(2)
futures = remote.run(items[2:])
print("done at once:", [future.done() for future in futures])
wait_for(0)
print("both servers are busy")
results += [future.result() for future in futures]
print("seconds:", [round(float(r.run_secs[0])) for r in results])
wait_for(2)

# %% check
assert not any(result.error_msg for result in results)

# %% cell: remote-failures, varies
paths = [made[2].artifact_path, first, made[3].artifact_path, first]
futures = remote.run([RunnerInput(p, "cpu", args_info) for p in paths])
order = ("sleep", "good", "abort", "good")
for name, future in zip(order, futures, strict=True):
    result = future.result()
    lines = (result.error_msg or "a time").strip().split("\n")
    print(f"{name:6s} {lines[-1]}")
    assert (result.error_msg is None) == (name == "good")

# %% cell: one-left
time.sleep(2)
wait_for(1)
print("servers that still answer:", free(), "of", len(servers))

# %% check
remote.pool.shutdown()
for server in servers:
    server.terminate()
tracker.terminate()

# %% cell: solution-cold
flush = tvm.get_global_func("cache_flush_cpu_non_first_arg")
big = tvm.runtime.tensor(np.ones(100_000, "float32"))
flush(big, big)  # all but the first


def preparations(number, repeat):
    """How often the preparation runs, and how often the kernel."""
    seen = []
    tvm.register_global_func("book.prepare", seen.append, override=True)
    counter = tvm.runtime.tensor(np.zeros(1, "float32"))
    counting.mod.time_evaluator(
        "main", tvm.cpu(), number, repeat, f_preproc="book.prepare"
    )(counter)
    return len(seen), int(counter.numpy()[0])


print("number 3, repeat 2:", preparations(3, 2))
print("number 1, repeat 6:", preparations(1, 6))
assert preparations(3, 2) == (2, 7) and preparations(1, 6) == (6, 7)

# %% cell: solution-indices
ROWS = 64


@T.prim_func(s_tir=True)
def gather(
    table: T.Buffer((ROWS,), "float32"),
    at: T.Buffer((8,), "int32"),
    out: T.Buffer((8,), "float32"),
):
    for i in range(8):
        with T.sblock("out"):
            v = T.axis.spatial(8, i)
            out[v] = table[at[v]]


def with_indices(device, args_info, alloc_repeat):
    """Arguments whose integers are rows of the table."""
    repeated = default_alloc_argument(device, args_info, alloc_repeat)
    for args in repeated:
        for arg in args:
            if arg.dtype == "int32":
                rows = np.random.randint(0, ROWS, arg.shape, "int32")
                arg.copyfrom(rows)
    return repeated


info = ArgInfo.from_prim_func(gather)
module = tvm.IRModule({"main": gather.with_attr("global_symbol", "main")})
(made,) = builder.build([BuilderInput(module, TARGET)])
item = RunnerInput(made.artifact_path, "cpu", info)
quick = EvaluatorConfig(1, 1, 0)
careful = LocalRunner(60, quick, f_alloc_argument=with_indices)
careless = LocalRunner(60, quick)
for name, one in (("ours", careful), ("default", careless)):
    result = one.run([item])[0].result()
    print(f"{name:8s}", (result.error_msg or "a time").split("\n")[-1])
    assert (result.error_msg is None) == (name == "ours")

# %% check
for one in (runner, careful, careless):
    one.pool.shutdown()
