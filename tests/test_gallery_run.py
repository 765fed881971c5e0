"""The runner: scripts run once, in a process of their own, and a script that fails stops the build with a clear
word.
"""

from __future__ import annotations

import inspect
import json
import re
import signal
import subprocess
import sys

import pytest
from books import Book
from sphinx_gallery import gen_gallery, gen_rst, py_source_parser, scrapers

from tvm_deepdive_helpers.sphinxext import gallery_child

GOOD = """
# %% cell: hello
print("hello from python")
"""


def test_upstream_is_what_the_child_replaces() -> None:
    """sphinx-gallery's private functions that `gallery_child` replaces or calls: their names and arguments."""
    assert list(inspect.signature(gen_rst.execute_code_block).parameters) == [
        "compiler", "block", "example_globals", "script_vars", "gallery_conf", "file_conf",
    ]  # fmt: skip
    assert list(inspect.signature(gen_rst.generate_file_rst).parameters) == [
        "fname",
        "target_dir",
        "src_dir",
        "gallery_conf",
    ]
    assert {"set_std_and_reset_position", "restore_std", "write", "flush", "fileno", "isatty"} <= set(
        vars(gen_rst._LoggingTee)
    )
    source = inspect.getsource(gen_rst._get_code_output)
    assert "logging_tee.output.getvalue()" in source
    assert "_LoggingTee(src_file)" in inspect.getsource(gen_rst._check_reset_logging_tee)
    assert "_import_matplotlib()" in inspect.getsource(gen_gallery._fill_gallery_conf_defaults)
    assert callable(scrapers._import_matplotlib)
    assert py_source_parser.Block._fields == ("type", "content", "lineno")


def test_clean_hides_paths_addresses_times_and_colours() -> None:
    assert gallery_child.clean("[11:08:03] /project/a.cc:2: Warning", ()) == "[time] /project/a.cc:2: Warning"
    text = "\x1b[31mred\x1b[0m /home/me/book/a.py at 0x7f12a4b6c8d0, constant 0x3f800000"
    assert gallery_child.clean(text, (("/home/me/book/", ""),)) == "red a.py at 0x…, constant 0x3f800000"


def test_output_of_python_cpp_and_children_in_order(book) -> None:
    book.script(
        "streams",
        """
        # %% cell: mixed
        import ctypes, subprocess, sys
        print("1 python")
        ctypes.CDLL(None).puts(b"2 c stdio")
        ctypes.CDLL(None).fflush(None)
        print("3 python, stderr", file=sys.stderr)
        subprocess.run([sys.executable, "-c", "print('4 child')"], check=True)
        ctypes.CDLL(None).puts(b"5 c stdio, unflushed")
        """,
    )
    book.page("one", "```{gallery-cell} 1-part/streams:mixed\n:show: output\n```")
    book.good_build()
    lines = re.findall(r"^[1-5] .*$", book.text("one"), re.M)
    assert lines == ["1 python", "2 c stdio", "3 python, stderr", "4 child", "5 c stdio, unflushed"]
    assert "4 child" in book.text("gallery/1-part/streams"), "the script's own page shows it too"


def test_a_script_runs_once_for_all_builders(book) -> None:
    book.script("hello", GOOD)
    book.page("one", "```{gallery-cell} 1-part/hello:hello\n```")
    assert book.executed(book.good_build()) == {"hello"}
    for builder in ("html", "latex", "gettext"):
        assert book.executed(book.good_build(builder=builder)) == set(), builder


def test_a_touched_script_is_not_run_again_and_a_changed_one_is(book) -> None:
    import os

    path = book.script("hello", GOOD)
    book.good_build()
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert book.executed(book.good_build()) == set()
    status = path.stat()
    path.write_text(path.read_text().replace("hello", "holla"))
    os.utime(path, (status.st_atime, status.st_mtime + 1))
    assert book.executed(book.good_build()) == {"hello"}


def test_the_key_covers_script_helpers_data_and_versions(tmp_path, monkeypatch) -> None:
    from tvm_deepdive_helpers.sphinxext import gallery_run, scripts

    helpers = tmp_path / "tvm_deepdive_helpers"
    helpers.mkdir()
    for name, text in {
        "__init__": "",
        "a": "from . import b\n",
        "b": "x = 1\n",
        "c": "",
        "figures": "",
        "book": "",
    }.items():
        (helpers / f"{name}.py").write_text(text)
    monkeypatch.setattr(gallery_run, "HELPERS", helpers)
    path = tmp_path / "s.py"
    path.write_text('from tvm_deepdive_helpers import a\ndata("x.csv")\n')
    (tmp_path / "x.csv").write_text("1\n")

    def key(**facts: str) -> str:
        script = scripts.parse(path, "1-part/s")
        return gallery_run.script_key(script, gallery_run.inputs(script, tmp_path), {"apache-tvm": "0.27", **facts})

    first = key()
    assert first == key()
    seen = {first}
    for name, change in {
        "b.py": lambda: (helpers / "b.py").write_text("x = 2\n"),
        "x.csv": lambda: (tmp_path / "x.csv").write_text("2\n"),
        "script": lambda: path.write_text(path.read_text() + "y = 1\n"),
        "figures.py": lambda: (helpers / "figures.py").write_text("y = 1\n"),
    }.items():
        change()
        assert key() not in seen, name
        seen.add(key())
    assert key(**{"apache-tvm": "0.28"}) not in seen
    before = key()
    (helpers / "c.py").write_text("unused = 1\n")
    assert key() == before, "a helper that the script does not import"


