"""
From a Python name to its C++
=============================

Functions, objects, operators and options cross the border between Python and
C++ by name. This script follows names in both directions.
"""

# %%
import ast
import inspect
import json
import traceback
from collections import Counter, defaultdict
from pathlib import Path

import tvm
import tvm_ffi
from tvm import relax, s_tir, te
from tvm.relax.transform import _ffi_api
from tvm_ffi.registry import list_global_func_names

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.recorded import data, read_csv

ROOT = Path(tvm.__file__).parent
NAMES = sorted(list_global_func_names())
FILES = {
    row["name"]: row["file"]
    for row in read_csv(data("tvm_global_functions_v0.26.0.csv"))
}

# %% cell: three-doors
by_attribute = _ffi_api.FuseOps
by_name = tvm_ffi.get_global_func("relax.transform.FuseOps")
print("in Python:  ", inspect.getmodule(relax.transform.FuseOps).__name__)
print("its FFI:    ", _ffi_api.__name__, type(by_attribute))
print("same object:", by_attribute.same_as(by_name))
print("makes a:    ", type(by_name(-1)).__name__, by_name(-1).info.name)
print("C++ file:   ", FILES["relax.transform.FuseOps"])

# %% check
assert relax.transform.FuseOps().info.name == "FuseOps"
assert FILES["relax.transform.FuseOps"] == "src/relax/transform/fuse_ops.cc"
# Device runtimes register a few more where the machine has their driver.
glue("functions", len(NAMES), varies=True)
glue("located", sum(name in FILES for name in NAMES), varies=True)

# %% cell: schema
with expect_error(TypeError):
    by_name("2")
with expect_error(TypeError):
    by_name()
metadata = tvm_ffi.get_global_func_metadata("relax.transform.FuseOps")
schema = json.loads(metadata["type_schema"])
print("stored:", *(part["type"] for part in schema["args"]))

# %% check
assert [part["type"] for part in schema["args"]] == ["transform.Pass", "int"]

# %% cell: prefixes


def prefix(name):
    return name.rpartition(".")[0]


