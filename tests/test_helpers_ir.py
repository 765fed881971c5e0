"""Printing, cutting, comparing and counting IR."""

import re

import numpy as np
import pytest
import tvm
import tvm_ffi
from tvm import relax, tirx

from tvm_deepdive_helpers.ir import count, cut, diff, diff_text, script, show, strip_llvm
from tvm_deepdive_helpers.running_example import MLP


@pytest.fixture(scope="module")
def legalized():
    return relax.transform.LegalizeOps()(MLP)


def test_script_has_no_header_unless_asked():
    assert script(MLP).startswith("@I.ir_module\nclass Module:")
    assert script(MLP, header=True).startswith("# from tvm.script import ir as I\n")
    assert script(MLP["main"]).startswith("@R.function\ndef main(")
    # What is left parses back to the same module.
    assert tvm_ffi.structural_equal(tvm.script.from_source(script(MLP, header=True)), MLP)


def test_script_of_parts_and_of_texts():
    call = MLP["main"].body.blocks[0].bindings[0].value
    assert script(call) == "R.matmul(x, w1, out_dtype=None)"
    assert script(tirx.Var("i", "int32") + 1).endswith("i + 1")
    assert script("\n\x1b[31mred\x1b[0m  \n\n") == "red"


def test_cut_by_lines():
    text = "\n".join("abcdef")
    assert cut(text, lines=2) == "a\nb\n# ... 4 lines"
    assert cut(text, lines=(2, 3)) == "# ... 1 line\nb\nc\n# ... 3 lines"
    assert cut(text, lines=(5, 99)) == "# ... 4 lines\ne\nf"
    assert cut(text, lines=6) == text
    for bad in ((0, 2), (3, 2), 0, (7, 9)):
        with pytest.raises(ValueError):
            cut(text, lines=bad)


def test_cut_by_pattern():
    text = "\n".join(["a", "    b", "    c", "    d", "    e", "    x", "g", "h"])
    # The gap of one line between d and x is shown, not announced.
    assert cut(text, keep="x|d", context=0) == "    # ... 3 lines\n    d\n    e\n    x\n    # ... 2 lines"
    assert cut(text, keep="b", context=1) == "a\n    b\n    c\n    # ... 5 lines"
    assert cut(text, start="x", comment=";").splitlines()[0] == "    ; ... 5 lines"
    with pytest.raises(ValueError, match="keep='zz'"):
        cut(text, keep="zz")
    with pytest.raises(ValueError, match="start='zz'"):
        cut(text, start="zz")


def test_cut_loses_no_line(legalized):
    text = script(legalized)
    short = cut(text, keep=r"call_tir", context=1)
    said = sum(int(n) for n in re.findall(r"^\s*# \.\.\. (\d+) lines?$", short, re.M))
    kept = [line for line in short.splitlines() if not re.match(r"\s*# \.\.\. \d+ line", line)]
    assert said + len(kept) == len(text.splitlines())
    assert set(kept) <= set(text.splitlines())


def test_show(capsys, legalized):
    show(legalized, keep=r"def main", context=0)
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.strip().startswith("# ...") and second.strip().startswith("def main(") and "# ..." in third


def test_diff(capsys, legalized):
    diff(MLP, MLP)
    assert capsys.readouterr().out == "no difference\n"
    diff(MLP["main"], legalized["main"], context=0)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("-") for line in lines) == 5  # five operators …
    assert sum(line.startswith("+") and "R.call_tir" in line for line in lines) == 5  # … become five calls
    assert not any(line.startswith(("---", "+++")) for line in lines)


def test_diff_keeps_lines_that_look_like_file_headers():
    assert diff_text("a\n-- x", "a\n++ y", context=0).splitlines() == ["@@ -2 +2 @@", "--- x", "+++ y"]


def test_diff_is_honest_about_what_is_not_printed():
    a, b = tirx.Var("x", "int32"), tirx.Var("x", "int32")
    assert diff_text(a, b) == "no difference"  # Free variables stand for each other.
    # The numbers in a large constant are not printed.
    ones, twos = (relax.op.abs(relax.const(np.full(9, value, "float32"))) for value in (1, 2))
    assert script(ones) == script(twos)
    assert diff_text(ones, ones) == "no difference"
    assert diff_text(ones, twos).startswith("no difference in the text, but")


def test_count(legalized):
    assert count(legalized).kinds == {"Function": 1, "PrimFunc": 5}
    assert count(legalized).functions == len(legalized.functions) == 6
    assert count(legalized).lines == len(script(legalized).splitlines())
    assert count(legalized["relu"]).functions == 1
    assert (count("a\nb").lines, count("a\nb").functions) == (2, 0)


def test_strip_llvm():
    lib = tvm.compile(MLP, "llvm").mod.imports[0]
    text = lib.inspect_source("ll")
    stripped = strip_llvm(text)
    assert "!dbg" not in stripped.text and "DILocation" not in stripped.text
    assert not any(line.startswith(("!", "attributes")) for line in stripped.text.splitlines())
    # Code stays: every instruction that stores, and every function.
    for word in ("define ", "store ", "fmul ", "ret i32"):
        assert stripped.text.count(word) == text.count(word)
    assert stripped.removed["metadata"] == sum(line.startswith("!") for line in text.splitlines())
    blank = text.count("\n\n")
    left = len(stripped.text.splitlines())
    assert 0 <= len(text.splitlines()) - left - stripped.removed_lines <= blank
