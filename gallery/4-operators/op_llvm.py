"""
What LLVM gets, and what it makes of it
=======================================

The processor, the options and the facts that TVM's code generator hands to
LLVM, and how to read the results.
"""

# %% cell: setup
import re

import numpy as np
import tvm
from tvm import te
from tvm.script import tirx as T
from tvm.target import Target, codegen

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import cpu_timer, race
from tvm_deepdive_helpers.figures import bar_chart
from tvm_deepdive_helpers.ir import strip_llvm


@T.prim_func(s_tir=True)
def axpy(A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")):
    for i in range(1024):
        with T.sblock("B"):
            v = T.axis.spatial(1024, i)
            B[v] = B[v] + A[v] * T.float32(3)


def x86(mcpu="x86-64-v3", **attributes):
    """A fixed processor, so that the output is the same everywhere."""
    triple = "x86_64-unknown-linux-gnu"
    return Target(
        {"kind": "llvm", "mtriple": triple, "mcpu": mcpu, **attributes}
    )


def ll(func, target):
    """LLVM IR without debug information."""
    text = tvm.compile(func, target).mod.inspect_source("ll")
    return strip_llvm(text).text


def assembly(func, target):
    return tvm.compile(func, target).mod.inspect_source("s")


# %% cell: raw
text = ll(axpy, x86(**{"opt-level": 0}))
begin = text.index("define internal i32 @axpy_compute_")
print(text[begin : text.index("\n}\n", begin) + 2])

# %% cell: formats
lib = tvm.compile(axpy, x86()).mod
for form in ("", "ll", "s", "asm"):
    begin = lib.inspect_source(form).strip().splitlines()[0].strip()
    print(f"{form!r:6} begins with {begin[:40]!r}")
for form in ("bc", "o"):
    with expect_error(tvm.error.InternalError, match=form, max_lines=1):
        lib.inspect_source(form)

# %% cell: processors, varies
host_cpu = codegen.llvm_get_system_cpu()
print("LLVM", codegen.llvm_version_major(), "on", host_cpu)
print(codegen.llvm_get_system_triple())
print(len(codegen.llvm_get_targets()), "architectures")
known = codegen.llvm_get_cpu_archlist(x86())
print(len(known), "x86-64 processors, among them", *known[-3:])

# %% cell: features
for mcpu in ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"):
    target = x86(mcpu)
    has = (
        f
        for f in ("sse2", "sse4.2", "avx2", "fma", "avx512f")
        if codegen.llvm_cpu_has_features(f, target)
    )
    print(f"{mcpu:10}", *has)
print("vector width that TVM assumes:", codegen.llvm_get_vector_width(x86()))


# %% cell: widths
@T.prim_func(s_tir=True)
def axpy_64(A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")):
    for i in range(16):
        for j in T.vectorized(64):
            with T.sblock("B"):
                v = T.axis.spatial(1024, i * 64 + j)
                B[v] = B[v] + A[v] * T.float32(3)


plain = ll(axpy_64, x86(**{"opt-level": 0}))
print(next(t.strip() for t in plain.splitlines() if "fmuladd" in t)[:76])
for mcpu in ("x86-64", "x86-64-v3", "x86-64-v4"):
    code = assembly(axpy_64, x86(mcpu))
    counts = {r: len(re.findall(rf"%{r}mm", code)) for r in "xyz"}
    fused = len(re.findall(r"vfmadd\w+ps", code))
    used = ", ".join(f"{n} {r}mm" for r, n in counts.items() if n)
    print(f"{mcpu:10} {used}; {fused} fused multiply-adds")

# %% cell: native
for mcpu in ("native", "x86-64-v9"):
    mod = tvm.compile(axpy, x86(mcpu)).mod
    text = mod.inspect_source("ll")
    print(mcpu, "->", *set(re.findall(r'"target-cpu"="(.*?)"', text)))

# %% cell: speed, varies
x = te.placeholder((4096,), name="x")


def polynomial(i):
    value = tvm.tirx.const(1.0, "float32")
    for k in range(16):
        value = value * x[i] + tvm.tirx.const(1.0 / (k + 1), "float32")
    return value


poly = te.create_prim_func([x, te.compute((4096,), polynomial, name="y")])
poly = poly.with_attr("global_symbol", "poly")
data = np.random.default_rng(0).random(4096).astype("float32")
tensors = [tvm.runtime.tensor(data), tvm.runtime.tensor(data * 0)]
here = Target({"kind": "llvm", "mcpu": host_cpu})
targets = {"no mcpu": Target("llvm")}
levels = {"v2": "sse4.2", "v3": "avx2", "v4": "avx512f"}
for level, feature in levels.items():  # as many as this machine has
    if codegen.llvm_cpu_has_features(feature, here):
        name = f"x86-64-{level}"
        targets[name] = Target({"kind": "llvm", "mcpu": name})
targets["this one"] = here
run = {name: tvm.compile(poly, t)["poly"] for name, t in targets.items()}
timers = {}
for name, function in run.items():

    def many(function=function):
        for _ in range(200):
            function(*tensors)

    timers[name] = cpu_timer(many)
result = race(timers, rounds=7)
result.table()
glue("cpu_ratio", result.ratio("no mcpu", "this one"), varies=True)
glue("host_cpu", host_cpu, varies=True)

# %% cell: speed-figure, varies
least = result.minima
bar_chart(
    {name: least[name] / least["this one"] for name in targets},
    unit="times the time of the code for this machine",
    form=".1f",
    color={"no mcpu": "vermilion"},
    title="One function, compiled for older and newer processors",
)

# %% check
assert result.ratio("no mcpu", "this one") > 0.7
expected = np.ones(4096)
for k in range(16):
    expected = expected * data + 1 / (k + 1)
np.testing.assert_allclose(tensors[1].numpy(), expected, rtol=1e-4)


# %% cell: fast-math
@T.prim_func(s_tir=True)
def total(A: T.Buffer((1024,), "float32"), B: T.Buffer((1,), "float32")):
    for i in range(1024):
        with T.sblock("B"):
            v = T.axis.reduce(1024, i)
            with T.init():
                B[0] = T.float32(0)
            B[0] = B[0] + A[v]


flags = {
    "as it is": {},
    "fast-math-reassoc": {"fast-math-reassoc": True},
    "fast-math": {"fast-math": True},
}
for name, attributes in flags.items():
    code = assembly(total, x86(**attributes))
    words = [len(re.findall(w, code)) for w in ("vaddss", "vaddps")]
    text = ll(total, x86(**{"opt-level": 0}, **attributes))
    add = next(t.strip() for t in text.splitlines() if " fadd " in t)
    print(f"{name:18} scalar {words[0]:3}, vector {words[1]:3};  {add}")


# %% cell: alias
def type_chain(func):
    """Names of the type node of the store, and of its ancestors."""
    made = tvm.compile(func, x86(**{"opt-level": 0}))
    text = made.mod.inspect_source("ll")
    store = next(t for t in text.splitlines() if "store <64" in t)
    number, names = re.search(r"!tbaa !(\d+)", store)[1], []
    while number:
        line = re.search(rf"^!{number} = (.*)$", text, re.M)[1]
        names += re.findall(r'!"(.*?)"', line)
        parents = re.findall(r"!(\d+)", line)
        number = parents[0] if parents else None
    return [re.sub(r"0x[0-9a-f]+", "<B>", name) for name in names]


promised = axpy_64.with_attr("tirx.noalias", True)
for name, func in {"axpy_64": axpy_64, "noalias": promised}.items():
    print(f"{name:8}", type_chain(func))


@T.prim_func(s_tir=True)
def first(A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")):
    B[T.Ramp(0, 1, 64)] = A[T.Ramp(64, 1, 64)]


print("[0:64]  ", type_chain(first.with_attr("tirx.noalias", True)))
for name, func in {"axpy": axpy, "noalias": axpy}.items():
    if name == "noalias":
        func = func.with_attr("tirx.noalias", True)
    text = ll(func, x86())
    print(f"{name:8} compares addresses:", "found.conflict" in text)

# %% cell: debug
plain = tvm.compile(axpy, x86()).mod.inspect_source("ll")
stripped = strip_llvm(plain)
print(
    "lines:", len(plain.splitlines()), "->", len(stripped.text.splitlines())
)
names = re.findall(r'DILocalVariable\(name: "(.*?)"', plain)
print("variables:", *sorted(set(names))[:8])

# %% cell: assembly
code = assembly(axpy, x86())
lines = [t for t in code.splitlines() if not re.match(r"\s*\.(loc|cfi)", t)]
lines = [t for t in lines if not t.startswith((".Ltmp", "\t#"))]
first = next(i for i, t in enumerate(lines) if "vbroadcastss" in t)
last = next(i for i in range(first, len(lines)) if "\tj" in lines[i])
for t in lines[first : last + 1]:
    print(t.expandtabs(8).rstrip()[:76])


# %% cell: parallel
@T.prim_func(s_tir=True)
def spread(A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")):
    for i in T.parallel(1024):
        with T.sblock("B"):
            v = T.axis.spatial(1024, i)
            B[v] = A[v] * T.float32(3)


text = ll(spread, x86(**{"opt-level": 0}))
call = next(t for t in text.splitlines() if "(ptr @__tvm_parallel_lam" in t)
print(call.strip())
begin = text.index("define private i32 @__tvm_parallel_lambda")
print(text[begin : text.index("br label", begin)].rstrip())

# %% cell: parallel-promises
SPREAD = """
@T.prim_func(s_tir=True)
def spread(A: T.Buffer((1024,), "float32"), B: T.Buffer((1024,), "float32")):
    for i in T.KIND(1024):
        with T.sblock("B"):
            v = T.axis.spatial(1024, i)
            B[v] = B[v] + A[v] * T.float32(3)
"""
for kind in ("serial", "parallel"):
    func = tvm.script.from_source(SPREAD.replace("KIND", kind))
    for promise in (False, True):
        text = ll(func.with_attr("tirx.noalias", promise), x86())
        align = set(re.findall(r"load <8 x float>.*align (\d+)", text))
        compares = "found.conflict" in text
        print(f"{kind:8} noalias={promise!s:5} compares addresses: ", end="")
        print(f"{compares!s:5} vector loads: align", *sorted(align))

# %% check
assert not compares and align == {"4"}

# %% cell: options
for options in (
    {"jit": "mcjit"},
    {"jit": "orcjit"},
    {"opt-level": 0},
    {"cl-opt": ["-nonsense"]},
):
    made = tvm.compile(axpy, Target({"kind": "llvm", **options}))
    a = tvm.runtime.tensor(np.ones(1024, "float32"))
    b = tvm.runtime.tensor(np.zeros(1024, "float32"))
    made["axpy"](a, b)
    print(options, b.numpy()[:2])
with expect_error(tvm.error.InternalError, match="jit option", max_lines=1):
    tvm.compile(axpy, Target({"kind": "llvm", "jit": "fast"}))

# %% check
assert "found.conflict" not in ll(axpy.with_attr("tirx.noalias", True), x86())

# %% cell: effort
for level in (0, 1, 2, 3):
    code = assembly(axpy, x86(**{"opt-level": level}))
    vectors = len(re.findall(r"vfmadd\w+ps", code))
    scalars = len(re.findall(r"vfmadd\w+ss", code))
    print(
        f"opt-level {level}: {vectors} vector, {scalars} scalar multiply-adds"
    )

# %% cell: solution-arm
arm = {"kind": "llvm", "mtriple": "aarch64-linux-gnu"}
for attributes in ({}, {"mattr": ["+sve"]}):
    code = assembly(axpy, Target({**arm, **attributes}))
    found = sorted(set(re.findall(r"\b(fmla|fmad|whilelo|z\d)\b", code)))
    print(attributes, *found[:4])

# %% cell: solution-names
text = ll(total, x86(**{"opt-level": 0}))
print(*re.findall(r"^define.*?@(\w+)", text, re.M), sep="\n")
