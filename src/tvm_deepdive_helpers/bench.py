"""Measure times so that two of them can be compared, and say on which machine.

A single time says little on a machine that others use too. `compare` runs its candidates in turn (A B C A B C …), so
that load hits all of them alike, and compares minima, which noise can only make larger.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "Comparison",
    "CpuTime",
    "Timing",
    "assert_faster",
    "compare",
    "cpu_time",
    "cpu_timer",
    "machine_facts",
    "measure",
    "numpy_process",
    "print_machine",
    "race",
]


@dataclass(frozen=True)
class Timing:
    """Times of one candidate.

    Attributes
    ----------
    samples : tuple of float
        Seconds per call, one for each repetition, in the order of measuring.
    """

    samples: tuple[float, ...]

    @property
    def min_s(self) -> float:
        """The shortest sample in seconds: the one that was disturbed least."""
        return min(self.samples)

    @property
    def median_s(self) -> float:
        """The median of the samples in seconds."""
        return statistics.median(self.samples)


def _sample(func: Callable[[], object], number: int) -> float:
    """Seconds per call over `number` calls, with the garbage collector off, as `timeit` does it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        for _ in range(number):
            func()
        return (time.perf_counter() - start) / number
    finally:
        if collecting:
            gc.enable()


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < (0 if name == "warmup" else 1):
            raise ValueError(f"{name}={value} is too small")


def measure(func: Callable[[], object], *, repeat: int = 7, number: int = 1, warmup: int = 1) -> Timing:
    """Measure one function.

    Parameters
    ----------
    func : callable
        Called without arguments.
    repeat : int
        Number of samples.
    number : int
        Calls per sample; raise it for functions that take less than about 50 microseconds.
    warmup : int
        Calls before the first sample (compilation on first use, caches).

    Returns
    -------
    Timing
    """
    return compare({"": func}, rounds=repeat, number=number, warmup=warmup).timings[""]


@dataclass(frozen=True)
class Comparison:
    """Times of several candidates that were measured in turn.

    Attributes
    ----------
    timings : dict of str to Timing
        In the order in which the candidates were given.
    """

    timings: dict[str, Timing]

    def __getitem__(self, name: str) -> Timing:
        return self.timings[name]

    @property
    def minima(self) -> dict[str, float]:
        """Shortest time of each candidate, in seconds per call."""
        return {name: timing.min_s for name, timing in self.timings.items()}

    @property
    def fastest(self) -> str:
        """Name of the candidate with the shortest minimum."""
        return min(self.minima, key=self.minima.__getitem__)

    def ratio(self, slow: str, fast: str) -> float:
        """How many times longer `slow` takes than `fast`, by their minima."""
        return self.timings[slow].min_s / self.timings[fast].min_s

    def ratios(self, base: str | None = None) -> dict[str, float]:
        """Minimum of each candidate over the minimum of `base` (the fastest, if not given)."""
        return {name: self.ratio(name, base or self.fastest) for name in self.timings}

    def table(self) -> None:
        """Print minimum, median and ratio of every candidate."""
        width = max(len(name) for name in self.timings)
        print(f"{'':{width}}  {'min us':>10}  {'median us':>10}  {'ratio':>6}")
        for name, ratio in self.ratios().items():
            timing = self.timings[name]
            print(f"{name:{width}}  {timing.min_s * 1e6:10.1f}  {timing.median_s * 1e6:10.1f}  {ratio:6.2f}")


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 7,
    number: int | Mapping[str, int] = 1,
    warmup: int = 1,
) -> Comparison:
    """Measure several functions in turn: A B C A B C …

    Parameters
    ----------
    candidates : mapping of str to callable
        What to measure; each is called without arguments.
    rounds : int
        Samples of each candidate.
    number : int or mapping of str to int
        Calls per sample, the same for all or by name.
    warmup : int
        Calls of each candidate before the first round.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is no candidate, or a number is too small.
    """
    if not candidates:
        raise ValueError("nothing to compare")
    numbers = dict.fromkeys(candidates, number) if isinstance(number, int) else dict(number)
    _positive(rounds=rounds, warmup=warmup, number=min(numbers.values()))
    for func in candidates.values():
        for _ in range(warmup):
            func()
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, func in candidates.items():
            samples[name].append(_sample(func, numbers[name]))
    return Comparison({name: Timing(tuple(times)) for name, times in samples.items()})


def cpu_timer(func: Callable[[], object]) -> Callable[[], float]:
    """Make a timer of a function that works in the calling thread only.

    Parameters
    ----------
    func : callable
        Called without arguments.

    Returns
    -------
    callable
        Calls `func` once and returns the processor time of this thread in seconds. Other than the time by the clock it
        does not grow while another process has the core.
    """

    def timer() -> float:
        start = time.thread_time()
        func()
        return time.thread_time() - start

    return timer


