"""Show what a schedule primitive does, and check that it kept the meaning of the function.

A `Workload` is a TensorIR function together with a numpy function that computes the same. `step`
shows the statements of its block as a difference of the IR, runs the new function, and compares it
with numpy and with the function before any schedule. `refused` shows a primitive that says no. Both
note the primitives that they saw, so that `catalogue_problems` can say which methods of
``tvm.s_tir.Schedule`` a page forgot.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any

import numpy as np
import tvm
from tvm import s_tir
from tvm.s_tir.schedule import ScheduleError
from tvm.tirx import PrimFunc

from . import ir
from .book import expect_error

__all__ = [
    "FAMILIES",
    "REFUSED",
    "SHOWN",
    "Workload",
    "catalogue_problems",
    "changes",
    "public_methods",
    "refused",
    "root_text",
    "step",
]

FAMILIES: dict[str, tuple[str, ...]] = {
    "state": (
        "mod", "state", "trace", "func_working_on", "work_on", "copy", "seed", "fork_seed",
        "show", "get", "get_sref", "remove_rv",
    ),
    "lookup": (
        "get_sblock", "get_loops", "get_child_blocks", "get_producers", "get_consumers",
        "get_output_blocks",
    ),
    "loops": (
        "split", "fuse", "merge", "loop_partition", "reorder", "reorder_block_iter_var",
        "add_unit_loop", "parallel", "vectorize", "unroll", "bind",
    ),
    "blocks": (
        "compute_at", "reverse_compute_at", "compute_inline", "reverse_compute_inline",
    ),
    "caches": (
        "cache_read", "cache_write", "reindex", "reindex_cache_read", "reindex_cache_write",
        "cache_inplace", "cache_index", "read_at", "write_at", "set_scope", "storage_align",
    ),
    "reduction": (
        "decompose_reduction", "rfactor", "fuse_reduction_epilogue", "pad_einsum",
        "decompose_padding", "can_decompose_padding", "rolling_buffer",
    ),
    "tensorize": (
        "blockize", "tensorize", "annotate", "unannotate",
    ),
    "layout": (
        "transform_layout", "transform_block_layout", "unsafe_set_dtype",
        "unsafe_hide_buffer_access", "annotate_buffer_access",
    ),
    "sampling": (
        "sample_categorical", "sample_perfect_tile", "sample_partitioned_tile",
        "sample_compute_location", "enter_postproc",
    ),
}  # fmt: skip
"""Every public method and property of ``tvm.s_tir.Schedule``, by the family under which the book explains it."""

SHOWN: list[str] = []
"""Primitives that `step` saw in this process, in order, without repetition."""

REFUSED: list[str] = []
"""Primitives that `refused` saw in this process, in order, without repetition."""


def public_methods() -> set[str]:
    """Names of the public methods and properties that the class ``tvm.s_tir.Schedule`` defines itself.

    Returns
    -------
    set of str
        Without what it inherits from ``tvm.runtime.Object`` and without type aliases.
    """
    return {
        name
        for name, member in vars(s_tir.Schedule).items()
        if not name.startswith("_") and isinstance(member, FunctionType | property | staticmethod)
    }


def _note(log: list[str], names: Iterable[str]) -> None:
    log.extend(name for name in names if name not in log)


def catalogue_problems(family: str | None = None, *, never_refused: Iterable[str] = ()) -> list[str]:
    """What is wrong with the catalogue of primitives.

    Parameters
    ----------
    family : str, optional
        A family of `FAMILIES`; every method of it must have been shown by `step` and refused by
        `refused` in this process. None checks only that `FAMILIES` and the class have the same
        names.
    never_refused : iterable of str
        Methods of the family that have no precondition, so that `refused` cannot show them.

    Returns
    -------
    list of str
        One sentence a problem; empty if all is well.
    """
    known = [name for names in FAMILIES.values() for name in names]
    actual = public_methods()
    problems = [f"{name} stands in two families" for name in sorted({n for n in known if known.count(n) > 1})]
    problems += [f"Schedule.{name} is in no family of the catalogue" for name in sorted(actual - set(known))]
    problems += [f"the catalogue has {name}, the class has not" for name in sorted(set(known) - actual)]
    if family is not None:
        excused = set(never_refused)
        problems += [f"{name} is shown nowhere" for name in FAMILIES[family] if name not in SHOWN]
        problems += [
            f"nothing shows what {name} refuses"
            for name in FAMILIES[family]
            if name not in REFUSED and name not in excused
        ]
        problems += [f"{name} is said to refuse nothing, but it did" for name in sorted(excused & set(REFUSED))]
    return problems


def _single(mod: tvm.IRModule) -> PrimFunc:
    """The function of a module: ``main``, or the only one."""
    functions = {var.name_hint: func for var, func in mod.functions.items()}
    return functions["main"] if "main" in functions else next(iter(functions.values()))


def root_text(obj: Any) -> str:
    """Text of the body of a function, from its root block on, without its outermost indentation.

    Parameters
    ----------
    obj : Schedule, IRModule or PrimFunc
        A module must have a function ``main`` or only one function.
    """
    if isinstance(obj, s_tir.Schedule):
        obj = obj.mod
    func = _single(obj) if isinstance(obj, tvm.IRModule) else obj
    lines = ir.script(func).splitlines()
    # A long signature does not fit on one line only in classes; the printer writes it on one.
    start = next(number for number, line in enumerate(lines) if line.startswith("def ")) + 1
    body = [line for line in lines[start:] if "T.func_attr" not in line and '# with T.sblock("root")' not in line]
    return "\n".join(line[4:] if line.startswith("    ") else line for line in body)


def changes(before: Any, after: Any, context: int = 1) -> str:
    """Difference of two functions in which a line that only moved to the right or left counts as unchanged.

    Parameters
    ----------
    before, after : Schedule, IRModule, PrimFunc or str
        The two states.
    context : int
        Unchanged lines to keep around a change.

    Returns
    -------
    str
        Lines that begin with ``-`` (gone), ``+`` (new) or a blank (kept, as they stand after the
        change); ``...`` marks kept lines that are left out. ``no change`` if there is none.
    """
    old, new = (obj if isinstance(obj, str) else root_text(obj) for obj in (before, after))
    old_lines, new_lines = old.splitlines(), new.splitlines()
    matcher = difflib.SequenceMatcher(
        None,
        [line.strip() for line in old_lines],
        [line.strip() for line in new_lines],
        autojunk=False,
    )
    out: list[str] = []
    last = 0
    for group in matcher.get_grouped_opcodes(context):
        if group[0][3] > last:
            out.append(" ...")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                out += [f" {line}" for line in new_lines[j1:j2]]
            else:
                out += [f"-{line}" for line in old_lines[i1:i2]]
                out += [f"+{line}" for line in new_lines[j1:j2]]
        last = group[-1][4]
    if not out:
        return "no change"
    if last < len(new_lines):
        out.append(" ...")
    return "\n".join(out)


@dataclass(frozen=True)
class Workload:
    """A TensorIR function together with what it must compute.

    Attributes
    ----------
    func : PrimFunc
        The function, with parameters that are buffers of constant shape.
    reference : callable
        Gets one numpy array for each parameter and writes the results into them, as the function
        does.
    tolerance : float
        Largest difference that is accepted, relative and absolute. Reordering a sum of floats
        changes its last bits.
    """

    func: PrimFunc
    reference: Callable[..., Any]
    tolerance: float = 1e-4

    def schedule(self, **options: Any) -> s_tir.Schedule:
        """A fresh schedule with seed 1 and all internal checks on; `options` override both."""
        return s_tir.Schedule(self.func, **({"seed": 1, "debug_mask": "all"} | options))

    @cached_property
    def arguments(self) -> list[np.ndarray]:
        """One random array for each parameter; those that the function only writes are random too.

        Floats are standard normal, integers lie in [0, 8).
        """
        rng = np.random.default_rng(0)
        arrays = []
        for param in self.func.params:
            shape = tuple(int(extent) for extent in param.shape)
            dtype = str(param.dtype)
            if dtype.startswith(("int", "uint")):
                arrays.append(rng.integers(0, 8, shape).astype(dtype))
            else:
                arrays.append(rng.standard_normal(shape).astype(dtype))
        return arrays

    @cached_property
    def expected(self) -> list[np.ndarray]:
        """What numpy computes."""
        arrays = [array.copy() for array in self.arguments]
        self.reference(*arrays)
        return arrays

    @cached_property
    def unscheduled(self) -> list[np.ndarray]:
        """What the function computes before any schedule."""
        return self.run(self.func)

    def run(self, obj: Any) -> list[np.ndarray]:
        """Compile a function for this machine's kind of CPU and run it on the arguments.

        Parameters
        ----------
        obj : Schedule, IRModule or PrimFunc

        Returns
        -------
        list of numpy.ndarray
            All parameters after the call.
        """
        mod = obj.mod if isinstance(obj, s_tir.Schedule) else obj
        tensors = [tvm.runtime.tensor(array) for array in self.arguments]
        tvm.compile(mod, target="llvm")(*tensors)
        return [tensor.numpy() for tensor in tensors]

    def error(self, obj: Any) -> float:
        """Largest difference between a function and numpy; infinite if a result is not a number."""
        pairs = zip(self.run(obj), self.expected, strict=True)
        worst = max(float(np.abs(got.astype("float64") - want).max()) for got, want in pairs)
        return worst if np.isfinite(worst) else float("inf")

    def agrees(self, obj: Any) -> bool:
        """Whether a function computes what numpy and the unscheduled function compute."""
        results = self.run(obj)
        return all(
            np.allclose(got, want, rtol=self.tolerance, atol=self.tolerance)
            for wants in (self.expected, self.unscheduled)
            for got, want in zip(results, wants, strict=True)
        )


def _calls(sch: s_tir.Schedule) -> list[str]:
    """Names of the methods that the trace of a schedule has recorded.

    The instructions are named like the methods, but for capitals and underscores: ``ReIndex``,
    ``UnsafeSetDType``. (``Trace.as_python`` would spell them out, but it fails on some.)
    """
    spelled = {name.replace("_", ""): name for name in public_methods()}
    return [spelled[inst.kind.name.lower()] for inst in sch.trace.insts]


@contextmanager
def step(
    sch: s_tir.Schedule,
    workload: Workload | None,
    *,
    context: int = 1,
    lines: int | tuple[int, int] | None = None,
    prepare: Callable[[s_tir.Schedule], Any] | None = None,
    why_not_run: str | None = None,
    also: Iterable[str] = (),
) -> Iterator[None]:
    """Show what the statements of the block do to the function, and check the result.

    Parameters
    ----------
    sch : Schedule
        A traced schedule.
    workload : Workload or None
        What the function must still compute; None only with `why_not_run`.
    context : int
        See `changes`.
    lines : int or (int, int), optional
        Cut the difference (the cut is said).
    prepare : callable, optional
        A named function that changes a copy of the schedule before it is compiled, for IR that a
        CPU cannot run as it is (thread bindings of a GPU). The reader is told its name.
    why_not_run : str, optional
        A reason not to compile at all; it is printed.
    also : iterable of str
        Methods that the block calls and that leave no instruction in the trace.

    Raises
    ------
    AssertionError
        If the scheduled function computes something else.
    """
    before, calls = sch.mod, len(_calls(sch))
    yield
    names = _calls(sch)[calls:]
    _note(SHOWN, [*names, *also])
    text = changes(before, sch.mod, context)
    print(text if lines is None else ir.cut(text, lines=lines))
    if why_not_run is not None:
        print(f"not run: {why_not_run}")
        return
    if workload is None:
        raise ValueError("step needs a workload, or a reason not to run")
    runnable, which = sch, "result"
    if prepare is not None:
        runnable, which = sch.copy(), f"result after {prepare.__name__}()"
        prepare(runnable)
    if not workload.agrees(runnable):
        raise AssertionError(f"after {', '.join(names)} the function is wrong by {workload.error(runnable):.3g}")
    print(f"{which}: equal to numpy and to the unscheduled function")


def refused(
    primitive: str,
    match: str,
    error: type[BaseException] | tuple[type[BaseException], ...] = ScheduleError,
    *,
    max_lines: int = 12,
) -> expect_error:
    """Context manager for a primitive that must say no; prints the reason without the annotated module.

    Parameters
    ----------
    primitive : str
        Name of the method that is refused, for the catalogue.
    match : str
        Regular expression that must be found in the message.
    error : type or tuple of types
        The expected exception.
    max_lines : int
        See `expect_error`.

    Returns
    -------
    expect_error
    """
    if primitive not in public_methods():
        raise ValueError(f"Schedule has no method {primitive!r}")
    _note(REFUSED, [primitive])
    rendered = isinstance(error, type) and issubclass(error, ScheduleError)
    return expect_error(error, match, max_lines=max_lines, from_line="Error message:" if rendered else None)
