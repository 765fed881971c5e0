"""Record the passes of a build, or the instructions of a schedule, as steps for the explorer (`explorer`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir

from .explorer import Step
from .ir import script
from .passes import PassRecorder, PassRow

__all__ = ["build_steps", "trace_steps"]

#: Passes that only call others in turn.
_LISTS = ("sequential", "_pipeline")


class _Recorder(PassRecorder):
    """Keeps the text before each pass too."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(keep_scripts=True)
        self.before: dict[int, str] = {}

    def run_before_pass(self, mod: tvm.IRModule, info: Any) -> None:
        """Open a row, and keep the text that the recorder made for it."""
        super().run_before_pass(mod, info)
        self.before[self._stack[-1].index] = self._stack[-1].text


def build_steps(build: Callable[[], Any], repeats: int = 1, **context: Any) -> list[Step]:
    """Run a build, and return its passes in order.

    Parameters
    ----------
    build : callable
        Compiles something.
    repeats : int
        How often it is run; each pass has the shortest of its times, because everything else on a machine only adds.
    **context
        Arguments of the pass context, such as ``config``.

    Returns
    -------
    list of Step
        A pass that calls others (``HoistIfThenElse``) is one step; a pipeline is none. Where a pass gets a module that
        no earlier step left, a step without a name stands before it.
    """
    runs = [_recorded(build, context) for _ in range(repeats)]
    for steps in runs[1:]:
        if [step.name for step in steps] != [step.name for step in runs[0]]:
            raise ValueError("the build did not run the same passes again")
    return [
        replace(step, ms=None if step.ms is None else min(run[at].ms for run in runs))
        for at, step in enumerate(runs[0])
    ]


def _recorded(build: Callable[[], Any], context: dict[str, Any]) -> list[Step]:
    recorder = _Recorder()
    with tvm.transform.PassContext(instruments=[recorder], **context):
        build()
    steps: list[Step] = []
    seen: set[str] = set()
    phase = "tir"
    for row in _outermost(recorder.rows):
        before = recorder.before[row.index]
        if steps and before not in seen:
            steps.append(Step("", steps[-1].after, before, phase))
        phase = "relax" if "@R.function" in before else "finish" if "Filter" in row.name else phase
        if phase == "relax" and "@R.function" not in before:
            phase = "tir"
        after = row.script if row.script is not None else before
        steps.append(Step(row.name, before, after, phase, row.wall_ms, row.changed))
        seen |= {before, after}
    return steps


def _outermost(rows: Sequence[PassRow]) -> list[PassRow]:
    """Rows that only lists of passes called, without the lists."""
    by_index = {row.index: row for row in rows}
    found = []
    for row in rows:
        parent = row.parent
        while parent is not None and by_index[parent].name in _LISTS:
            parent = by_index[parent].parent
        if parent is None and row.name not in _LISTS:
            found.append(row)
    return found


def trace_steps(func: Any, trace: s_tir.schedule.Trace) -> list[Step]:
    """Replay a trace one instruction at a time.

    Parameters
    ----------
    func : PrimFunc or IRModule
        What the trace was made for.
    trace : Trace
        With its decisions.

    Returns
    -------
    list of Step
        One for each instruction. Instructions that only look something up, such as ``GetLoops``, change nothing.
    """
    insts = list(trace.insts)
    lines = [str(line) for line in trace.as_python()]
    if len(lines) != len(insts):
        raise ValueError(f"{len(insts)} instructions, but {len(lines)} lines of Python")
    again = s_tir.Schedule(func)
    states: list[tvm.IRModule] = []

    def look(_inst: Any, _inputs: Any, _attrs: Any, decision: Any) -> Any:
        """Called before each instruction: what the last one left, and the decision as it is."""
        states.append(again.mod)
        return decision

    trace.apply_to_schedule(again, remove_postproc=False, decision_provider=look)
    states.append(again.mod)
    texts = [script(mod) for mod in states]
    steps = []
    for at, (inst, line) in enumerate(zip(insts, lines, strict=True)):
        decision = trace.get_decision(inst)
        steps.append(
            Step(
                name=str(inst.kind.name),
                before=texts[at],
                after=texts[at + 1],
                changed=not tvm_ffi.structural_equal(states[at], states[at + 1]),
                code=line,
                decision="" if decision is None else str(decision),
            )
        )
    return steps
