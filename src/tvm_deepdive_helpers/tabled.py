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
    "Pair",
    "Point",
    "Table",
    "TabledBuilder",
    "TabledRunner",
    "Task",
    "point_of",
    "points_of",
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
        return tvm.IRModule({"main": te.create_prim_func([a, b, _product(a, b, "C")]).with_attr("tirx.noalias", True)})

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
    tiles, ((i0, i1), (j0, j1), (k0, k1)) = _split(sch, block)
    sch.reorder(i0, j0, k0, k1, i1, j1)
    if local:
        out = sch.cache_write(block, 0, "global")
        sch.reverse_compute_at(out, j0, preserve_unit_loops=True)
    unroll = _unroll(sch)
    root = sch.get_sblock("root")
    sch.annotate(root, "meta_schedule.vectorize", 64)
    sch.annotate(root, "meta_schedule.unroll_explicit", unroll)
    _sign(sch, "deepdive", (local, *(tile[1] for tile in tiles), unroll))


@dataclass(frozen=True)
class Pair:
    """Two products of one shape in one function, each with all decisions of its own: a space of the squared size.

    Its time is the sum of two recorded times, as if one kernel ran after the other. Such a module is looked up and
    never built, so its schedule holds the decisions and nothing else.

    Attributes
    ----------
    task : Task
        The shape.
    """

    task: Task

    def module(self) -> tvm.IRModule:
        """The function without a schedule."""
        ins, outs = [], []
        for name in _PAIR:
            a = te.placeholder((self.task.m, self.task.k), "float32", f"A{name}")
            b = te.placeholder((self.task.n, self.task.k), "float32", f"B{name}")
            outs.append(_product(a, b, name))
            ins += [a, b]
        return tvm.IRModule({"main": te.create_prim_func([*ins, *outs])})

    @staticmethod
    def design_space(sch: Schedule) -> list[Schedule]:
        """What a ``ScheduleFn`` calls: a design space for each combination of the two of a product."""
        spaces = []
        for locals_ in itertools.product((0, 1), repeat=len(_PAIR)):
            one = sch.copy()
            for name, local in zip(_PAIR, locals_, strict=True):
                tiles, _ = _split(one, one.get_sblock(name))
                _sign(one, f"deepdive.{name}", (local, *(tile[1] for tile in tiles), _unroll(one)))
            spaces.append(one)
        return spaces

    def generator(self) -> ms.space_generator.ScheduleFn:
        """The space generator; there is nothing to postprocess."""
        return ms.space_generator.ScheduleFn(
            self.design_space,
            sch_rules=[],
            postprocs=[],
            mutator_probs={ms.mutator.MutateTileSize(): 0.9, ms.mutator.MutateUnroll(): 0.1},
        )


_PAIR = ("C0", "C1")


def _product(a: te.Tensor, b: te.Tensor, name: str) -> te.Tensor:
    r = te.reduce_axis((0, a.shape[1]), "k")
    return te.compute((a.shape[0], b.shape[0]), lambda i, j: te.sum(a[i, r] * b[j, r], axis=r), name)


def _split(sch: Schedule, block: Any) -> tuple[list[Any], list[Any]]:
    """Draw a tile for each of the three loops; the tiles, and the loops that came of them."""
    loops = sch.get_loops(block)
    tiles = [
        sch.sample_perfect_tile(loop, n=2, max_innermost_factor=_LIMITS[axis])
        for axis, loop in zip("ijk", loops, strict=True)
    ]
    return tiles, [sch.split(loop, tile) for loop, tile in zip(loops, tiles, strict=True)]


def _unroll(sch: Schedule) -> Any:
    return sch.sample_categorical(list(UNROLL), [1 / len(UNROLL)] * len(UNROLL))


def _sign(sch: Schedule, prefix: str, values: Sequence[Any]) -> None:
    """Write coordinates on the root block, so that a builder can read them; no pass of TVM looks at them."""
    root = sch.get_sblock("root")
    for key, value in zip(_KEYS, values, strict=True):
        sch.annotate(root, f"{prefix}.{key}", value)


def point_of(mod: tvm.IRModule) -> Point:
    """The coordinates that a scheduled module of a `Task` carries in the annotations of its root block."""
    return _read(mod, "deepdive")


def points_of(mod: tvm.IRModule) -> list[Point]:
    """The coordinates of all products of a module, of a `Task` or of a `Pair`."""
    if "deepdive.i" in mod["main"].body.block.annotations:
        return [point_of(mod)]
    return [_read(mod, f"deepdive.{name}") for name in _PAIR]


def _read(mod: tvm.IRModule, prefix: str) -> Point:
    notes = mod["main"].body.block.annotations
    return Point(*(int(notes[f"{prefix}.{key}"]) for key in _KEYS))


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


def _spell(points: Sequence[Point]) -> str:
    return ";".join(",".join(map(str, point)) for point in points)


def _parse(text: str) -> list[Point]:
    return [Point(*map(int, point.split(","))) for point in text.split(";")]


@derived_object
class TabledBuilder(PyBuilder):
    """Builds nothing: the artifact path of a candidate is the text of its coordinates."""

    def build(self, build_inputs: Sequence[ms.builder.BuilderInput]) -> list[BuilderResult]:
        """One result for each input."""
        return [BuilderResult(_spell(points_of(item.mod)), None) for item in build_inputs]


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
    """Runs nothing: the time of a candidate, or the sum of the times of its two products, stands in the table.

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
        found = (_parse(str(item.artifact_path)) for item in runner_inputs)
        return [_Known(sum(self._table[point].seconds for point in points)) for points in found]
