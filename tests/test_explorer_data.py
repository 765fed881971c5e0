"""The data of the explorer, its directive and its role."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path

import pytest

from tvm_deepdive_helpers import explorer
from tvm_deepdive_helpers.explorer import Step, changed_lines, dumps, loads, pack, summary, unpack
from tvm_deepdive_helpers.sphinxext import records

ROOT = Path(__file__).resolve().parent.parent


def module(**functions: str) -> str:
    """Text of a module, as TVM prints it."""
    lines = ["@I.ir_module", "class Module:"]
    for name, body in functions.items():
        lines += ["    @T.prim_func", f"    def {name}():", *(f"        {line}" for line in body.split(";")), ""]
    return "\n".join(lines).rstrip("\n")


FIRST = module(a="x = 1;y = 2", b="z = 3")
SECOND = module(a="x = 1;w = 5;y = 22", b="z = 3")
THIRD = module(b="z = 3", c="v = 4")


def steps() -> list[Step]:
    return [
        Step("One", FIRST, SECOND, "tir", 1.25),
        Step("Quiet", SECOND, SECOND, "tir", 0.5, changed=False),
        Step("Hidden", SECOND, SECOND, "tir", 0.5),
        Step("", SECOND, THIRD, "tir"),
        Step("Fork", SECOND, FIRST, "finish", 0.1),
    ]


def test_what_is_unpacked_is_what_was_recorded() -> None:
    data = loads(dumps(pack("key", steps())))
    assert unpack(data) == [(step.before, step.after) for step in steps()]
    assert [step["n"] for step in data["steps"]] == ["One", "Quiet", "Hidden", "", "Fork"]


def test_each_line_is_kept_once_and_the_marks_are_right() -> None:
    data = pack("key", steps())
    assert len(data["lines"]) == len(set(data["lines"]))
    one, quiet, hidden, gap, fork = data["steps"]
    assert set(one["d"]) == {"a"} and changed_lines(one) == (2, 1)
    assert "d" not in quiet and "c" not in quiet
    assert "d" not in hidden and hidden["c"] == 1
    assert gap["o"] == ["", "b", "c"] and "t" not in gap
    assert fork["f"] == 1, "it starts from the state before the last one"


def test_a_step_that_starts_from_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="no earlier step"):
        pack("key", [Step("One", FIRST, SECOND), Step("Two", THIRD, FIRST)])


def test_a_changed_line_stands_beside_what_it_became() -> None:
    """Also when lines are put in before it: the pairs are found by likeness, not by order."""
    before = module(a="B[i] = A[i] + 1")
    after = module(a="first = 0;second = 0;B[i] = A[i * 16] + 1;last = 0")
    [step] = pack("key", [Step("One", before, after)])["steps"]
    pairs = [hunk for hunk in step["d"]["a"] if hunk[1] == 1 and len(hunk[2]) == 1]
    assert len(pairs) == 1 and changed_lines(step) == (4, 1)


@pytest.mark.parametrize("seed", range(25))
def test_random_changes_come_back(seed: int) -> None:
    random.seed(seed)
    words = ["x = 1", "y = 2", "y = 22", "for i in range(3):", "A[i] = 0", "", "A[i] = A[i] + 1"]
    texts = []
    for _ in range(6):
        names = random.sample("abcd", random.randint(1, 4))
        texts.append(module(**{n: ";".join(random.choices(words, k=random.randint(1, 12))) for n in names}))
    made = []
    at = 0
    for number, text in enumerate(texts[1:], start=1):
        made.append(Step(f"S{number}", texts[at], text))
        at = random.randint(0, number)
        if texts.index(texts[at]) != at:
            at = number
    assert unpack(loads(dumps(pack("key", made)))) == [(step.before, step.after) for step in made]


def test_summary_names_what_changes() -> None:
    assert summary(pack("key", steps())).split("\n")[0].split() == ["1", "One", "+2", "-1"]


def test_the_data_need_no_tvm() -> None:
    """Sphinx reads them, and its process never loads TVM."""
    text = Path(explorer.__file__).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import tvm\b|from tvm\b|from \.(ir|passes) )", text, re.M)


# ------------------------------------------------------------------------------------------ recording


def test_a_build_is_recorded_from_relax_to_the_end() -> None:
    tvm = pytest.importorskip("tvm")
    from tvm_deepdive_helpers.ir import script
    from tvm_deepdive_helpers.record_steps import build_steps
    from tvm_deepdive_helpers.running_example import MLP

    found = build_steps(lambda: tvm.compile(MLP, "llvm"))
    names = [step.name for step in found]
    assert found[0].before == script(MLP)
    assert names[:3] == ["DispatchSampling", "DispatchSortScan", "LegalizeOps"]
    assert names[-1] == "tirx.LowerIntrin" and names.count("") == 1 and names.count("tirx.Filter") == 2
    assert {step.phase for step in found} == {"relax", "tir", "finish"}
    assert not {"sequential", "_pipeline"} & set(names)
    legal = next(step for step in found if step.name == "LegalizeOps")
    assert legal.after == script(tvm.relax.transform.LegalizeOps()(MLP)), "the pass alone does the same"
    assert unpack(pack("mlp", found)) == [(step.before, step.after) for step in found]


def test_a_trace_is_replayed_step_by_step() -> None:
    pytest.importorskip("tvm")
    from tvm import s_tir, te

    from tvm_deepdive_helpers.ir import script
    from tvm_deepdive_helpers.record_steps import trace_steps

    a = te.placeholder((64,), name="A")
    func = te.create_prim_func([a, te.compute((64,), lambda i: a[i] + 1.0, name="B")])
    sch = s_tir.Schedule(func, seed=3)
    [loop] = sch.get_loops("B")
    outer, inner = sch.split(loop, sch.sample_perfect_tile(loop, n=2))
    sch.vectorize(inner)
    sch.parallel(outer)
    found = trace_steps(func, sch.trace)
    assert [step.name for step in found] == [
        "GetSBlock", "GetLoops", "SamplePerfectTile", "Split", "Vectorize", "Parallel",
    ]  # fmt: skip
    assert found[0].before == script(s_tir.Schedule(func).mod) and found[-1].after == script(sch.mod)
    assert [step.changed for step in found] == [False, False, False, True, True, True]
    assert found[2].decision and "sample_perfect_tile" in found[2].code and not found[3].decision
    assert all(last.after == step.before for last, step in pairwise(found))


# ------------------------------------------------------------------------------------- the real pages


def shown(page: str) -> str:
    return (ROOT / f"book/8-appendix/{page}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "script"), [("pass-explorer", "pass_explorer"), ("schedule-explorer", "schedule_explorer")]
)
def test_every_step_has_its_page_and_source(page: str, script: str) -> None:
    """Each name of the recorded data stands in the table of the page, and nothing else does."""
    path = ROOT / f"book/gallery/8-appendix/{script}.cells.json"
    if not path.is_file():
        pytest.skip("the book is not built")
    record = records.load(path)
    named = re.findall(r"^(\w+): ", re.search(r"```\{explorer\}.*?```", shown(page), re.S)[0], re.M)
    names = {step["n"] for key in named for step in loads(record.value(key))["steps"]} - {""}
    table = re.findall(r"^\| `([\w.]+)` \| \[\]\(/[\w./#-]+\) \| \{tvm-(?:py|cpp)\}`", shown(page), re.M)
    assert len(table) == len(set(table))
    assert set(table) == names


def test_the_static_files_are_small_and_plain() -> None:
    folder = ROOT / "src/tvm_deepdive_helpers/sphinxext/static"
    code = (folder / "explorer.js").read_text(encoding="utf-8")
    assert len(code.encode()) < 17_000
    assert not re.search(r"\beval\b|\bFunction\(|innerHTML|https?://|\bfetch\b|\bimport\b", code)


# ----------------------------------------------------------------------------------- directive and role

SCRIPT = """
# %% cell: data
from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.explorer import Step, dumps, pack

