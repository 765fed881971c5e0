"""The pass recorder."""

import itertools
import time

import pytest
import tvm
import tvm_ffi
from tvm import relax, s_tir
from tvm.ir.instrument import pass_instrument
from tvm.script import tirx as T

from tvm_deepdive_helpers import passes
from tvm_deepdive_helpers.ir import script
from tvm_deepdive_helpers.passes import PassRecorder, format_table, record
from tvm_deepdive_helpers.running_example import MLP


@pass_instrument
class Witness:
    """An independent record: structural equality with the module that was there before.

    It holds the old module, so it is blind to changes in place. (A copy through JSON would not do: after
    MakePackedAPI, a module is not structurally equal to its own copy.)
    """

    def __init__(self):
        self.stack, self.rows, self.begun = [], {}, 0

    def run_before_pass(self, mod, info):
        self.stack.append((self.begun, mod, mod.script()))
        self.begun += 1

    def run_after_pass(self, mod, info):
        index, before, text = self.stack.pop()
        changed = not tvm_ffi.structural_equal(before, mod)
        self.rows[index] = (str(info.name), len(self.stack), changed, mod.script() != text, len(mod.functions))


@pytest.fixture(scope="module")
def build():
    recorder, witness = PassRecorder(keep_scripts=True), Witness()
    with tvm.transform.PassContext(instruments=[recorder, witness]):
        tvm.compile(MLP, "llvm")
    return recorder, witness


def test_build_of_the_running_example(build):
    recorder, _ = build
    assert [len(recorder.rows), len(recorder.leaves), len(recorder.changing)] == [79, 69, 22]


def test_against_an_independent_record(build):
    recorder, witness = build
    assert witness.begun == len(recorder.rows)
    got = {row.index: (row.name, row.depth, row.changed, row.text_changed, row.functions) for row in recorder.rows}
    assert got == witness.rows


def test_rows_are_in_order_and_nested(build):
    rows = build[0].rows
    assert [row.index for row in rows] == list(range(len(rows)))
    for row in rows:
        children = [other for other in rows if other.parent == row.index]
        assert row.leaf == (not children)
        assert all(child.depth == row.depth + 1 and child.index > row.index for child in children)
        assert row.wall_ms >= sum(child.wall_ms for child in children) > -1e-9
        assert row.lines == len(row.script.splitlines())
        for child in children:
            assert row.start_ms <= child.start_ms
            assert child.start_ms + child.wall_ms <= row.start_ms + row.wall_ms + 1e-6


def test_scripts_only_when_asked():
    with record() as recorder:
        after = relax.transform.LegalizeOps()(MLP)
    [row] = recorder.rows
    assert row.script is None and row.name == "LegalizeOps" and row.lines == len(script(after).splitlines())
    with record(keep_scripts=True) as recorder:
        relax.transform.LegalizeOps()(MLP)
    assert recorder.rows[0].script == script(after)


def test_change_in_place_is_seen():
    @tvm.transform.module_pass(opt_level=0, name="rename_in_place")
    def in_place(mod, ctx):
        mod["twin"] = mod["main"].with_attr("global_symbol", "twin")
        return mod

    mod = tvm.IRModule({"main": MLP["main"]})
    with record() as recorder:
        in_place(mod)
    assert "twin" in {var.name_hint for var in mod.functions}, "the pass must work in place for this test"
    assert recorder.rows[0].changed and recorder.rows[0].functions == 2


def test_own_cost_is_not_counted(monkeypatch):
    real = passes.script

    def slow(mod):
        time.sleep(0.02)
        return real(mod)

    monkeypatch.setattr(passes, "script", slow)

    @tvm.transform.module_pass(opt_level=0, name="nothing")
    def nothing(mod, ctx):
        return mod

    with record() as recorder:
        tvm.transform.Sequential([nothing, nothing, nothing], name="outer")(MLP)
    outer, *inner = recorder.rows
    assert outer.name == "outer" and len(inner) == 3
    # Six slow texts were made inside of `outer`: 120 ms that do not belong to it.
    assert outer.wall_ms < 60 and all(row.wall_ms < 15 for row in inner)
    assert recorder.timeline()[-1].start_ms < 60


