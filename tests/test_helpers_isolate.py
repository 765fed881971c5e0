"""Programs in a process of their own."""

import sys
import time

import pytest

from tvm_deepdive_helpers.isolate import run_isolated

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def crash():
    import ctypes

    print("before", flush=True)
    ctypes.string_at(0)
    print("after")


def test_crash_of_a_function():
    result = run_isolated(crash)
    assert result.signal == "SIGSEGV" and result.returncode < 0 and not result.ok
    assert result.describe() == "killed by SIGSEGV"
    assert result.stdout == "before\n"


def test_normal_end_and_status():
    assert run_isolated("print(6 * 7)").stdout == "42\n"
    result = run_isolated("import sys; sys.exit(3)")
    assert (result.returncode, result.signal, result.describe()) == (3, None, "ended with status 3")
    assert run_isolated("pass").describe() == "ended normally"


def test_time_limit_reaches_children():
    begin = time.monotonic()
    result = run_isolated(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])", timeout=1
    )
    assert time.monotonic() - begin < 20
    assert result.describe() == "stopped after 1 s" and not result.ok


def test_environment_and_no_paths_of_this_machine():
    result = run_isolated("import os\nprint(os.environ['COLOUR'], __file__)\n1 / 0", env={"COLOUR": "blue"})
    assert result.stdout == "blue program.py\n"
    assert 'File "program.py", line 3' in result.stderr and "/tmp" not in result.stderr


def test_functions_take_nothing_and_have_a_name():
    def wants(x):
        return x

    with pytest.raises(TypeError, match="no parameters"):
        run_isolated(wants)
    with pytest.raises(TypeError, match="lambda"):
        run_isolated(lambda: 1)


def test_tvmscript_finds_its_source():
    result = run_isolated(
        """
        import tvm
        from tvm.script import tirx as T

        @T.prim_func
        def f(a: T.Buffer((4,), "float32")):
            a[0] = T.float32(1)

        print(type(f).__name__)
        """
    )
    assert result.ok, result.stderr
    assert result.stdout == "PrimFunc\n"
