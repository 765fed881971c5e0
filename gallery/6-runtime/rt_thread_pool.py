"""
The thread pool: one parallel loop at a time
============================================

What a parallel loop becomes, who runs which iterations, where the number of
threads comes from, and what the pool does to the thread that called it.
"""

# %% cell: lowered
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import tvm
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import timeline
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.passes import Span

ALL_CORES = os.sched_getaffinity(0)


@T.prim_func
def who(A: T.Buffer((16,), "int64")):
    for i in T.parallel(16):
        A[i] = T.call_packed("book.who", i)


@tvm.register_global_func("book.who")
def thread_id(i):
    return threading.get_native_id()


executable = tvm.compile(who.with_attr("global_symbol", "who"), "llvm")
for line in executable.mod.inspect_source("ll").splitlines():
    if "arallelLaunch" in line or "@__tvm_parallel_lambda" in line:
        print(line.strip().split(", !")[0].split(" #")[0])

# %% cell: iterations
kernel = executable["who"]


def fresh_thread(action, **environment):
    """Run an action in a new thread, which has no pool yet."""
    old = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    results = []

    def body():
        os.sched_setaffinity(0, ALL_CORES)
        results.append(action())

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    for name, value in old.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    return results[0]


def owners():
    """Number of the thread of each iteration; 0 is the calling one."""
    a = tvm.runtime.empty((16,), "int64")
    kernel(a)
    ids = [threading.get_native_id(), *a.numpy().tolist()]
    names = {name: n for n, name in enumerate(dict.fromkeys(ids))}
    return [names[i] for i in ids[1:]]


for number in ("1", "2"):
    print(number, fresh_thread(owners, TVM_NUM_THREADS=number))

# %% check
assert fresh_thread(owners, TVM_NUM_THREADS="1") == [0] * 16
if len(ALL_CORES) > 1:
    split = fresh_thread(owners, TVM_NUM_THREADS="2")
    assert split == [0] * 8 + [1] * 8

# %% cell: number, varies
count = tvm.runtime.num_threads
print("cores of this machine:", os.cpu_count())
print("threads by default:", fresh_thread(count))
for number in ("1", "2", "64"):
    used = fresh_thread(count, TVM_NUM_THREADS=number)
    print(f"TVM_NUM_THREADS={number}: {used}")

# %% cell: first-use


def change_later():
    """Change the variable after the pool was made."""
    first = count(), len(set(owners()))
    os.environ["TVM_NUM_THREADS"] = later
    return first, (count(), len(set(owners())))


for made, later in (("1", "2"), ("2", "1")):
    before, after = fresh_thread(change_later, TVM_NUM_THREADS=made)
    print(f"first {made}: {before}, then {later}: {after}")


def another_thread():
    """A pool here, and a pool in a thread started from here."""
    mine = count()
    os.environ["TVM_NUM_THREADS"] = "1"
    other = []
    thread = threading.Thread(target=lambda: other.append(count()))
    thread.start()
    thread.join()
    return mine, other[0]


print("in two threads:", fresh_thread(another_thread, TVM_NUM_THREADS="2"))

# %% check
assert fresh_thread(change_later, TVM_NUM_THREADS="2")[1][1] == 1
source = Path(tvm.__file__).parent / "src/runtime/thread_pool.cc"
spin = re.search(r"kDefaultSpinCount = (\d+)", source.read_text())[1]
glue("spin_count", int(spin))

# %% cell: configure
configure = tvm.get_global_func("runtime.config_threadpool")


def settings():
    """Numbers of threads after calls of config_threadpool."""
    seen = {"at first": count()}
    for mode, number in ((1, 1), (1, 8), (1, 0)):
        configure(mode, number)
        seen[f"({mode}, {number})"] = count()
    return seen


print(fresh_thread(settings, TVM_NUM_THREADS="2"))

# %% cell: pinned, varies


def cores_before_and_after():
    """The cores that this thread may use, around a harmless question."""
    before = os.sched_getaffinity(0)
    count()
    return len(before), len(os.sched_getaffinity(0))


ask = cores_before_and_after
print("one worker:", fresh_thread(ask, TVM_NUM_THREADS="1"))
free = fresh_thread(ask, TVM_NUM_THREADS="1", TVM_BIND_THREADS="0")
print("one worker, TVM_BIND_THREADS=0:", free)

# %% check
pinned = fresh_thread(ask, TVM_NUM_THREADS="1")
assert pinned == (len(ALL_CORES), 1) and free[0] == free[1]

# %% cell: spinning, varies


def idle_cost():
    """CPU time of this process while it does nothing after a kernel."""
    owners()
    start = time.process_time()
    time.sleep(0.3)
    return time.process_time() - start


spinning = fresh_thread(idle_cost, TVM_NUM_THREADS="2")
print(f"300 ms of sleep cost {1e3 * spinning:.0f} ms of CPU")

# %% check
glue("spin_ms", 1e3 * spinning, varies=True)

# %% cell: errors


@tvm.register_global_func("book.fail")
def fail(i):
    if i in (5, 9):
        raise KeyError(int(i))
    return 0


@T.prim_func
def failing(A: T.Buffer((16,), "int64")):
    for i in T.parallel(16):
        A[i] = T.call_packed("book.fail", i)


broken = tvm.compile(failing.with_attr("global_symbol", "failing"), "llvm")
values = tvm.runtime.empty((16,), "int64")


