"""The command that records gdb's session."""

import pytest

from tvm_deepdive_helpers.maintain import gdb_session

GDB = """\
[New Thread 0x7fffef7ff6c0 (LWP 29238)]
Function "TVMFFIErrorSetRaisedFromCStrParts" not defined.

Thread 1 "python" hit Breakpoint 1, 0x00007ffff6c8c2c0 in TVMFFIErrorCreate () from /a/b/lib/libtvm_ffi.so
0x7ffff6aa2004:\t"TypeError"
#0  0x00007ffff6c8c2c0 in TVMFFIErrorCreate () from /a/b/lib/libtvm_ffi.so
#1  0x00007ffff6aa15d8 in __tvm_ffi_add_one (args=<optimized out>) at IRModule.CodeGenLLVM:8
#2  0x00007ffff6dd5cbf in ?? () from /a/b/tvm_ffi/core.cpython-311-x86_64-linux-gnu.so
#3  0x00007ffff6dd54cc in ?? () from /a/b/lib/libtvm_ffi.so
#4  0x00007ffff6dd5cbf in ?? () from /a/b/tvm_ffi/core.cpython-311-x86_64-linux-gnu.so
#5  0x00007ffff7b5861d in _PyObject_MakeTpCall (tstate=0x7ffff7f76ef8 <x+1>, nargs=2) at Objects/call.c:214
(More stack frames follow...)
"""


def test_clean():
    assert gdb_session.clean(GDB).splitlines() == [
        'Thread 1 "python" hit Breakpoint 1, TVMFFIErrorCreate () from libtvm_ffi.so',
        '0x…:\t"TypeError"',
        "#0  TVMFFIErrorCreate () from libtvm_ffi.so",
        "#1  __tvm_ffi_add_one (args) at IRModule.CodeGenLLVM:8",
        "#2  A in ?? () from core.so",
        "#3  B in ?? () from libtvm_ffi.so",
        "#4  A in ?? () from core.so",
        "#5  _PyObject_MakeTpCall (…) at call.c:214",
    ]


def test_a_program_that_does_not_stop():
    with pytest.raises(ValueError, match="did not stop"):
        gdb_session.clean("[Inferior 1 (process 7) exited normally]\n")


def test_clean_takes_out_values_and_folders():
    text = 'Thread 1 "python" received\nBreakpoint 1 at 0x7f12\nspin (A=0x55b, n=2)\n  File "/a/b/add.py", line 9'
    assert gdb_session.clean(text).splitlines()[1:] == [
        "Breakpoint 1 at 0x…",
        "spin (A, n=2)",
        '  File "add.py", line 9',
    ]