@pytest.mark.parametrize(
    ("body", "line", "words"),
    [
        ("raise ValueError('no good')", 11, "ValueError: no good"),
        ("raise SystemExit(0)", 11, "SystemExit(0)"),
        ("raise SystemExit('bye')", 11, "SystemExit('bye')"),
        ("raise KeyboardInterrupt", 11, "KeyboardInterrupt"),
        ("import os; os._exit(0)", 10, "ended itself with exit code 0"),
        ("import os; os.abort()", 11, "killed by SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", 11, "killed by SIGSEGV"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            10,
            "killed by SIGKILL, in the block that begins here",
        ),
        ("while True: pass", 11, "no end after 2 s"),
        ("import subprocess; subprocess.Popen(['sleep', '60'])", None, "it left processes running: sleep 60"),
        ("open('litter.txt', 'w').write('x')", None, "litter.txt beside itself"),
        ("def broken(:", 11, "SyntaxError"),
    ],
)
def test_a_failing_script_fails_the_build_and_leaves_no_page(book, body, line, words) -> None:
    book.script("hello", GOOD)
    book.page("one", "```{gallery-cell} 1-part/hello:hello\n```")
    book.page("other", "Text.")
    book.good_build()
    book.script("hello", f"# gallery: timeout=2\n\n# %% cell: hello\nprint('new')\n{body}\n")
    log = book.bad_build()
    place = f"gallery/1-part/hello.py:{line}: " if line else "gallery/1-part/hello.py: "
    assert place in log, log
    assert words in log, log
    assert not (book.out / "one.html").exists(), "the chapter with the old output is gone"
    assert not (book.out / "gallery/1-part/hello.html").exists()
    (book.root / "gallery/1-part/litter.txt").unlink(missing_ok=True)
    book.script("hello", GOOD.replace("python", "again"))
    book.good_build()
    assert "hello from again" in book.text("one")
    assert "hello from again" in book.text("gallery/1-part/hello")


def test_every_failing_script_is_named(book) -> None:
    for name in ("aa", "bb", "cc"):
        book.script(name, GOOD if name == "bb" else f"# %% cell: x\nraise RuntimeError('{name}')\n")
    log = book.bad_build()
    assert "2 gallery script(s) failed" in log
    assert "RuntimeError: aa" in log
    assert "RuntimeError: cc" in log


def test_scripts_do_not_meet(book) -> None:
    body = """
    # %% cell: register
    import builtins
    assert not hasattr(builtins, "met"), "another script was here"
    builtins.met = True
    print("alone")
    """
    book.script("first", body)
    book.script("second", body)
    book.good_build()


def test_tvm_registries_are_not_shared(book) -> None:
    body = """
    # %% cell: register
    import tvm
    tvm.register_global_func("book.same_name", lambda: 1)
    print(tvm.get_global_func("book.same_name")())
    """
    book.script("first", body)
    book.script("second", body)
    book.good_build()


def test_ctrl_c_names_the_script_and_leaves_no_process(book) -> None:
    book.script("slow", "# %% cell: x\nimport time\ntime.sleep(50.5)\n")
    log = book.kill_after(6, signum=signal.SIGINT)
    assert "gallery/1-part/slow.py" in log
    import psutil

    assert not [p for p in psutil.process_iter(["cmdline"]) if str(book.root) in " ".join(p.info["cmdline"] or [])]


def test_a_removed_script_leaves_nothing(book) -> None:
    path = book.script("hello", GOOD)
    book.script("stays", GOOD)
    book.good_build()
    path.unlink()
    book.good_build()
    assert not list((book.root / "book/gallery").rglob("*hello*"))
    assert "hello" not in json.dumps(json.loads((book.root / "book/gallery/status.json").read_text()))


def test_bad_heads_are_named_with_line(book) -> None:
    book.script("one", "# %% cell: Bad Name\nprint(1)\n")
    book.script("two", "# %% cell: x\nprint(1)\n# %% cell: x\nprint(2)\n")
    book.script("three", "# %% cell: x, sometimes\nprint(1)\n")
    book.script("four", "# gallery: limit=3\n# %% cell: x\nprint(1)\n")
    book.script("five", "# %% cell: x\n# only text\n")
    (book.root / "gallery/1-part/six.py").write_bytes(b'"""\nT\n=\n"""\n# %%\nprint("\xff")\n')
    log = book.bad_build()
    assert "one.py:7: bad cell name 'Bad Name'" in log
    assert "two.py:9: cell 'x' stands already at line 7" in log
    assert "three.py:7: unknown flag 'sometimes'" in log
    assert "four.py:7: unknown setting 'limit'" in log
    assert "five.py:7: cell 'x' has no code" in log
    assert "six.py:6: not valid UTF-8" in log


def test_scripts_find_the_garbage_collector_as_python_has_it(book: Book) -> None:
    """Sphinx's process collects less often; when a script loses an object must not depend on that."""
    book.script("rubbish", "# %% cell: settings\nimport gc\nprint(gc.get_threshold(), gc.get_count()[2])\n")
    book.page("one", "```{gallery-cell} 1-part/rubbish:settings\n```")
    book.good_build()
    alone = subprocess.run(
        [sys.executable, "-c", "import gc; print(gc.get_threshold())"], capture_output=True, text=True, check=True
    )
    assert f"{alone.stdout.strip()} 0" in book.text("one")
