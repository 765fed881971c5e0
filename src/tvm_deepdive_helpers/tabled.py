"""A space of schedules so small that every point of it was measured: a judge for search strategies.

Whether one search finds better schedules than another is hard to tell from live runs: times are noisy, one run says
little, and the true optimum is unknown. Here the product ``C[i, j] += A[i, k] * B[j, k]`` has a design space of five
decisions. ``maintain.search_table`` built and measured each of its points once; the times stand in ``gallery/data``.
During a build of the book `TabledBuilder` and `TabledRunner` take the place of TVM's own: they look a candidate up
instead of compiling and running it. All the rest is MetaSchedule as it is: traces, postprocessors, mutators, task
scheduler, database, cost model.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tvm
from tvm import te
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult
from tvm.s_tir.schedule import Trace

from .recorded import read_csv

__all__ = [
    "LARGE",
    "SMALL",
    "UNROLL",
    "Measured",
    "Point",
    "Table",
    "TabledBuilder",
    "TabledRunner",
    "Task",
    "point_of",
]

UNROLL = (0, 16, 64)
"""What the last decision chooses from: at most so many steps are unrolled."""

_LIMITS = {"i": 16, "j": 32, "k": 16}
_KEYS = ("space", "i", "j", "k", "unroll")


class Point(NamedTuple):
    """A point of the space.

    Attributes
    ----------
    space : int
        Number of the design space: 0 accumulates in the output, 1 in a local tile.
    i, j, k : int
        Extents of the inner loops.
    unroll : int
        An entry of `UNROLL`.
    """

    space: int
    i: int
    j: int
    k: int
    unroll: int


class Measured(NamedTuple):
    """What is known of a point.

    Attributes
    ----------
    seconds : float
        Least time of a call in two rounds of measurements.
    noise : float
        By how much the slower round exceeded it, as a share.
    code_bytes : int
        Size of the section ``.text`` of the object file.
    """

    seconds: float
    noise: float
    code_bytes: int


@dataclass(frozen=True)
class Task:
    """The product of an ``m`` by ``k`` matrix with the transpose of an ``n`` by ``k`` matrix, and its space.

    Attributes
    ----------
    m, n, k : int
        Extents of the loops ``i``, ``j`` and ``k``.
    """

    m: int
    n: int
    k: int

    @property
    def name(self) -> str:
        """The three extents, as in ``96x192x192``."""
        return f"{self.m}x{self.n}x{self.k}"

    @property
    def flop(self) -> int:
        """Multiplications and additions of a call."""
        return 2 * self.m * self.n * self.k

    def module(self) -> tvm.IRModule:
        """The function without a schedule."""
        a = te.placeholder((self.m, self.k), "float32", "A")
        b = te.placeholder((self.n, self.k), "float32", "B")
        r = te.reduce_axis((0, self.k), "k")
        c = te.compute((self.m, self.n), lambda i, j: te.sum(a[i, r] * b[j, r], axis=r), "C")
        return tvm.IRModule({"main": te.create_prim_func([a, b, c]).with_attr("tirx.noalias", True)})

    def points(self) -> Iterator[Point]:
        """Every point of the space."""
        tiles = (
            [f for f in range(1, _LIMITS[axis] + 1) if extent % f == 0]
            for axis, extent in zip("ijk", (self.m, self.n, self.k), strict=True)
        )
        yield from itertools.starmap(Point, itertools.product((0, 1), *tiles, UNROLL))

    @staticmethod
    def design_space(sch: Schedule) -> list[Schedule]:
        """What a ``ScheduleFn`` calls: two design spaces, each with four decisions."""
        spaces = []
        for local in (0, 1):
            one = sch.copy()
            _schedule(one, local)
            spaces.append(one)
        return spaces

    def generator(self) -> ms.space_generator.ScheduleFn:
        """The space generator, with the postprocessors and mutators that this space needs."""
        return ms.space_generator.ScheduleFn(
            self.design_space,
            sch_rules=[],
            postprocs=[ms.postproc.RewriteParallelVectorizeUnroll(), ms.postproc.RewriteReductionBlock()],
            mutator_probs={ms.mutator.MutateTileSize(): 0.9, ms.mutator.MutateUnroll(): 0.1},
        )

    def schedule(self, point: Point) -> Schedule:
        """The finished schedule of one point."""
        space = self.design_space(Schedule(self.module()))[point.space]
        trace = space.trace
        wanted = iter((point.i, point.j, point.k))
        decisions: dict[Any, Any] = {}
        for inst in trace.insts:
            if inst.kind.name == "SamplePerfectTile":
                extent = math.prod(int(f) for f in trace.decisions[inst])
                inner = next(wanted)
                decisions[inst] = [extent // inner, inner]
            elif inst.kind.name == "SampleCategorical":
                decisions[inst] = UNROLL.index(point.unroll)
        sch = Schedule(self.module())
        Trace(trace.insts, decisions).apply_to_schedule(sch, remove_postproc=True)
        sch.enter_postproc()
        for postproc in self.generator().postprocs:
            if not postproc.apply(sch):
                raise ValueError(f"{postproc} refused {point}")
        return sch


LARGE = Task(96, 192, 192)
SMALL = Task(64, 128, 128)


def _schedule(sch: Schedule, local: int) -> None:
    block = sch.get_sblock("C")
    i, j, k = sch.get_loops(block)
    tiles = [
        sch.sample_perfect_tile(loop, n=2, max_innermost_factor=_LIMITS[axis])
        for axis, loop in zip("ijk", (i, j, k), strict=True)
    ]
    (i0, i1), (j0, j1), (k0, k1) = (sch.split(loop, tile) for loop, tile in zip((i, j, k), tiles, strict=True))
    sch.reorder(i0, j0, k0, k1, i1, j1)
    if local:
        out = sch.cache_write(block, 0, "global")
        sch.reverse_compute_at(out, j0, preserve_unit_loops=True)
    unroll = sch.sample_categorical(list(UNROLL), [1 / len(UNROLL)] * len(UNROLL))
    root = sch.get_sblock("root")
    sch.annotate(root, "meta_schedule.vectorize", 64)
    sch.annotate(root, "meta_schedule.unroll_explicit", unroll)
    # The module carries its coordinates, so that a builder can read them; no pass of TVM looks at them.
    values = (local, *(tile[1] for tile in tiles), unroll)
    for key, value in zip(_KEYS, values, strict=True):
        sch.annotate(root, f"deepdive.{key}", value)


def point_of(mod: tvm.IRModule) -> Point:
    """The coordinates that a scheduled module carries in the annotations of its root block."""
    notes = mod["main"].body.block.annotations
    return Point(*(int(notes[f"deepdive.{key}"]) for key in _KEYS))


class Table(Mapping[Point, Measured]):
    """The measured points of one task.

    Parameters
    ----------
    path : Path
        A file that ``maintain.search_table`` wrote.
    task : Task
        Of which the rows are wanted.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self.path = path
        self.task = task
        self._rows: dict[Point, Measured] = {}
        for row in read_csv(path):
            if row["task"] == task.name:
                point = Point(*(int(row[key]) for key in _KEYS))
                low, high = sorted((float(row["us"]), float(row["us_again"])))
                self._rows[point] = Measured(low / 1e6, high / low - 1, int(row["code_bytes"]))
        if not self._rows:
            raise LookupError(f"{path.name} has no rows of {task.name}")

    def __getitem__(self, point: Point) -> Measured:
        return self._rows[point]

    def __iter__(self) -> Iterator[Point]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def best(self) -> Point:
        """The fastest point."""
        return min(self._rows, key=lambda point: self._rows[point].seconds)

    def times(self) -> list[float]:
        """All times in seconds, the shortest first."""
        return sorted(row.seconds for row in self._rows.values())


@derived_object
class TabledBuilder(PyBuilder):
    """Builds nothing: the artifact path of a candidate is the text of its coordinates."""

    def build(self, build_inputs: Sequence[ms.builder.BuilderInput]) -> list[BuilderResult]:
        """One result for each input."""
        return [BuilderResult(",".join(map(str, point_of(item.mod))), None) for item in build_inputs]


@derived_object
class _Known(PyRunnerFuture):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def done(self) -> bool:
        return True

    def result(self) -> RunnerResult:
        return RunnerResult([self._seconds], None)


@derived_object
class TabledRunner(PyRunner):
    """Runs nothing: the time of a candidate stands in the table.

    Parameters
    ----------
    table : Table
        Of the task that is tuned.
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table

    def run(self, runner_inputs: Sequence[ms.runner.RunnerInput]) -> list[ms.runner.RunnerFuture]:
        """One finished future for each input."""
        points = (Point(*map(int, str(item.artifact_path).split(","))) for item in runner_inputs)
        return [_Known(self._table[point].seconds) for point in points]