A = "class Module:\\n    @T\\n    def a():\\n        x = 1"
B = A.replace("1", "2")
steps = [Step("One", A, B, "tir", 1.5), Step("Two", B, B, "tir", 0.5, changed=False)]
glue("demo", dumps(pack("demo", steps)), varies=True)
glue("number", 1)
print(1)
"""
PAGE = """
```{explorer} 1-part/steps
demo: A small module
```

See {explorer}`demo:One` and {explorer}`the other <demo:2>`.
"""


def test_the_page_has_the_plain_list_and_the_data(book) -> None:
    book.script("steps", SCRIPT)
    book.page("explore", PAGE)
    book.good_build()
    html = book.html("explore")
    assert "A small module" in html and "+1 −1" in html and "unchanged" in html and "1.50" in html
    data = re.search(r'<script type="application/octet-stream">([\w+/=]+)</script>', html)[1]
    assert [step["n"] for step in loads(data)["steps"]] == ["One", "Two"]
    assert 'href="#module=demo&amp;pass=One"' in html and 'href="#module=demo&amp;pass=2"' in html
    assert "explorer.js" in html and "explorer.js" not in book.html("always")
    assert (book.out / "_static/explorer.css").is_file()


def test_print_shows_the_list_alone(book) -> None:
    book.script("steps", SCRIPT)
    book.page("explore", PAGE)
    book.good_build(builder="latex")
    [tex] = (book.root / "_build/latex").glob("*.tex")
    text = tex.read_text(encoding="utf-8")
    assert "A small module" in text and "the other" in text
    assert not re.search(r"[\w+/]{60}", text), "no packed data in print"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("```{explorer} 1-part/steps\nnothing: T\n```", "glues no 'nothing'"),
        ("```{explorer} 1-part/steps\nnumber: T\n```", "no packed explorer data"),
        ("```{explorer} 1-part/steps\ndemo\n```", "is not 'name: title'"),
        (PAGE.replace("demo:One", "demo:Three"), "no step 'Three' in 'demo'"),
        (PAGE.replace("`demo:One", "`demos:One"), "no explorer shows 'demos'"),
    ],
)
def test_what_does_not_exist_fails_the_build(book, page: str, message: str) -> None:
    book.script("steps", SCRIPT)
    book.page("explore", page)
    assert message in book.bad_build()