def test_pass_that_raises():
    @tvm.transform.module_pass(opt_level=0, name="broken")
    def broken(mod, ctx):
        raise ValueError("broken")

    recorder = PassRecorder()
    with pytest.raises(ValueError, match="broken"), tvm.transform.PassContext(instruments=[recorder]):
        tvm.transform.Sequential([relax.transform.LegalizeOps(), broken], name="outer")(MLP)
    assert [(row.name, row.failed) for row in recorder.rows] == [
        ("outer", True),
        ("LegalizeOps", False),
        ("broken", True),
    ]
    # It can be used again.
    with tvm.transform.PassContext(instruments=[recorder]):
        relax.transform.LegalizeOps()(MLP)
    assert recorder.rows[-1].depth == 0 and not recorder.rows[-1].failed


def test_table(build, capsys):
    recorder, _ = build
    recorder.table(changing=True)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 22 + 1 and lines[-1] == "... 57 more"
    marks = [line.split()[2] for line in lines[1:-1]]
    # FP8StorageLegalize makes a new body that prints as the old one.
    assert (
        marks.count("*") == 21
        and marks[[line.split()[1] for line in lines].index("tirx.FP8StorageLegalize") - 1] == "~"
    )
    assert " ms" not in lines[0]
    recorder.table(names="LegalizeOps$", times=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("ms") and lines[1].split()[1] == "LegalizeOps"
    recorder.table(first=3)
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_table_is_aligned(build):
    lines = format_table(build[0].rows).splitlines()
    column = lines[0].index("functions") + len("functions")
    assert all(line[column] == " " and line[column - 1].isdigit() for line in lines[1:])


@T.prim_func(s_tir=True)
def _copy(A: T.Buffer((64,), "float32"), B: T.Buffer((64,), "float32")):
    for i in range(64):
        with T.sblock("B"):
            v = T.axis.spatial(64, i)
            B[v] = A[v]


def test_stages_are_those_of_a_build():
    with record() as log:
        tvm.tirx.build(_copy, target="llvm")
    steps = passes.tir_stages(_copy)
    # A pass that calls others is one stage; the lists themselves and the two Filters are none.
    inside = {row.index for row in log.rows if row.name not in ("sequential", "_pipeline")}
    expected = [row.name for row in log.rows if row.index in inside and row.parent not in inside]
    assert [step.name for step in steps] == [name for name in expected if name != "tirx.Filter"]
    lowering = [step for step in steps if not step.name.startswith(("tirx.LowerTVM", "tirx.LowerIntrin"))]
    assert all(tvm_ffi.structural_equal(one.after, two.before) for one, two in itertools.pairwise(lowering))
    changing = {step.name for step in steps if step.changed}
    # AnnotateEntryFunc changes the module that it gets.
    assert changing >= {"tirx.MakePackedAPI", "s_tir.LowerOpaqueBlock", "tirx.AnnotateEntryFunc"}
    assert changing >= {step.name for step in steps if step.text_changed}


def test_stages_for_a_gpu_and_with_an_option():
    sch = s_tir.Schedule(_copy)
    sch.bind(sch.get_loops("B")[0], "threadIdx.x")
    steps = passes.tir_stages(sch.mod, {"kind": "cuda", "arch": "sm_80"})
    assert [step.name for step in steps if step.name == "tirx.LowerWarpMemory"]
    (split,) = [step for step in steps if step.name == "tirx.SplitHostDevice"]
    assert split.changed and len(split.after.functions) == 2
    quick = passes.tir_stages(_copy, config={"tirx.disable_cse_tir": True})
    assert "tirx.CommonSubexprElim" not in [step.name for step in quick]
