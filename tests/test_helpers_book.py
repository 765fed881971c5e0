"""`glue` and `expect_error`."""

import enum

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T
from tvm.tirx import FloatImm, IntImm

from tvm_deepdive_helpers import book, expect_error, glue
from tvm_deepdive_helpers.book import clean_message, strip_paths
from tvm_deepdive_helpers.running_example import MLP


@pytest.fixture(autouse=True)
def empty(monkeypatch):
    monkeypatch.setattr(book, "GLUED", [])
    monkeypatch.setattr(book, "EXPECTED_ERRORS", 0)


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("text", "text"),
        (MLP["main"].params[0].name, "x"),
        (7, 7),
        (True, True),
        (1.5, 1.5),
        (Level.HIGH, 3),
        (np.float64(0.25), 0.25),
        (np.float32(0.25), 0.25),
        (np.int64(9), 9),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (IntImm("int32", 12), 12),
        (IntImm("bool", 1), True),
        (FloatImm("float32", 0.5), 0.5),
    ],
)
def test_glue_keeps_plain_values(value, plain):
    glue("name", value, varies=True)
    [glued] = book.GLUED
    assert glued == book.Glued("name", plain, True)
    assert type(glued.value) is type(plain)


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, np.ones(3), np.array(1.0), 1j, object()])
def test_glue_refuses_other_types(value):
    with pytest.raises(TypeError, match="takes only str, int, float and bool"):
        glue("name", value)
    assert not book.GLUED


@pytest.mark.parametrize("value", [float("nan"), np.inf])
def test_glue_refuses_what_no_sentence_can_carry(value):
    with pytest.raises(ValueError, match="sentence"):
        glue("name", value)


@pytest.mark.parametrize("name", ["", "Name", "a b", "a--b", "-a", "a-", "a.b", "ä", 3])
def test_glue_refuses_bad_names(name):
    with pytest.raises(ValueError, match="lower-case"):
        glue(name, 1)


def test_glue_refuses_a_name_given_twice_and_keeps_order():
    glue("b-2", 1)
    glue("a_1", 2)
    with pytest.raises(ValueError, match="twice"):
        glue("b-2", 1)
    assert [item.name for item in book.GLUED] == ["b-2", "a_1"]


def test_expected_error_is_printed_counted_and_kept(capsys):
    with expect_error(ValueError, match="not defined") as caught:
        tvm.target.Target("nonsense")
    assert isinstance(caught.exception, ValueError)
    assert book.EXPECTED_ERRORS == 1
    out = capsys.readouterr().out
    assert out.startswith('ValueError: Target kind "nonsense" is not defined.') and out.count("\n") == 1


def test_nothing_raised():
    with pytest.raises(AssertionError, match="expected ValueError or KeyError, but nothing was raised"):
        with expect_error((ValueError, KeyError)):
            pass
    assert book.EXPECTED_ERRORS == 0


def test_text_does_not_match(capsys):
    with pytest.raises(AssertionError, match=r"does not match 'two'(.|\n)*one"):
        with expect_error(ValueError, match="two"):
            raise ValueError("one")
    assert book.EXPECTED_ERRORS == 0 and capsys.readouterr().out == ""


def test_other_errors_pass_through():
    with pytest.raises(KeyError):
        with expect_error(ValueError):
            raise KeyError("x")


def test_show_false_is_silent(capsys):
    with expect_error(ValueError, show=False):
        raise ValueError("one")
    assert capsys.readouterr().out == "" and book.EXPECTED_ERRORS == 1


def test_long_messages_are_cut_and_the_cut_is_said(capsys):
    with expect_error(RuntimeError, max_lines=3):
        raise RuntimeError("\n".join(f"line {i}" for i in range(10)))
    assert capsys.readouterr().out.splitlines() == ["RuntimeError: line 0", "line 1", "line 2", "# ... 7 lines"]


def test_from_line_skips_what_stands_before(capsys):
    text = "head\n" + "\n".join(f"ir {i}" for i in range(5)) + "\nError message: why\nmore\nand more"
    with expect_error(RuntimeError, from_line="Error message:", max_lines=2):
        raise RuntimeError(text)
    assert capsys.readouterr().out.splitlines() == [
        "RuntimeError: head",
        "# ... 5 lines",
        "Error message: why",
        "more",
        "# ... 1 line",
    ]


def test_diagnostic_error_of_tvmscript_keeps_its_message(capsys):
    with expect_error(tvm.error.DiagnosticError, match="Undefined variable"):

        @T.prim_func
        def wrong(a: T.Buffer((4,), "float32")):
            for i in range(4):
                a[i] = missing[i]  # noqa: F821

    out = capsys.readouterr().out
    assert out.startswith("DiagnosticError: error: Undefined variable: missing")
    assert "--> test_helpers_book.py:" in out and "/" not in out.replace("-->", "")


def test_schedule_error_says_its_type_once(capsys):
    @T.prim_func(s_tir=True)
    def add(a: T.Buffer((4,), "float32"), b: T.Buffer((4,), "float32")):
        for i in range(4):
            with T.sblock("b"):
                vi = T.axis.spatial(4, i)
                b[vi] = a[vi] + T.float32(1)

    sch = tvm.s_tir.Schedule(add)
    with expect_error(tvm.s_tir.ScheduleError, from_line="rror message"):
        sch.reverse_compute_at(sch.get_sblock("b"), sch.get_loops(sch.get_sblock("b"))[0])
    out = capsys.readouterr().out
    assert out.startswith("ScheduleError: An error occurred in the schedule primitive 'reverse-compute-at'.")
    assert out.splitlines()[2].startswith("Error message:") and "# ..." in out.splitlines()[1]


def test_clean_message_drops_backtraces_and_paths():
    text = (
        "Check failed: x > 0\n"
        "Stack trace:\n"
        "  0: tvm::relax::Foo(int)\n"
        "        at /workspace/src/relax/foo.cc:12\n"
        "  [bt] (1) /usr/lib/libtvm.so(+0x12) [0x7f]\n"
        '  File "/workspace/src/relax/foo.cc", line 12, in tvm::relax::Foo(int)\n'
        '  File "<unknown>", line 0, in _start\n'
        "in file C:\\Users\\me\\book.py:3\n"
    )
    cleaned = clean_message(text).splitlines()
    assert cleaned[0] == "Check failed: x > 0" and cleaned[-1] == "in file book.py:3"
    assert not any(word in "\n".join(cleaned) for word in ("[bt]", "Stack trace", "_start", "workspace", "Users"))


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/me/a.py:3:4", "a.py:3:4"),
        ("File:/home/me/a.py", "File:a.py"),
        ('"/tmp/x/y.so"', '"y.so"'),
        ("https://tvm.apache.org/docs/index.html", "https://tvm.apache.org/docs/index.html"),
        ("src/relax/op.cc:12", "src/relax/op.cc:12"),
        ("a / b / c and 1/2/3", "a / b / c and 1/2/3"),
        ("./lib/x.so and ../y/z", "./lib/x.so and ../y/z"),
    ],
)
def test_strip_paths(text, short):
    assert strip_paths(text) == short


def test_strip_paths_where_the_working_folder_has_a_space(tmp_path, monkeypatch):
    folder = tmp_path / "two words (1)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert strip_paths(f" --> {folder}/tests/loops.py:3:1") == " --> loops.py:3:1"
    monkeypatch.chdir("/")
    assert strip_paths("a / b") == "a / b"
