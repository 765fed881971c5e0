"""The checks of the project "Performance tuning": a schedule for a dense layer, against the naive one and numpy."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import s_tir
from tvm.script import tirx as T
from tvm.target import codegen

from tvm_deepdive_helpers.bench import cpu_timer, numpy_process, race
from tvm_deepdive_helpers.practice import Mutation, Project, doing, require

OVER_NAIVE = 10.0
OVER_NUMPY = 0.8

PROJECT = Project(
    "performance_tuning",
    title="Performance tuning",
    page="7-practice/performance-tuning",
    wants={"schedule(sch, lanes, registers)": "the schedule `sch` with your steps applied"},
    mutations=[
        Mutation(
            "no loop is a vector",
            "    sch.vectorize(lane)\n    sch.unroll(row)\n    sch.unroll(vector)\n",
            "",
            caught="test_over_naive",
            says="no loop is vectorised",
        ),
        Mutation(
            "W is read as it lies",
            "STEPS = (tile, vectorize, fuse, pack, split_init)",
            "STEPS = (tile, vectorize, fuse, split_init)",
            caught="test_over_numpy",
            says="matmul reads W itself",
        ),
        Mutation(
            "the sum is done in parallel",
            'sch.decompose_reduction("matmul", sch.get_loops("matmul")[2])',
            'sch.parallel(sch.get_loops("matmul")[2])',
            caught="test_schedules",
            says="in split_init.*ScheduleError",
        ),
        Mutation(
            "threads, where one was asked for",
            "    sch.reorder(j_out, i_out, r, i_in, j_in)\n",
            "    sch.reorder(j_out, i_out, r, i_in, j_in)\n    sch.parallel(j_out)\n",
            caught="test_one_thread",
            says="one thread",
        ),
    ],
)

SIZE = 256, 512, 512
MACHINES = {"avx512f": (16, 32), "avx2": (8, 16), "neon": (4, 32), "sse2": (4, 16)}
HOST = tvm.target.Target({"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()})


def machine():
    """Lanes of a vector register and number of registers of this processor."""
    return next((MACHINES[f] for f in MACHINES if codegen.target_has_features(f, HOST)), (4, 16))


def dense(m, n, k):
    @T.prim_func(s_tir=True)
    def main(
        X: T.Buffer((m, k), "float32"),
        W: T.Buffer((n, k), "float32"),
        b: T.Buffer((n,), "float32"),
        Y: T.Buffer((m, n), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        acc = T.sblock_alloc_buffer((m, n), "float32")
        for i, j, r in T.grid(m, n, k):
            with T.sblock("matmul"):
                vi, vj, vr = T.axis.remap("SSR", [i, j, r])
                with T.init():
                    acc[vi, vj] = T.float32(0)
                acc[vi, vj] = acc[vi, vj] + X[vi, vr] * W[vj, vr]
        for i, j in T.grid(m, n):
            with T.sblock("relu"):
                vi, vj = T.axis.remap("SS", [i, j])
                Y[vi, vj] = T.max(acc[vi, vj] + b[vj], T.float32(0))

    return main


def scheduled(solution, size=SIZE, shape=None):
    """The module that the solution makes of the layer."""
    lanes, registers = shape or machine()
    sch = s_tir.Schedule(dense(*size))
    with doing(f"scheduling the layer of size {size} for {registers} registers of {lanes} lanes"):
        result = solution.schedule(sch, lanes, registers)
    require(
        isinstance(result, s_tir.Schedule),
        f"schedule(sch, lanes, registers) must return the schedule; it returned {result!r:.60}.",
    )
    return result.mod


class Layer:
    """A compiled layer with operands."""

    def __init__(self, mod, size=SIZE):
        m, n, k = size
        with doing("compiling what your schedule made"):
            self.func = tvm.compile(mod, target=HOST)
        rng = np.random.default_rng(0)
        x, w = rng.standard_normal((m, k), dtype="float32"), rng.standard_normal((n, k), dtype="float32")
        b = rng.standard_normal(n, dtype="float32")
        self.want = np.maximum(x.astype("float64") @ w.T + b, 0)
        self.args = [tvm.runtime.tensor(a) for a in (x, w, b, np.full((m, n), np.nan, "float32"))]
        self.seconds = cpu_timer(lambda: self.func(*self.args))

    def require_correct(self, about):
        with doing(f"running the layer {about}"):
            self.func(*self.args)
        got = self.args[-1].numpy()
        right = np.isclose(got, self.want, rtol=1e-3, atol=1e-3)
        if not right.all():
            place = tuple(int(i) for i in np.argwhere(~right)[0])
            require(
                False,
                f"The numbers are wrong {about}: {(~right).sum()} of {right.size}, the first at {place}, where numpy "
                f"has {self.want[place]:.5g} and your kernel {got[place]:.5g}.",
            )


def seen(mod):
    """What strikes the eye in a schedule that is too slow."""
    text = mod.script()
    remarks = []
    if "T.vectorized(" not in text:
        remarks.append("no loop is vectorised")
    if "T.unroll(" not in text:
        remarks.append("no loop is unrolled")
    if "* W[" in text:
        remarks.append("matmul reads W itself, so that neighbouring columns of Y lie a whole row of W apart")
    if "T.init()" in text:
        remarks.append("the sums are set to zero inside of the reduction, by a branch in the innermost loops")
    return f" What can be seen in the schedule: {'; '.join(remarks)}." if remarks else ""


# --------------------------------------------------------------------------------------- stage 1: still the layer


@PROJECT.check(1, "Still the layer", hint="Hint 1: a tile of the result")
def test_schedules(solution):
    """Every step is accepted, and the numbers agree with numpy."""
    Layer(scheduled(solution)).require_correct(f"for the size {SIZE}")


@PROJECT.check(1, "Still the layer", hint="Hint 2: sizes from the arguments")
def test_other_sizes(solution):
    """Other sizes and other vector registers are right too."""
    for size, shape in (((64, 192, 80), machine()), ((128, 64, 48), (4, 16)), ((64, 128, 64), (8, 16))):
        mod = scheduled(solution, size, shape)
        Layer(mod, size).require_correct(f"for the size {size} and {shape[1]} registers of {shape[0]} lanes")


@PROJECT.check(1, "Still the layer", hint="Hint 1: a tile of the result")
def test_one_thread(solution):
    """The kernel uses one thread, and no library."""
    text = scheduled(solution).script()
    require(
        "T.parallel(" not in text, "A loop is parallel. The brief asks for one thread: times of threads do not compare."
    )
    for call in ("call_packed", "call_extern", "call_cpacked"):
        require(call not in text, f"The kernel contains {call}: the brief asks for a schedule, not for a library.")


# ------------------------------------------------------------------------------------------------- stage 2: speed

_measured = {}


def measure(solution):
    """Ratios of processor times, taken in turn; the best of three tries at most, as others use the machine."""
    if not _measured:
        mine, naive = Layer(scheduled(solution)), Layer(s_tir.Schedule(dense(*SIZE)).mod)
        m, n, k = SIZE
        setup = (
            "r = np.random.default_rng(0)\n"
            f"x, w, b = r.random(({m}, {k}), 'f4'), r.random(({n}, {k}), 'f4'), r.random({n}, 'f4')"
        )
        timers = {"mine": mine.seconds, "naive": naive.seconds}
        with numpy_process(setup, "np.maximum(x @ w.T + b, 0)") as timers["numpy"]:
            for _ in range(3):
                times = race(timers, rounds={"mine": 15, "naive": 2, "numpy": 15}).minima
                ratios = {name: times[name] / times["mine"] for name in ("naive", "numpy")}
                for name, ratio in ratios.items():
                    _measured[name] = max(ratio, _measured.get(name, 0.0))
                _measured["us"] = min(times["mine"] * 1e6, _measured.get("us", np.inf))
                if _measured["naive"] >= OVER_NAIVE and _measured["numpy"] >= OVER_NUMPY:
                    break
    return _measured


@PROJECT.check(2, "Speed, on one thread", hint="Hint 3: what the registers hold")
def test_over_naive(solution):
    """At least ten times as fast as the naive schedule."""
    got = measure(solution)
    require(
        got["naive"] >= OVER_NAIVE,
        f"Your kernel takes {got['us']:.0f} us and is {got['naive']:.1f} times as fast as the naive schedule; "
        f"{OVER_NAIVE:g} times are asked for.{seen(scheduled(solution))}",
    )
    return f"{got['naive']:.1f} times ({got['us']:.0f} us)"


@PROJECT.check(2, "Speed, on one thread", hint="Hint 4: data in the order of use")
def test_over_numpy(solution):
    """At least 0.8 times as fast as numpy."""
    got = measure(solution)
    require(
        got["numpy"] >= OVER_NUMPY,
        f"Your kernel takes {got['us']:.0f} us and is {got['numpy']:.2f} times as fast as numpy on one thread; "
        f"{OVER_NUMPY:g} times are asked for.{seen(scheduled(solution))}",
    )
    return f"{got['numpy']:.2f} times"
