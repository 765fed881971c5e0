"""
Target code generation
======================

How a code generator is found, what it expects, the C text of a kernel line
by line, rules for intrinsics, foreign functions, vectors, and the modules
that host and device code become.
"""

# %%
import os
import re
import textwrap

# Write device code as text, also where a device could be used.
os.environ["TVM_COMPILE_FORCE_FALLBACK"] = "1"

# %% cell: setup
import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.script import tirx as T
from tvm.target import Target

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import layered_graph
from tvm_deepdive_helpers.ir import cut, strip_llvm
from tvm_deepdive_helpers.passes import tir_stages


@T.prim_func(s_tir=True)
def clip_exp(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
    for i in range(16):
        with T.sblock("B"):
            v = T.axis.spatial(16, i)
            B[v] = T.max(T.exp(A[v]), T.float32(2))


# %% cell: registry
prefix = "target.build."
names = tvm_ffi.registry.list_global_func_names()
kinds = sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix))
print(*kinds)
every = Target.list_kinds()
print("kinds without a generator:", *sorted(set(every) - set(kinds)))


# %% cell: no-generator
@T.prim_func(s_tir=True)
def twice(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
    for i in T.thread_binding(4, "threadIdx.x"):
        for j in T.vectorized(4):
            with T.sblock("B"):
                v = T.axis.spatial(16, i * 4 + j)
                B[v] = A[v] * T.float32(2)


with expect_error(ValueError, match="target.build.vulkan", max_lines=1):
    tvm.compile(twice, Target("vulkan", host="llvm"))


# %% cell: classes
def several(names):
    return "\n".join(f"CodeGen{name}" for name in names.split())


layered_graph(
    {
        "source": "CodeGenSourceBase",
        "functors": "ExprFunctor<Result(Expr)>\nStmtFunctor<void(Stmt)>",
        "C": "CodeGenC",
        "LLVM": "CodeGenLLVM",
        "SPIRV": "CodeGenSPIRV",
        "dialects": several("CHost CUDA OpenCL Metal WebGPU Trainium"),
        "CPU": "CodeGenCPU",
        "GPU": several("NVPTX AMDGPU"),
        "hosts": several("X86_64 AArch64 ARM Hexagon"),
    },
    [
        ("source", "C"),
        *(("functors", base) for base in ("C", "LLVM", "SPIRV")),
        ("C", "dialects"),
        ("LLVM", "CPU"),
        ("LLVM", "GPU"),
        ("CPU", "hosts"),
    ],
    colors={
        **dict.fromkeys(("source", "C", "dialects"), "green"),
        "SPIRV": "vermilion",
    },
    direction="right",
    title="Classes of code generators: text, LLVM, SPIR-V",
)


# %% cell: accepted
def last_line(error):
    """The line of an error that says what is wrong, shortened."""
    text = str(error).strip().splitlines()[-1]
    text = re.sub(r'ir\.Op\(.*?name="(.*?)".*', r"\1", text)
    text = re.sub(r"# Metadata omitted.*? does not", "... does not", text)
    return f"{type(error).__name__}: {text}"


for kind in ("c", "llvm"):
    generate = tvm.get_global_func(prefix + kind)
    target = Target(kind, host=kind)
    last = ""
    for stage in tir_stages(clip_exp, target):
        try:
            result = (
                "ok, module of kind " + generate(stage.after, target).kind
            )
        except Exception as error:
            result = last_line(error)
        if result != last:
            print(f"{kind}, after {stage.name}:")
            print(textwrap.indent(textwrap.fill(result, 70), "    "))
        last = result


# %% cell: parallel-host
@T.prim_func(s_tir=True)
def spread(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
    for i in T.parallel(16):
        with T.sblock("B"):
            v = T.axis.spatial(16, i)
            B[v] = A[v] * T.float32(2)


def source_for(kind):
    return tvm.compile(spread, kind).mod.inspect_source()


print(next(t for t in source_for("c").splitlines() if "for (" in t).strip())
call = re.search(r"call i32 .*@__tvm_parallel_lambda.*", source_for("llvm"))[
    0
]
print(re.sub(r"%\w+", "%", call.partition(", !")[0]))

# %% cell: c-source
options = {"tirx.disable_assert": True}
with tvm.transform.PassContext(config=options):
    ex = tvm.compile(clip_exp, "c")
source = ex.mod.inspect_source()
for line in source.splitlines():
    keep = textwrap.wrap(line, 76, subsequent_indent="        ")
    print("\n".join(keep) if line.strip() else "")

# %%
with_asserts = tvm.compile(clip_exp, "c").mod.inspect_source()
glue("lines", len(source.splitlines()))
glue("lines-asserts", len(with_asserts.splitlines()))

# %% check
a = np.linspace(-2, 2, 16).astype("float32")
b = tvm.runtime.tensor(np.zeros(16, "float32"))
ex.jit()["clip_exp"](tvm.runtime.tensor(a), b)
np.testing.assert_allclose(b.numpy(), np.maximum(np.exp(a), 2), rtol=1e-5)

# %% cell: rules
op_names = tvm_ffi.get_global_func("ir.ListOpNames")()


def rules(key):
    """Operators that have an attribute; none if nobody registered it."""
    try:
        return [n for n in op_names if tvm.ir.Op.get(n).get_attr(key)]
    except tvm.error.InternalError:
        return []


print(f"{'':14} FLowerIntrinsic  FLegalize")
for name in ("default", "llvm", "c", "cuda", "cuda.fastmath", "opencl"):
    low, legal = rules(name + ".FLowerIntrinsic"), rules(name + ".FLegalize")
    print(f"{name:14} {len(low):15}  {len(legal):9}")

# %% cell: lowered
x = tirx.Var("x", "float32")
devices = {
    "c": Target("c"),
    "llvm": Target("llvm"),
    "cuda": Target({"kind": "cuda", "arch": "sm_80"}),
    "nvptx": Target({"kind": "nvptx", "mcpu": "sm_80"}),
    "opencl": Target("opencl"),
    "webgpu": Target("webgpu"),
}


def lower(value, target):
    """What LowerIntrin makes of one expression."""
    func = tirx.PrimFunc([x], tirx.Evaluate(value))
    mod = tvm.IRModule({"main": func.with_attr("target", target)})
    return tirx.transform.LowerIntrin()(mod)["main"].body.value


for value in (tirx.exp(x), tirx.rsqrt(x), x * x + x):
    print(value)
    for kind, target in devices.items():
        print(f"    {kind:6}", lower(value, target))
glue("tanh-llvm", str(lower(tirx.tanh(x), devices["llvm"])))

# %% cell: floor
n = tirx.Var("n", "int32")
known = tirx.max(n, 0)


def lower_int(value):
    func = tirx.PrimFunc([n], tirx.Evaluate(value))
    mod = tvm.IRModule({"main": func.with_attr("target", devices["c"])})
    return tirx.transform.LowerIntrin()(mod)["main"].body.value


for value in (n // 8, n % 8, known // 3, n // 3, n % 3):
    print(f"{value!s:16}", lower_int(value))

# %% check
assert "truncmod" in str(lower_int(n // 3))
assert "truncmod" not in str(lower_int(known // 3))

# %% cell: fast-math
with tvm.transform.PassContext(config={"tirx.enable_fast_math": True}):
    for kind in ("cuda", "llvm", "opencl"):
        print(f"{kind:6}", lower(tirx.exp(x), devices[kind]))


# %% cell: own-rule
def half_exp(call):
    """exp(x) = exp(x / 2) * exp(x / 2), with a function of our library."""
    half = tirx.call_pure_extern(
        "float32", "exp2f", call.args[0] * 0.72134752
    )
    return half * half


print("before:", lower(tirx.exp(x), devices["c"]))
tirx.register_intrin_lowering("tirx.exp", "c", f=half_exp)
print("after: ", lower(tirx.exp(x), devices["c"]))

# %% check
own = tvm.compile(clip_exp, "c")
own.jit()["clip_exp"](tvm.runtime.tensor(a), b)
np.testing.assert_allclose(b.numpy(), np.maximum(np.exp(a), 2), rtol=1e-4)


# %% cell: calls
@T.prim_func(s_tir=True)
def calls(A: T.Buffer((4,), "int32"), B: T.Buffer((4,), "int32")):
    for i in range(4):
        with T.sblock("B"):
            v = T.axis.spatial(4, i)
            T.evaluate(T.call_extern("int32", "log_it", v))
            T.evaluate(T.call_packed("book.note", v))
            T.evaluate(T.call_cpacked("note_c", v))
            B[v] = T.call_pure_extern("int32", "weigh", A[v])


with tvm.transform.PassContext(config=options):
    text = tvm.compile(calls, "c").mod.inspect_source()
line = r"log_it|packed|note|weigh|NULL;$|v_int64\) = \(\(|result"
picked = [t for t in text.splitlines() if re.search(line, t)]
picked = [t for t in picked if "self" not in t and "result_" not in t[:22]]
for t in picked:
    if "result_" not in t or "if (" in t:
        print("\n        ".join(textwrap.wrap(t, 76, drop_whitespace=False)))

# %% cell: calls-llvm
mod = tvm.compile(calls, Target({"kind": "llvm", "opt-level": 0})).mod
plain = strip_llvm(mod.inspect_source("ll")).text
called = [t for t in plain.splitlines() if re.search(r"call.*@(?!llvm)", t)]
wanted = [t for t in called if re.search("log_it|note|weigh", t)]
print(*(re.sub(r"%\w+", "%", t.strip()) for t in wanted), sep="\n")

# %% cell: imports
C = 'extern "C" int32_t next_c(int32_t x) { return x + 1; }\n'
LL = "define i32 @next_c(i32 %x) {\n %y = add i32 %x, 1\n ret i32 %y\n}"


def with_source(key, source):
    """A function that brings its foreign function along."""

    @T.prim_func(s_tir=True)
    def following(A: T.Buffer((1,), "int32")):
        with T.attr(0, key, source):
            A[0] = T.call_extern("int32", "next_c", A[0])

    return following


for kind, key, source in (
    ("c", "pragma_import_c", C),
    ("llvm", "pragma_import_llvm", LL),
):
    function = tvm.compile(with_source(key, source), kind)["following"]
    number = tvm.runtime.tensor(np.array([41], "int32"))
    function(number)
    print(key, number.numpy())

# %% check
assert number.numpy()[0] == 42

# %% cell: llvm-intrinsic
bits = tirx.Var("bits", "uint32")
call = T.call_llvm_pure_intrin("uint32", "llvm.ctpop", bits)
print(call)
print("first argument:", type(call.args[0]).__name__)


@T.prim_func(s_tir=True)
def ones(A: T.Buffer((4,), "uint32"), B: T.Buffer((4,), "uint32")):
    for i in range(4):
        with T.sblock("B"):
            v = T.axis.spatial(4, i)
            B[v] = T.call_llvm_pure_intrin("uint32", "llvm.ctpop", A[v])


ll = strip_llvm(tvm.compile(ones, "llvm").mod.inspect_source("ll")).text
print(*(t for t in ll.splitlines() if "declare" in t and "ctpop" in t))
with expect_error(ValueError, match="Unknown llvm intrinsic"):
    T.call_llvm_pure_intrin("uint32", "llvm.population", bits)
refused = expect_error(
    tvm.error.InternalError, match="ctpop|pure", show=False
)
with refused:
    tvm.compile(ones, "c")
print(last_line(refused.exception))

# %% cell: vectors
for kind in ("cuda", "opencl", "metal", "webgpu"):
    made = tvm.compile(twice, Target(kind, host="llvm"))
    text = made.mod.imports[0].inspect_source()
    lines = [t.strip() for t in text.splitlines() if "B_ptr" in t]
    store = [t for t in lines if "=" in t or "vstore" in t]
    short = re.sub(
        r"\(\(?\w*\(?get_local_id\(0\)\)+ \* 4\)", "(...)", store[0]
    )
    print(f"{kind} ({len(store)} store{'s' * (len(store) > 1)}):")
    print(textwrap.indent(textwrap.fill(short, 72), "    "))


# %% cell: vector-host
@T.prim_func(s_tir=True)
def twice_host(A: T.Buffer((16,), "float32"), B: T.Buffer((16,), "float32")):
    for i in range(4):
        for j in T.vectorized(4):
            with T.sblock("B"):
                v = T.axis.spatial(16, i * 4 + j)
                B[v] = A[v] * T.float32(2)


text = tvm.compile(twice_host, "c").mod.inspect_source()
print(*(t.strip() for t in text.splitlines() if "4 " in t[:14]), sep="\n")
with expect_error(RuntimeError, match="error", show=False):
    tvm.compile(twice_host, "c").jit()
ll = strip_llvm(tvm.compile(twice_host, "llvm").mod.inspect_source("ll")).text
print(next(t.strip() for t in ll.splitlines() if "fmul" in t))

# %% cell: tree
made = tvm.compile(twice, Target("opencl", host="c"))
print(made.mod.kind, "imports", [m.kind for m in made.mod.imports])
text = made.mod.inspect_source()
begin = text.index("if (twice_kernel_packed == NULL)")
print(cut(textwrap.dedent("  " + text[begin:]), lines=12, comment="//"))

# %% cell: solution-hand
target = Target("c", host="c")
mod = tvm.IRModule({"clip_exp": clip_exp})
mod = tirx.transform.BindTarget(target)(mod)
pipeline, finish_host, _ = tirx.get_tir_pipeline("default")
mod = finish_host()(pipeline(mod))
by_hand = tvm.get_global_func("target.build.c")(mod, target)
first, _, rest = by_hand.inspect_source().partition("\n")
print(by_hand.kind, rest == own.mod.inspect_source().partition("\n")[2])
print(first)

# %% check
assert rest == own.mod.inspect_source().partition("\n")[2]

# %% cell: solution-order
print("default rule:", lower(tirx.exp(x), Target("test")))
with_own = lower(tirx.exp(x), Target("c"))
with tvm.transform.PassContext(config={"tirx.enable_fast_math": True}):
    fast = lower(tirx.exp(x), Target("c"))
print("c, fast math:", "the same" if str(fast) == str(with_own) else fast)

# %% check
assert str(fast) == str(with_own)