def race(timers: Mapping[str, Callable[[], float]], *, rounds: int | Mapping[str, int] = 7) -> Comparison:
    """Let candidates that time themselves run in turn: A B C A B C …

    Parameters
    ----------
    timers : mapping of str to callable
        Each returns the seconds that one run of its candidate took (see `cpu_timer` and `numpy_process`).
    rounds : int or mapping of str to int
        Samples of each candidate, the same for all or by name; a slow one may sit out the later rounds.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is no candidate, or a number is too small.
    """
    if not timers:
        raise ValueError("nothing to compare")
    numbers = dict.fromkeys(timers, rounds) if isinstance(rounds, int) else dict(rounds)
    _positive(rounds=min(numbers.values()))
    samples: dict[str, list[float]] = {name: [] for name in timers}
    for number in range(max(numbers.values())):
        for name, timer in timers.items():
            if number < numbers[name]:
                samples[name].append(timer())
    return Comparison({name: Timing(tuple(times)) for name, times in samples.items()})


_NUMPY_CHILD = """
import sys, time
import numpy as np
namespace = {"np": np}
exec(sys.argv[1], namespace)
code = compile(sys.argv[2], "statement", "exec")
for line in sys.stdin:
    start = time.process_time()
    exec(code, namespace)
    print(time.process_time() - start, flush=True)
"""


@contextlib.contextmanager
def numpy_process(
    setup: str, statement: str, *, threads: int = 1, env: Mapping[str, str] | None = None
) -> Iterator[Callable[[], float]]:
    """Time a statement of numpy in a process of its own, whose BLAS has a fixed number of threads.

    A BLAS reads its environment variables when it is loaded, and here it is loaded already.

    Parameters
    ----------
    setup, statement : str
        What the process runs once, and for each sample. ``np`` is there.
    threads : int
        Value of the variables that limit the threads of OpenBLAS, MKL and OpenMP.
    env : mapping, optional
        Further environment variables, such as ``OPENBLAS_CORETYPE``.

    Yields
    ------
    callable
        Runs the statement once and returns the processor time of the process in seconds.

    Raises
    ------
    RuntimeError
        From the callable, if the process has died.
    """
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
    child = subprocess.Popen(
        [sys.executable, "-c", _NUMPY_CHILD, setup, statement],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **limits, **(env or {})},
    )
    assert child.stdin is not None and child.stdout is not None

    def timer() -> float:
        with contextlib.suppress(BrokenPipeError):
            print(file=child.stdin, flush=True)
        answer = child.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of numpy ended with status {child.wait()}; its error stands above")
        return float(answer)

    try:
        yield timer
    finally:
        # No communicate(): it would flush a pipe that may be broken.
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.stdout.close()
        child.wait()


def assert_faster(result: Comparison, fast: str, slow: str, factor: float = 1.0) -> None:
    """Check that one candidate is faster than another by at least a factor.

    Raises
    ------
    AssertionError
        With both minima and the ratio, if it is not.
    """
    ratio = result.ratio(slow, fast)
    if ratio < factor:
        raise AssertionError(
            f"expected {fast!r} to be at least {factor:g} times as fast as {slow!r}, but it is {ratio:.2f} times: "
            f"{result[fast].min_s * 1e6:.1f} us against {result[slow].min_s * 1e6:.1f} us "
            f"(minima of {len(result[fast].samples)} rounds)"
        )


@dataclass
class CpuTime:
    """Times of a block, in seconds: by the clock, and of all threads of this process together."""

    wall_s: float = field(default=0.0)
    cpu_s: float = field(default=0.0)

    @property
    def cores(self) -> float:
        """Mean number of cores that were busy."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0


@contextlib.contextmanager
def cpu_time() -> Iterator[CpuTime]:
    """Measure wall time and processor time of a ``with`` block (read them after it)."""
    result = CpuTime()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield result
    finally:
        result.wall_s = time.perf_counter() - wall
        result.cpu_s = time.process_time() - cpu


THREAD_VARIABLES = ("TVM_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Hardware", "cpu model")):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _blas() -> str:
    import numpy

    config = numpy.show_config(mode="dicts")
    blas = (config or {}).get("Build Dependencies", {}).get("blas", {})
    return " ".join(str(blas[key]) for key in ("name", "version") if blas.get(key)) or "unknown"


def machine_facts() -> dict[str, str | int]:
    """What a reader must know to judge a time; nothing that names the machine.

    Returns
    -------
    dict
        ``cpu`` (model), ``cores`` (that this process may use), ``threads`` (environment variables that limit them),
        ``os``, ``arch``, ``python``, ``numpy``, ``blas``, ``tvm``, ``tvm-ffi``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if os.environ.get(name)]
    return {
        "cpu": _cpu_model(),
        "cores": cores,
        "threads": ", ".join(limits) or "no limit set",
        "os": platform.system(),
        "arch": platform.machine(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "numpy": _version("numpy"),
        "blas": _blas(),
        "tvm": _version("apache-tvm"),
        "tvm-ffi": _version("apache-tvm-ffi"),
    }


def print_machine() -> None:
    """Print `machine_facts`, one a line."""
    facts = machine_facts()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
