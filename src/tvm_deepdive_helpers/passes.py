"""Record every pass of a build.

TVM calls the methods of a *pass instrument* before and after each pass of the `PassContext` that carries it
(``tvm.ir.instrument``). `PassRecorder` is such an instrument: it keeps one row per invocation, with nested passes.

>>> recorder = PassRecorder()                                              # doctest: +SKIP
>>> with tvm.transform.PassContext(instruments=[recorder]):                # doctest: +SKIP
...     tvm.compile(mod, "llvm")
>>> recorder.table(changing=True)                                          # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
import tvm_ffi
from tvm.ir.instrument import PassInstrument

from .ir import script

__all__ = ["PassRecorder", "PassRow", "Span", "Stage", "format_table", "record", "tir_stages"]


@dataclass(frozen=True)
class PassRow:
    """One invocation of one pass.

    Attributes
    ----------
    index : int
        Order in which the passes *begin*, from 0.
    depth : int
        Number of passes that were running when it began.
    parent : int or None
        `index` of the pass that called it.
    name : str
        As the pass is registered (``PassInfo.name``); pipelines have names as well.
    opt_level : int
        ``PassInfo.opt_level``.
    start_ms, wall_ms : float
        When it began, after the first pass did, and how long it took, in milliseconds of wall time; the time that
        the recorder needs for itself is taken out, also where passes are nested.
    changed : bool
        The module after it is structurally different from the module before it (by structural hash, taken before,
        because a pass may change the module in place). Names of variables do not count.
    text_changed : bool
        The module prints differently. A pass can replace what the printer does not show (`changed` only), or rename
        variables (`text_changed` only).
    functions, lines : int
        Functions of the module after it, and lines of its text.
    leaf : bool
        It called no other pass.
    failed : bool
        It raised, so that what is "after" was never seen; the sizes are those before it.
    script : str or None
        The module's text after it, if the recorder keeps scripts.
    """

    index: int
    depth: int
    parent: int | None
    name: str
    opt_level: int
    start_ms: float
    wall_ms: float
    changed: bool
    text_changed: bool
    functions: int
    lines: int
    leaf: bool
    failed: bool = False
    script: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Span:
    """A bar of a timeline: what ran when, in milliseconds, at which depth."""

    name: str
    start_ms: float
    ms: float
    depth: int


@dataclass
class _Open:
    """A pass that has begun and not ended."""

    index: int
    parent: int | None
    name: str
    opt_level: int
    hash: int
    text: str
    functions: int
    start: float
    overhead: float
    leaf: bool = True


class PassRecorder(PassInstrument):
    """Pass instrument that keeps one `PassRow` for every invocation.

    Parameters
    ----------
    keep_scripts : bool
        Keep the text of the module after every pass (in `PassRow.script`).

    Notes
    -----
    A pass context inside the build that names its own instruments hides this one; TVM's build does not open any.
    Passes that end in ``BlockBuilder.finalize`` and the like appear as nested rows (``NormalizeGlobalVar``).
    """

    # Objects of tvm_ffi have no __dict__ unless a class asks for one.
    __slots__ = ("__dict__",)

    def __init__(self, keep_scripts: bool = False) -> None:
        self.keep_scripts = keep_scripts
        self._rows: list[PassRow] = []
        self._stack: list[_Open] = []
        self._begun = 0
        self._overhead = 0.0
        self._zero: float | None = None
        super().__init__()

    # The four methods that TVM calls.

    def run_before_pass(self, mod: tvm.IRModule, info: Any) -> None:
        """Open a row."""
        entered = time.perf_counter()
        if self._stack:
            self._stack[-1].leaf = False
        opened = _Open(
            index=self._begun,
            parent=self._stack[-1].index if self._stack else None,
            name=str(info.name),
            opt_level=int(info.opt_level),
            hash=tvm_ffi.structural_hash(mod),
            functions=len(mod.functions),
            text=script(mod),
            start=0.0,
            overhead=0.0,
        )
        self._begun += 1
        self._stack.append(opened)
        if self._zero is None:
            self._zero = entered
        opened.start = time.perf_counter()
        self._overhead += opened.start - entered
        opened.overhead = self._overhead

    def run_after_pass(self, mod: tvm.IRModule, info: Any) -> None:
        """Close the row of the pass that ends."""
        ended = time.perf_counter()
        name = str(info.name)
        # A pass that raised inside another one which caught it never came here.
        while self._stack and self._stack[-1].name != name:
            self._close_failed(ended)
        if not self._stack:
            return
        opened = self._stack.pop()
        text = script(mod)
        row = self._row(opened, ended)
        self._rows.append(
            replace(
                row,
                changed=tvm_ffi.structural_hash(mod) != opened.hash,
                text_changed=text != opened.text,
                functions=len(mod.functions),
                lines=len(text.splitlines()),
                script=text if self.keep_scripts else None,
            )
        )
        self._overhead += time.perf_counter() - ended

    def exit_pass_ctx(self) -> None:
        """Close what an exception left open."""
        while self._stack:
            self._close_failed(time.perf_counter())

    def _row(self, opened: _Open, ended: float) -> PassRow:
        assert self._zero is not None
        return PassRow(
            index=opened.index,
            depth=len(self._stack),
            parent=opened.parent,
            name=opened.name,
            opt_level=opened.opt_level,
            start_ms=(opened.start - self._zero - opened.overhead) * 1e3,
            wall_ms=(ended - opened.start - (self._overhead - opened.overhead)) * 1e3,
            changed=False,
            text_changed=False,
            functions=opened.functions,
            lines=len(opened.text.splitlines()),
            leaf=opened.leaf,
        )

    def _close_failed(self, ended: float) -> None:
        opened = self._stack.pop()
        self._rows.append(replace(self._row(opened, ended), failed=True))

    # What was recorded.

    @property
    def rows(self) -> list[PassRow]:
        """All invocations, in the order in which they began."""
        return sorted(self._rows, key=lambda row: row.index)

    @property
    def leaves(self) -> list[PassRow]:
        """Invocations that called no other pass."""
        return [row for row in self.rows if row.leaf]

    @property
    def changing(self) -> list[PassRow]:
        """Leaves that changed the module."""
        return [row for row in self.leaves if row.changed]

    def find(self, name: str) -> list[PassRow]:
        """Invocations of the pass of this name."""
        return [row for row in self.rows if row.name == name]

    def table(
        self,
        *,
        leaves: bool = False,
        changing: bool = False,
        names: str | None = None,
        first: int | None = None,
        times: bool = False,
    ) -> None:
        """Print the rows as an aligned table, and how many rows were left out.

        Parameters
        ----------
        leaves : bool
            Only passes that called no other.
        changing : bool
            Only leaves that changed the module.
        names : str, optional
            Regular expression: only passes in whose name it is found.
        first : int, optional
            At most so many rows.
        times : bool
            Also print the milliseconds (which differ from run to run).
        """
        rows = self.changing if changing else self.leaves if leaves else self.rows
        if names is not None:
            rows = [row for row in rows if re.search(names, row.name)]
        rows = rows[:first]
        print(format_table(rows, times=times, indent=not (leaves or changing)))
        if left := len(self._rows) - len(rows):
            print(f"... {left} more")

    def timeline(self, *, leaves: bool = False) -> list[Span]:
        """Bars for `figures.timeline`: when each pass ran."""
        rows = self.leaves if leaves else self.rows
        return [Span(row.name, row.start_ms, row.wall_ms, row.depth) for row in rows]


def format_table(rows: Sequence[PassRow], *, times: bool = False, indent: bool = True) -> str:
    """Rows as an aligned table.

    In the column *changed*, ``*`` marks a pass that changed the module, ``~`` one whose change the printer does not
    show, and ``!`` one that raised.
    """
    head = ["#", "pass", "changed", "functions", "lines", *(["ms"] if times else [])]
    body = [
        [
            str(row.index),
            ("  " * row.depth if indent else "") + row.name,
            "!" if row.failed else "" if not row.changed else "*" if row.text_changed else "~",
            str(row.functions),
            str(row.lines),
            *([f"{row.wall_ms:.2f}"] if times else []),
        ]
        for row in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    left_aligned = {1, 2}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in left_aligned else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    )


@contextlib.contextmanager
def record(*, keep_scripts: bool = False, opt_level: int = 2, **context: Any) -> Iterator[PassRecorder]:
    """Record the passes that run inside of the ``with`` block.

    Parameters
    ----------
    keep_scripts : bool
        See `PassRecorder`.
    opt_level : int
        Of the pass context; TVM's own default is 2.
    **context
        Other arguments of ``tvm.transform.PassContext``, such as ``config`` or ``disabled_pass``.
    """
    recorder = PassRecorder(keep_scripts)
    with tvm.transform.PassContext(opt_level=opt_level, instruments=[recorder], **context):
        yield recorder


@dataclass(frozen=True)
class Stage:
    """One pass of a lowering, with the modules on both sides.

    Attributes
    ----------
    name : str
        As the pass is registered.
    before, after : IRModule
        Copies: a pass may change the module itself, as ``AnnotateEntryFunc`` does.
    """

    name: str
    before: tvm.IRModule
    after: tvm.IRModule

    @property
    def changed(self) -> bool:
        """Whether the pass changed the module structurally."""
        return not tvm_ffi.structural_equal(self.before, self.after)

    @property
    def text_changed(self) -> bool:
        """Whether the module prints differently."""
        return script(self.before) != script(self.after)


def _copy(mod: tvm.IRModule) -> tvm.IRModule:
    """A module with the same functions."""
    return tvm.IRModule(dict(mod.functions.items()), attrs=mod.attrs)


class _StageKeeper(PassInstrument):
    """Keeps the modules around every pass that calls no other."""

    __slots__ = ("__dict__",)

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._open: list[tuple[tvm.IRModule, int]] = []
        super().__init__()

    def run_before_pass(self, mod: tvm.IRModule, info: Any) -> None:
        """Remember the module, and how many passes had ended."""
        self._open.append((_copy(mod), len(self.stages)))

    def run_after_pass(self, mod: tvm.IRModule, info: Any) -> None:
        """Put the passes that this one called in its place, unless it is only a list of them."""
        before, ended = self._open.pop()
        name = str(info.name)
        if name not in ("sequential", "_pipeline"):
            self.stages[ended:] = [Stage(name, before, _copy(mod))]


def tir_stages(
    func: Any, target: Any = "llvm", *, pipeline: str = "default", config: dict[str, Any] | None = None
) -> list[Stage]:
    """Lower a function as ``tvm.tirx.build`` does, without code generation, and keep every step.

    Parameters
    ----------
    func : PrimFunc or IRModule
    target : str, dict or Target
        The host is LLVM if the target names none.
    pipeline : str
        Name of a TIR pipeline.
    config : dict, optional
        Options of the pass context.

    Returns
    -------
    list of Stage
        In order: the binding of the target, the pipeline, and the passes that finish host and device functions.
        A pass that calls others (``HoistIfThenElse``) is one stage.
    """
    from tvm.tirx.build import split_host_device_mods

    mod = func if isinstance(func, tvm.IRModule) else tvm.IRModule.from_expr(func)
    target = tvm.target.Target(target)
    keeper = _StageKeeper()
    with tvm.transform.PassContext(instruments=[keeper], config=config or {}):
        bound = target if target.host is not None else target.with_host("llvm")
        mod = tvm.tirx.transform.BindTarget(bound)(mod)
        lower, finish_host, finish_device = tvm.tirx.get_tir_pipeline(pipeline)
        mod = lower(mod)
        begin = len(keeper.stages)
        host, devices = split_host_device_mods(mod)
        del keeper.stages[begin:]  # The two passes Filter, which only sort the functions.
        finish_host()(host)
        for device in devices.values():
            finish_device()(device)
    return keeper.stages