def outcome():
    """What the caller of a failing parallel loop gets."""
    try:
        broken["failing"](values)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


for number in ("1", "2"):
    print(f"{number}:", fresh_thread(outcome, TVM_NUM_THREADS=number))

# %% check
assert fresh_thread(outcome, TVM_NUM_THREADS="1") == "no error"
if len(ALL_CORES) > 1:
    seen = fresh_thread(outcome, TVM_NUM_THREADS="2")
    assert seen.startswith("RuntimeError: Task 1 error"), seen

# %% cell: nested


@T.prim_func
def nested(A: T.Buffer((4, 4), "float32")):
    for i in T.parallel(4):
        for j in T.parallel(4):
            A[i, j] = T.float32(1)


with expect_error(tvm.error.InternalError, match="Nested parallel loop"):
    tvm.compile(nested.with_attr("global_symbol", "nested"), "llvm")

# %% cell: nested-call


def nested_call():
    """A parallel loop that calls, by name, a kernel with another one."""
    import os
    import threading

    import tvm
    from tvm.script import tirx as T

    @T.prim_func
    def inner(A: T.Buffer((16,), "int64")):
        for i in T.parallel(16):
            A[i] = T.int64(1)

    @T.prim_func
    def outer(A: T.Buffer((4,), "int64")):
        for i in T.parallel(4):
            A[i] = T.call_packed("book.inner", i)

    mod = tvm.IRModule(
        {
            f.attrs["global_symbol"]: f
            for f in (
                inner.with_attr("global_symbol", "inner"),
                outer.with_attr("global_symbol", "outer"),
            )
        }
    )
    library = tvm.compile(mod, "llvm")
    inner, outer = library["inner"], library["outer"]

    @tvm.register_global_func("book.inner")
    def call_inner(i):
        inner(tvm.runtime.empty((16,), "int64"))
        return 0

    thread = threading.Thread(
        target=outer, args=[tvm.runtime.empty((4,), "int64")], daemon=True
    )
    thread.start()
    thread.join(2)
    print("running after 2 s:", thread.is_alive(), flush=True)
    os._exit(0)


for number in ("1", "2"):
    ended = run_isolated(nested_call, env={"TVM_NUM_THREADS": number})
    print(f"{number}:", *ended.stdout.splitlines())

# %% check
if len(ALL_CORES) > 1:
    assert ended.stdout.strip().endswith("True"), ended

# %% cell: two-callers, varies


@T.prim_func
def busy(A: T.Buffer((2, 256), "float32")):
    for i in T.parallel(2):
        T.evaluate(T.call_packed("book.begin", i))
        for _ in range(300000):
            for k in T.vectorized(256):
                A[i, k] = A[i, k] * T.float32(0.999) + T.float32(0.5)
        T.evaluate(T.call_packed("book.end", i))


spans, began, callers = [], {}, set()
lock = threading.Lock()


@tvm.register_global_func("book.begin")
def begin(i):
    began[threading.get_native_id()] = time.perf_counter()


@tvm.register_global_func("book.end")
def end(i):
    me = threading.get_native_id()
    with lock:
        spans.append((me, began[me], time.perf_counter()))


work = tvm.compile(busy.with_attr("global_symbol", "busy"), "llvm")["busy"]
barrier = threading.Barrier(2)


def serve():
    """Twice a parallel kernel, each time together with the other thread."""
    data = tvm.runtime.tensor(np.zeros((2, 256), "float32"))
    callers.add(threading.get_native_id())
    for _ in range(2):
        barrier.wait()
        work(data)


def two_callers():
    threads = [threading.Thread(target=serve) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


fresh_thread(two_callers, TVM_NUM_THREADS="2")
zero = min(start for _, start, _ in spans)
rows = {me: n for n, me in enumerate(dict.fromkeys(s[0] for s in spans))}
bars = [
    Span(
        "caller" if me in callers else "worker",
        1e3 * (a - zero),
        1e3 * (b - a),
        rows[me],
    )
    for me, a, b in spans
]
fig, ax = timeline(bars, title="Two callers, a pool for each")
ax.set_ylabel("thread")

# %% check
used = len(rows)
if len(ALL_CORES) > 1:
    assert used == 4, rows

# %% cell: solution-chunks


def chunk(task, tasks, extent):
    """First and last iteration of a task, as the lambda computes them."""
    step = -(-extent // tasks)
    return min(task * step, extent), min((task + 1) * step, extent)


for tasks in (2, 3, 5):
    chunks = [chunk(t, tasks, 16) for t in range(tasks)]
    print(tasks, chunks, "longest:", max(b - a for a, b in chunks))

# %% check
assert [chunk(t, 2, 16) for t in range(2)] == [(0, 8), (8, 16)]
assert chunk(4, 5, 16) == (16, 16)

# %% cell: solution-affinity, varies


def guarded(action):
    """Run something that may start the pool, and undo the pinning."""
    before = os.sched_getaffinity(0)
    try:
        return action()
    finally:
        os.sched_setaffinity(0, before)


def guarded_cores():
    guarded(count)
    return len(os.sched_getaffinity(0))


print("cores after:", fresh_thread(guarded_cores, TVM_NUM_THREADS="1"))

# %% check
assert fresh_thread(guarded_cores, TVM_NUM_THREADS="1") == len(ALL_CORES)