def python_modules(root):
    """Prefix -> the module whose attributes init_ffi_api fills."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "init_ffi_api(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and "init_ffi_api" in ast.unparse(
                node.func
            ):
                place = ".".join(path.relative_to(root).with_suffix("").parts)
                found[ast.literal_eval(node.args[0])] = place
    return found


modules = python_modules(ROOT)
places = defaultdict(Counter)
for name, file in FILES.items():
    places[prefix(name)][file.rpartition("/")[0]] += 1
table = Counter(prefix(name) for name in NAMES)
print(f"{'prefix':24}{'n':>3}  {'Python, tvm/':20}most of the C++, src/")
for name, count in table.most_common(18):
    module = modules.get(name, "-").removesuffix("._ffi_api")
    (folder, _), *_ = places[name].most_common(1) or [("-", 0)]
    where = f"{module.replace('.', '/'):20}{folder.removeprefix('src/')}"
    print(f"{name:24}{count:3}  {where}")

# %% check
assert modules["relax.transform"] == "relax.transform._ffi_api"
sym = [name for name in NAMES if prefix(name) == "sym"]
assert sum(f"arith.{name[4:]}" in FILES for name in sym) > 0.9 * len(sym)
prim = [name for name in NAMES if prefix(name) == "prim"]
old = [name for name in prim if f"tirx.{name[5:]}" in FILES]
assert 0.3 * len(prim) < len(old) < 0.7 * len(prim)
located = [name for name in NAMES if name in FILES]
by_rule = [
    name
    for name in located
    if FILES[name].startswith(f"src/{prefix(name).replace('.', '/')}")
]
share = len(by_rule) / len(located)
assert share > 0.6
glue("by_rule", 100 * share, varies=True)
in_ffi = {name for name in NAMES if prefix(name) in ("ffi", "testing")}
assert not in_ffi & set(FILES)

# %% cell: copied-once
tvm_ffi.register_global_func("relax.transform.BookProbe", lambda: "here")
print(tvm_ffi.get_global_func("relax.transform.BookProbe")())
print("in _ffi_api:", hasattr(_ffi_api, "BookProbe"))
with expect_error(AttributeError):
    _ffi_api.FuseOpz  # a typing error
with expect_error(ValueError):
    tvm_ffi.get_global_func("relax.transform.FuseOpz")
with expect_error(RuntimeError):
    tvm_ffi.register_global_func("relax.transform.BookProbe", print)

# %% check
tvm_ffi.remove_global_func("relax.transform.BookProbe")

# %% cell: from-python


def registered_in_python(root):
    """Names that Python files of TVM register, with the file."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "register_global_func(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Call(
                    func=ast.Name("register_global_func")
                    | ast.Attribute(attr="register_global_func"),
                    args=[ast.Constant(str(name)), *_],
                ):
                    found[name] = path.relative_to(root).as_posix()
    return found


python_functions = registered_in_python(ROOT)
untyped = [n for n in NAMES if not tvm_ffi.get_global_func_metadata(n)]
print("without a signature:", len(untyped))
print("registered in Python:", len(python_functions.keys() & set(NAMES)))
print("the same ones:", set(untyped) == python_functions.keys() & set(NAMES))
for name in ("tirx.build", "relax.run.print"):
    print(name, "is in", python_functions[name])

# %% check
assert set(untyped) == set(python_functions) & set(NAMES)
assert not set(untyped) & set(FILES)

# %% cell: frames, varies


def cpp_frames(error):
    """C++ functions on the way of an error, innermost last."""
    for frame in traceback.extract_tb(error.__traceback__):
        if not frame.filename.endswith((".py", ".pxi")):
            where = frame.filename.partition("/src/")[2] or frame.filename
            function = frame.name.split("(")[0].split()[-1]
            yield f"{where}:{frame.lineno}  {function}"


x = relax.Var("x", relax.TensorType((4, 8), "float32"))
A = te.placeholder((8,), name="A")
B = te.compute((8,), lambda i: A[i] + 1.0, name="B")
sch = s_tir.Schedule(te.create_prim_func([A, B]))
(loop,) = sch.get_loops(sch.get_sblock("B"))
found = {}
for name, wrong in {
    "lookup": lambda: tvm.IRModule({})["nope"],
    "matmul": lambda: relax.BlockBuilder().normalize(relax.op.matmul(x, x)),
    "reorder": lambda: sch.reorder(loop, loop),
}.items():
    try:
        wrong()
    except (ValueError, s_tir.ScheduleError) as error:
        found[name] = list(cpp_frames(error))
        print(name, type(error).__name__, *found[name], sep="\n  ")

# %% check
throws = {name: frames[-1] for name, frames in found.items()}
assert "ir/module.cc" in throws["lookup"]
assert "InferTypeMatmul" in throws["matmul"]
assert "s_tir/schedule/concrete_schedule.cc" in throws["reorder"]

# %% cell: kinds-of-names
op = tvm.ir.Op.get("relax.matmul")
type_key = relax.Function.__tvm_ffi_type_info__.type_key
kind = tvm.target.Target("llvm").kind
option = "relax.FuseOps.max_depth"
options = tvm.transform.PassContext.list_configs()
print("operator:     ", op.name)
print("type key:     ", type_key, "for", relax.Function.__name__)
print("pass option:  ", option, "of type", options[option]["type"])
print("target kind:  ", kind.name)
print("pass:         ", relax.transform.FuseOps().info.name)
print("code generator: target.build.llvm", "target.build.llvm" in NAMES)

# %% check
glue("ops", len(tvm.ir.Op.list_op_names()))
glue("options", len(options))
assert type_key == "relax.expr.Function"

# %% cell: solution-create-prim-func
print(inspect.getmodule(tvm.te.create_prim_func).__name__)
print([n for n in NAMES if n.lower().endswith("createprimfunc")])
print(FILES["te.CreatePrimFunc"])

# %% check
assert FILES["te.CreatePrimFunc"] == "src/te/operation/create_primfunc.cc"

# %% cell: solution-who-answers
for name in ("te.CreatePrimFunc", "tirx.build", "sym.Analyzer"):
    typed = bool(tvm_ffi.get_global_func_metadata(name))
    file = FILES.get(name.replace("sym.", "arith."))
    print(f"{name:18}{'C++, ' + file if typed else 'Python'}")
print("tvm/" + python_functions["tirx.build"])

# %% check
assert FILES["arith.Analyzer"] == "src/arith/analyzer.cc"
assert python_functions["tirx.build"] == "tirx/build.py"
assert not set(python_functions) & {"te.CreatePrimFunc", "sym.Analyzer"}
