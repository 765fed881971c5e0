"""
Builds for the pass explorer
============================

Six modules are built, and every pass is recorded: what it got, what it left,
and how long it took.
"""

# %% cell: setup

import tvm
from tvm import s_tir, tirx
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.explorer import dumps, pack, summary, unpack
from tvm_deepdive_helpers.nodes import children
from tvm_deepdive_helpers.passes import tir_stages
from tvm_deepdive_helpers.record_steps import build_steps
from tvm_deepdive_helpers.running_example import MLP, mlp

# %% cell: targets
CPU = tvm.target.Target(
    {
        "kind": "llvm",
        "mtriple": "x86_64-linux-gnu",
        "mcpu": "x86-64-v3",
    }
)
GPU = tvm.target.Target({"kind": "cuda", "arch": "sm_80"}, host=CPU)


# %% cell: models
@I.ir_module
class Convolution:
    @R.function
    def main(
        image: R.Tensor((1, 3, 16, 16), "float32"),
        weight: R.Tensor((8, 3, 3, 3), "float32"),
        bias: R.Tensor((1, 8, 1, 1), "float32"),
    ):
        with R.dataflow():
            c = R.nn.conv2d(image, weight, padding=1)
            s = R.add(c, bias)
            r = R.nn.relu(s)
            y = R.nn.max_pool2d(r, pool_size=2, strides=2)
            R.output(y)
        return y


@I.ir_module
class Attention:
    @R.function
    def main(
        q: R.Tensor((4, 16, 32), "float32"),
        k: R.Tensor((4, 16, 32), "float32"),
        v: R.Tensor((4, 16, 32), "float32"),
    ):
        with R.dataflow():
            t = R.permute_dims(k, [0, 2, 1])
            s = R.matmul(q, t)
            p = R.nn.softmax(R.multiply(s, R.const(0.125)), axis=-1)
            y = R.matmul(p, v)
            R.output(y)
        return y


@I.ir_module
class RowSums:
    @R.function
    def main(x: R.Tensor((16, 256), "float32")):
        with R.dataflow():
            e = R.exp(x)
            y = R.sum(e, axis=1)
            R.output(y)
        return y


# %% cell: scheduled
@T.prim_func(s_tir=True)
def gemm(
    A: T.Buffer((128, 128), "float32"),
    B: T.Buffer((128, 128), "float32"),
    C: T.Buffer((128, 128), "float32"),
):
    T.func_attr({"tirx.noalias": True})
    for i, j, k in T.grid(128, 128, 128):
        with T.sblock("C"):
            vi, vj, vk = T.axis.remap("SSR", [i, j, k])
            with T.init():
                C[vi, vj] = T.float32(0)
            C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]


sch = s_tir.Schedule(gemm)
i, j, k = sch.get_loops("C")
i_out, i_in = sch.split(i, [None, 4])
j_out, j_in = sch.split(j, [None, 8])
sch.reorder(i_out, j_out, k, i_in, j_in)
sch.vectorize(j_in)
sch.unroll(i_in)
tile = sch.cache_write("C", 0, "global")
sch.reverse_compute_at(tile, j_out)
sch.parallel(i_out)
sch.decompose_reduction("C", k)

# %% cell: build
BUILDS = {
    "mlp": (MLP, CPU),
    "dynamic": (mlp("n"), CPU),
    "convolution": (Convolution, CPU),
    "attention": (Attention, CPU),
    "gemm": (sch.mod, CPU),
    "gpu": (RowSums, GPU),
}
packed = {}
for key, (mod, target) in BUILDS.items():
    steps = build_steps(
        lambda mod=mod, target=target: tvm.compile(mod, target), repeats=3
    )
    packed[key] = pack(key, steps)
    # Every recorded step applied to what it starts from gives what it left.
    assert unpack(packed[key]) == [(s.before, s.after) for s in steps]
    if key == "mlp":
        mlp_steps = steps

# %% cell: table
print("module | passes | change the text | functions at most")
for key, data in packed.items():
    passes = [step for step in data["steps"] if step["n"]]
    changing = sum("d" in step for step in passes)
    # The first name is that of the lines above all functions.
    functions = max(len(step.get("o", "12")) - 1 for step in passes)
    print(f"`{key}` | {len(passes)} | {changing} | {functions}")

# %%
for key, data in packed.items():
    glue(key, dumps(data), varies=True)
size = {key: len(dumps(data)) / 1e3 for key, data in packed.items()}
whole = sum(len(text) for pair in unpack(packed["mlp"]) for text in pair)
glue("kb", sum(size.values()), varies=True)
glue("mlp_kb", size["mlp"], varies=True)
glue("mlp_text_kb", whole / 1e3)
glue("modules", len(packed))
glue("steps", sum(len(data["steps"]) for data in packed.values()))

# %% cell: changing
print(summary(packed["mlp"]))

# %% check
names = {s["n"] for data in packed.values() for s in data["steps"]}
names.discard("")
glue("names", len(names))
for key in packed:
    gaps = [n for n, s in enumerate(packed[key]["steps"]) if not s["n"]]
    assert len(gaps) == (key != "gemm"), (key, gaps)

stages = {stage.name: stage for stage in tir_stages(gemm, CPU)}
stage = stages["tirx.FP8StorageLegalize"]
assert stage.changed and not stage.text_changed


def nested_in(stmt):
    """Sequences of statements that stand directly in another one."""
    inner = [c for _, c in children(stmt) if isinstance(c, tirx.Stmt)]
    own = [c for c in inner if isinstance(c, tirx.SeqStmt)]
    own = len(own) if isinstance(stmt, tirx.SeqStmt) else 0
    return own + sum(nested_in(c) for c in inner)


nested = [nested_in(m["gemm"].body) for m in (stage.before, stage.after)]
assert nested[0] > 0 == nested[1], nested

# %% cell: solution-shapes
of = {key: [s["n"] for s in data["steps"]] for key, data in packed.items()}
print("the same passes in both:", of["mlp"] == of["dynamic"])
fixed, dynamic = (
    {s["n"] for s in packed[key]["steps"] if "d" in s}
    for key in ("mlp", "dynamic")
)
print("change only the dynamic one:", sorted(dynamic - fixed))

for step, (before, after) in zip(
    packed["dynamic"]["steps"], unpack(packed["dynamic"]), strict=True
):
    if "shape_func" in after and "shape_func" not in before:
        print("shape_func comes with", step["n"])

# %% check
assert of["mlp"] == of["dynamic"]

# %% cell: solution-words


def life(key, word):
    """The passes that bring a word into the text and take it out."""
    brought, taken = "the input", "stays"
    texts = zip(packed[key]["steps"], unpack(packed[key]), strict=True)
    for step, (before, after) in texts:
        if step["n"] in ("", "tirx.Filter"):  # these only choose functions
            continue
        if word in after and word not in before:
            brought, taken = step["n"], "stays"
        if word in before and word not in after:
            taken = step["n"]
    return brought, taken


print("build | words | brought by | taken out by")
WORDS = {
    "gemm": ("T.sblock(", "T.unroll(", "T.vectorized(", "T.parallel("),
    "gpu": (
        "T.thread_binding(",
        "__shfl_down_sync",
        "T.exp(",
        "_sum_kernel(e",
    ),
}
found = {}
for key, words in WORDS.items():
    for word in words:
        found[word] = brought, taken = life(key, word)
        print(f"`{key}` | `{word}` | {brought} | {taken}")

# %% check
assert found["T.sblock("] == ("the input", "s_tir.LowerOpaqueBlock")
assert found["_sum_kernel(e"] == ("tirx.SplitHostDevice", "stays")
