"""Run MetaSchedule inside a build of this book: quickly, quietly, and with times that a loaded machine does not spoil.

What a tuning run does with TVM's defaults is explained in Part 5. Three things stand in its way here:

* ``import tvm.s_tir.tensor_intrin`` parses some 250 TVMScript functions, and each asks `inspect.stack` for the whole
  stack *with* its source lines and modules. Every process that builds candidates pays that. `load_intrinsics` imports
  the module in about a sixth of the time; it can be given to workers as ``LocalBuilder(initializer=load_intrinsics)``.
* `LocalBuilder` starts new processes for every batch. `InProcessBuilder` builds here.
* The clock goes on while another process has the core. `CpuTimeRunner` reads the processor time of its thread.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.measure_callback import PyMeasureCallback
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

__all__ = [
    "CpuTimeRunner",
    "History",
    "InProcessBuilder",
    "Trial",
    "Tuned",
    "host_target",
    "load_intrinsics",
    "one_thread",
    "quick_stack",
    "seconds_of",
    "tune",
]


def _plain_stack(context: int = 1) -> list[inspect.FrameInfo]:
    """`inspect.stack`, with the source line looked up by file name instead of by searching all modules for it."""
    found: list[inspect.FrameInfo] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name, number = frame.f_code.co_filename, frame.f_lineno
        line = linecache.getline(name, number) if context else ""
        found.append(inspect.FrameInfo(frame, name, number, frame.f_code.co_name, [line] if line else None, 0))
        frame = frame.f_back
    return found


@contextmanager
def quick_stack() -> Iterator[None]:
    """Within the block, `inspect.stack` is one that costs microseconds instead of milliseconds."""
    original = inspect.stack
    inspect.stack = _plain_stack  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.stack = original


def load_intrinsics() -> None:
    """Import ``tvm.s_tir.tensor_intrin`` in about a sixth of the usual time; nothing to do if it is loaded.

    A function of a module, so that it can be sent to other processes by its name:
    ``LocalBuilder(initializer=load_intrinsics)``.
    """
    with quick_stack():
        import tvm.s_tir.tensor_intrin  # noqa: F401


def one_thread() -> None:
    """Run TVM's kernels in the calling thread only, from now on, and leave that thread free to change cores.

    The environment variables count if no kernel ran before, the setting of the pool if one did.
    """
    os.environ["TVM_NUM_THREADS"] = "1"
    # The pool would pin this thread to a core, and the threads of the search inherit that.
    os.environ["TVM_BIND_THREADS"] = "0"
    tvm.get_global_func("runtime.config_threadpool")(1, 1)


def host_target(cores: int = 1) -> tvm.target.Target:
    """The machine that this process runs on, as a target.

    Parameters
    ----------
    cores : int
        Attribute ``num-cores``, without which the rules for CPUs refuse to work.

    Returns
    -------
    tvm.target.Target
    """
    cpu = tvm.target.codegen.llvm_get_system_cpu()
    return tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": cores})


_NUMBERS = itertools.count()
_BUILT: dict[str, Any] = {}


@derived_object
class InProcessBuilder(PyBuilder):
    """Build candidates in this process, one after the other.

    An error of the compiler becomes an error of the candidate. A crash or an endless loop of the compiler is not
    contained; that is what the processes of TVM's `LocalBuilder` are for. The "artifact path" of a result is a key
    under which `CpuTimeRunner` finds the built module.

    Parameters
    ----------
    build : callable, optional
        Makes the module of an ``IRModule`` and a target; without it, what `LocalBuilder` does.
    """

    def __init__(self, build: Callable[[tvm.IRModule, tvm.target.Target], Any] | None = None) -> None:
        super().__init__()
        self._build = build or _default_build

    def build(self, build_inputs: Sequence[ms.builder.BuilderInput]) -> list[BuilderResult]:
        """One result for each input."""
        results = []
        for item in build_inputs:
            try:
                built = self._build(item.mod, item.target)
            except Exception as err:  # noqa: BLE001 - any failure is an answer of the candidate
                results.append(BuilderResult(None, f"{type(err).__name__}: {err}"))
                continue
            key = f"in-process:{next(_NUMBERS)}"
            _BUILT[key] = built
            results.append(BuilderResult(key, None))
        return results


def _default_build(mod: tvm.IRModule, target: tvm.target.Target) -> Any:
    mod = tvm.s_tir.transform.RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(mod)
    return tvm.tirx.build(mod, target=target)


@derived_object
class _Done(PyRunnerFuture):
    """A result that is there already."""

    def __init__(self, result: RunnerResult) -> None:
        super().__init__()
        self._result = result

    def done(self) -> bool:
        return True

    def result(self) -> RunnerResult:
        return self._result


@derived_object
class CpuTimeRunner(PyRunner):
    """Measure what `InProcessBuilder` built, in this thread, by its processor time.

    Each candidate runs once. One that is `cutoff` times slower than the best so far with arguments of the same shapes
    is not worth more and keeps that time. The others run until `repeat` samples of at least `sample_s` seconds are
    there; the result is their minimum, because load can only add.

    Only right if kernels run in the calling thread: call `one_thread` first.

    Parameters
    ----------
    repeat : int
        Samples of a candidate.
    sample_s : float
        Least length of a sample in seconds.
    cutoff : float
        How many times slower than the best so far a candidate may be and still be measured well.
    seed : int
        Of the arguments, which are uniform in [0, 1) (integers: 0 and 1).
    """

    def __init__(self, repeat: int = 5, sample_s: float = 0.002, cutoff: float = 2.0, seed: int = 0) -> None:
        super().__init__()
        self._repeat, self._sample_s, self._cutoff, self._seed = repeat, sample_s, cutoff, seed
        self._arguments: dict[str, list[tvm.runtime.Tensor]] = {}
        self._best: dict[str, float] = {}

    def run(self, runner_inputs: Sequence[ms.runner.RunnerInput]) -> list[ms.runner.RunnerFuture]:
        """One finished future for each input."""
        return [_Done(self._measure(item)) for item in runner_inputs]

    def _measure(self, item: ms.runner.RunnerInput) -> RunnerResult:
        built = _BUILT.pop(str(item.artifact_path))
        shapes = [info.as_json() for info in item.args_info]
        key = str(shapes)
        try:
            if key not in self._arguments:
                self._arguments[key] = [_argument(shape, self._seed) for shape in shapes]
            args = self._arguments[key]
            func = built["main"]
            seconds = _thread_seconds(func, args, 1)
            best = self._best.get(key, math.inf)
            if seconds <= self._cutoff * best:
                number = max(1, math.ceil(self._sample_s / max(seconds, 1e-7)))
                samples = [_thread_seconds(func, args, number) for _ in range(self._repeat)]
                seconds = min(seconds, *samples)
                self._best[key] = min(best, seconds)
        except Exception as err:  # noqa: BLE001 - any failure is an answer of the candidate
            return RunnerResult(None, f"{type(err).__name__}: {err}")
        return RunnerResult([seconds], None)


def _thread_seconds(func: Callable[..., object], args: Sequence[object], number: int) -> float:
    start = time.thread_time()
    for _ in range(number):
        func(*args)
    return (time.thread_time() - start) / number


def _argument(info: Sequence[Any], seed: int) -> tvm.runtime.Tensor:
    import numpy as np

    kind, dtype, shape = str(info[0]), str(info[1]), [int(extent) for extent in info[2]]
    if kind != "TENSOR":
        raise NotImplementedError(f"argument of kind {kind}")
    values = np.random.default_rng(seed).random(shape)
    return tvm.runtime.tensor((values.round() if "int" in dtype else values).astype(dtype))


def seconds_of(result: Any) -> float:
    """The least of the times in a ``RunnerResult`` or ``TuningRecord``, in seconds; infinite if there is none."""
    times = [float(value) for value in result.run_secs or ()]
    return min(times, default=math.inf)


@dataclass(frozen=True)
class Trial:
    """One candidate that was measured, or that failed.

    Attributes
    ----------
    task : int
        Number of its task.
    seconds : float
        Its time; infinite if it failed.
    error : str or None
        What the builder or the runner said.
    at_s : float
        When the search learned of it, in seconds since the run began.
    """

    task: int
    seconds: float
    error: str | None
    at_s: float


@derived_object
class History(PyMeasureCallback):
    """A measure callback that writes a `Trial` for every candidate into a list.

    Parameters
    ----------
    trials : list
        To append to.
    """

    def __init__(self, trials: list[Trial]) -> None:
        super().__init__()
        self._trials, self._start = trials, time.perf_counter()

    def apply(
        self,
        task_scheduler: ms.TaskScheduler,
        task_id: int,
        measure_candidates: Sequence[ms.MeasureCandidate],
        builder_results: Sequence[BuilderResult],
        runner_results: Sequence[RunnerResult],
    ) -> None:
        """Called by the task scheduler when a batch is through."""
        now = time.perf_counter() - self._start
        for result in runner_results:
            error = None if result.error_msg is None else str(result.error_msg)
            self._trials.append(Trial(int(task_id), seconds_of(result), error, now))


@dataclass(frozen=True)
class Tuned:
    """What a tuning run left behind.

    Attributes
    ----------
    context : TuneContext
        The task.
    database : Database
        With the workload and a record for every candidate that ran.
    trials : list of Trial
        In the order of measuring.
    wall_s : float
        How long the run took.
    """

    context: ms.TuneContext
    database: ms.database.Database
    trials: list[Trial] = field(repr=False)
    wall_s: float

    @property
    def records(self) -> list[ms.database.TuningRecord]:
        """All records, the fastest first."""
        return sorted(self.database.get_all_tuning_records(), key=seconds_of)

    @property
    def best(self) -> tvm.s_tir.Schedule:
        """The workload, with the trace of the fastest record applied to it."""
        found = self.database.query_schedule(self.context.mod, self.context.target, workload_name="main")
        if found is None:
            raise LookupError("the database holds no record of this workload: did every candidate fail?")
        return found

    @property
    def best_s(self) -> float:
        """Time of the fastest record in seconds."""
        return min((trial.seconds for trial in self.trials), default=math.inf)

    def curve(self) -> list[float]:
        """The best time in seconds after one trial, two trials and so on."""
        return list(itertools.accumulate((trial.seconds for trial in self.trials), min))


def _silent_logger() -> logging.Logger:
    logger = logging.getLogger("tvm_deepdive_helpers.tuning.silent")
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)
    return logger


def tune(
    mod: tvm.IRModule | tvm.tirx.PrimFunc,
    target: tvm.target.Target | None = None,
    *,
    trials: int = 32,
    batch: int = 16,
    seed: int = 1,
    space: Any = "post-order-apply",
    strategy: Any = "evolutionary",
    cost_model: Any = "random",
    population: int = 128,
    builder: ms.builder.Builder | None = None,
    runner: ms.runner.Runner | None = None,
    database: ms.database.Database | None = None,
    callbacks: Iterable[ms.MeasureCallback] = (),
    threads: int = 1,
    logger: logging.Logger | None = None,
) -> Tuned:
    """Tune one function with MetaSchedule: ``ms.tune_tasks`` with the parts of this module, and no file written.

    Parameters
    ----------
    mod : IRModule or PrimFunc
        The workload.
    target : Target, optional
        `host_target` if not given.
    trials, batch : int
        Candidates to measure, altogether and at a time.
    seed : int
        Of the search. With one thread and a random cost model the same seed draws the same first batch; XGBoost
        predicts from numpy's generator until it is trained. Later batches depend on measured times.
    space, strategy, cost_model : str or object
        As for ``ms.tune_tir``. With ``"xgb"`` the model predicts from the second batch on, not after 100 trials.
    population : int
        Traces that the evolutionary search breeds for a batch. TVM's default is 512, which costs more processor time
        than building and measuring do here.
    builder, runner, database : optional
        `InProcessBuilder`, `CpuTimeRunner` and a database in memory if not given.
    callbacks : iterable of MeasureCallback
        To call after those that write the database and feed the cost model.
    threads : int
        Threads of the search itself (not of the kernels).
    logger : logging.Logger, optional
        Without it nothing is logged.

    Returns
    -------
    Tuned
    """
    load_intrinsics()
    if builder is None and runner is None:
        one_thread()
    logger = logger or _silent_logger()
    if database is None:  # an empty database is false
        database = ms.database.MemoryDatabase()
    if cost_model == "xgb":
        cost_model = ms.cost_model.XGBModel(num_tuning_cores=threads, num_warmup_samples=batch)
    if strategy == "evolutionary":
        strategy = ms.search_strategy.EvolutionarySearch(population_size=population)
    context = ms.TuneContext(
        mod,
        target=target or host_target(),
        space_generator=space,
        search_strategy=strategy,
        task_name="main",
        rand_state=seed,
        num_threads=threads,
        logger=logger,
    )
    seen: list[Trial] = []
    history = History(seen)
    start = time.perf_counter()
    ms.tune_tasks(
        tasks=[context],
        task_weights=[1.0],
        work_dir="",
        max_trials_global=trials,
        num_trials_per_iter=min(batch, trials),
        builder=builder or InProcessBuilder(),
        runner=runner or CpuTimeRunner(),
        database=database,
        cost_model=cost_model,
        measure_callbacks=[
            ms.measure_callback.AddToDatabase(),
            ms.measure_callback.UpdateCostModel(),
            history,
            *callbacks,
        ],
        task_scheduler=ms.task_scheduler.RoundRobin(),
    )
    return Tuned(context, database, seen, time.perf_counter() - start)
