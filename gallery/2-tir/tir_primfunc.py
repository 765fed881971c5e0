"""
PrimFunc: parameters, buffers, sizes, attributes
================================================

What a TIR function consists of, what a buffer promises about memory, and
which of these promises a compiled kernel checks.
"""

# %%
import numpy as np
import tvm
import tvm_ffi
from tvm import s_tir, tirx
from tvm.script import ir as I
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, figures, glue, nodes
from tvm_deepdive_helpers.ir import show


def compiled(func):
    return tvm.compile(func, target="llvm")


def tensor(array):
    """A copy of an array in memory that TVM aligned."""
    return tvm.runtime.tensor(np.asarray(array, "float32"))


# %% cell: function


@T.prim_func
def scale(a: T.handle, b: T.handle, alpha: T.float32):
    n = T.int64()
    A = T.match_buffer(a, (n,), "float32")
    B = T.match_buffer(b, (n,), "float32")
    for i in range(n):
        B[i] = A[i] * alpha


show(scale)

# %% cell: fields
for field in nodes.node_class(tirx.PrimFunc).fields:
    print(f"{field.name:9s} {field.type:13s} declared by {field.owner}")

# %% cell: params
for param in scale.params:
    kind = type(param.ty).__name__
    buffer = tirx.is_buffer_var(param)
    print(f"{param.name:6s} {type(param).__name__} of {kind:11s}", end="")
    print(f"buffer of shape {param.shape}" if buffer else str(param.ty))
print("a mapping from parameters to buffers:", hasattr(scale, "buffer_map"))

# %% cell: tree
SKIP = (tvm.ir.Type, tvm.ir.DictAttrs, tvm_ffi.Map)


def label(obj):
    name = nodes.node_class(type(obj)).key
    if isinstance(obj, tvm.ir.Var):
        return f"{name}\n{obj.name}"
    if isinstance(obj, tirx.IntImm):
        return f"{name}\n{obj.value}"
    return name


drawn = nodes.tree(
    scale,
    keep=lambda obj: not isinstance(obj, SKIP),
    label=label,
    shared=lambda obj: isinstance(obj, tvm.ir.Var),
)
colors = {
    node: "vermilion" if kind == "ir.Var" else "navy"
    for node, kind in drawn.kinds.items()
}
fig, ax = figures.layered_graph(drawn.labels, drawn.edges, colors=colors)

# %% cell: identity
store = scale.body.body  # PrimFunc -> For -> BufferStore
load = store.value.a  # BufferStore -> Mul -> TensorLoad
print("the same Var object:", load.source.same_as(scale.params[0]))
print("one n for both:", load.source.shape[0].same_as(store.buffer.shape[0]))


@T.prim_func
def renamed(x: T.handle, y: T.handle, factor: T.float32):
    T.func_attr({"global_symbol": "scale"})
    m = T.int64()
    X = T.match_buffer(x, (m,), "float32")
    Y = T.match_buffer(y, (m,), "float32")
    for k in range(m):
        Y[k] = X[k] * factor


print("same object:", scale.same_as(renamed))
print("structurally equal:", tvm_ffi.structural_equal(scale, renamed))

# %% cell: buffer-type
buffer_type = scale.params[0].ty
for field in nodes.node_class(type(buffer_type)).own_fields:
    value = getattr(buffer_type, field.name)
    print(f"{field.name:15s} {field.type:20s} {value}")

# %% cell: offset
i, j = tirx.Var("i", "int64"), tirx.Var("j", "int64")
compact = tirx.decl_buffer((4, 8), "float32", name="compact")
padded = tirx.decl_buffer((4, 8), name="padded", strides=(16, 1))
shifted = tirx.decl_buffer((4, 8), name="shifted", elem_offset=3)
for buf in (compact, padded, shifted):
    print(f"{buf.name}[i, j] is element", buf.offset_of([i, j])[0])

# %% cell: not-a-buffer
print("i is an instance of tirx.Buffer:", isinstance(i, tirx.Buffer))
print("i is a buffer:", tirx.is_buffer_var(i))
with expect_error(AttributeError):
    i.shape

# %% cell: copy-kernels


@T.prim_func
def copy_compact(a: T.handle, b: T.handle):
    n, m = T.int64(), T.int64()
    A = T.match_buffer(a, (n, m), "float32")
    B = T.match_buffer(b, (n, m), "float32")
    for i, j in T.grid(n, m):
        B[i, j] = A[i, j]


@T.prim_func
def copy_strided(a: T.handle, b: T.handle):
    n, m, s0, s1 = T.int64(), T.int64(), T.int64(), T.int64()
    A = T.match_buffer(a, (n, m), "float32", strides=(s0, s1))
    B = T.match_buffer(b, (n, m), "float32")
    for i, j in T.grid(n, m):
        B[i, j] = A[i, j]


source = tensor(np.arange(6).reshape(2, 3))
transposed = tvm_ffi.from_dlpack(np.from_dlpack(source).T)
print("shape", transposed.shape, "strides", transposed.strides)
result = tensor(np.zeros((3, 2)))
compiled(copy_strided)(transposed, result)
print(result.numpy())

# %% cell: compact-refuses
with expect_error(ValueError, match="compact"):
    compiled(copy_compact)(transposed, result)

# %% cell: strided-code


def llvm_text(func):
    library = tirx.build(tvm.IRModule({"main": func}), target="llvm")
    return library.inspect_source("ll")


for func in (copy_compact, copy_strided):
    text = llvm_text(func.with_attr("tirx.noalias", True))
    vectors = "load <4 x float>" in text
    print(f"{func.attrs['global_symbol']}: vector loads {vectors},", end=" ")
    print("memcpy", "@llvm.memcpy" in text)

# %% cell: offsets


@T.prim_func
def first_four(a: T.handle, b: T.handle):
    A = T.match_buffer(a, (4,), "float32")
    B = T.match_buffer(b, (4,), "float32")
    for i in range(4):
        B[i] = A[i]


@T.prim_func
def first_four_of_view(a: T.handle, b: T.handle):
    start = T.int64()
    A = T.match_buffer(a, (4,), "float32", elem_offset=start, offset_factor=4)
    B = T.match_buffer(b, (4,), "float32")
    for i in range(4):
        B[i] = A[i]


numbers = tensor(np.arange(16))
out = tensor(np.zeros(4))
slice_ = tvm_ffi.from_dlpack(np.from_dlpack(numbers)[4:8])
compiled(first_four)(slice_, out)  # numpy moved the pointer: offset 0
print("a slice of numpy:", out.numpy())
view = numbers._create_view((4,), "float32", 16)  # 16 bytes, 4 elements
with expect_error(ValueError, match="byte_offset"):
    compiled(first_four)(view, out)
compiled(first_four_of_view)(view, out)
print("with a variable offset:", out.numpy())
view = numbers._create_view((4,), "float32", 8)  # 2 elements
with expect_error(ValueError, match="Misaligned", max_lines=3):
    compiled(first_four_of_view)(view, out)

# %% cell: alignment


def compute_line(alignment):
    """The LLVM signature of a copy whose buffers have this alignment."""

    @T.prim_func
    def copy(a: T.handle, b: T.handle):
        T.func_attr({"tirx.noalias": True})
        A = T.match_buffer(a, (64,), "float32", align=alignment)
        B = T.match_buffer(b, (64,), "float32", align=alignment)
        for i in range(64):
            B[i] = A[i] + T.float32(1)

    lines = llvm_text(copy).splitlines()
    return next(ln for ln in lines if "define" in ln and "compute" in ln)


for alignment in (64, 4):
    signature = compute_line(alignment)
    print(signature[signature.index("@") : signature.index(")") + 1][:72])

# %% cell: unchecked
memory = np.zeros(128, "uint8")
start = -memory.ctypes.data % 64 + 4  # four bytes past an aligned address
odd = memory[start : start + 24].view("float32").reshape(2, 3)
misaligned = tvm_ffi.from_dlpack(odd)
compiled(copy_compact)(source, misaligned)  # accepted without a word
with expect_error(RuntimeError, match="align"):
    tvm_ffi.from_dlpack(odd, require_alignment=64)

# %% cell: symbolic
copy = compiled(copy_compact)
with expect_error(ValueError, match="A.shape"):
    copy(source, tensor(np.zeros((3, 3))))


@T.prim_func
def spread(a: T.handle, b: T.handle):
    n = T.int64()
    A = T.match_buffer(a, (n,), "float32")
    B = T.match_buffer(b, (2 * n,), "float32")
    for i in range(n):
        B[2 * i] = A[i]


with expect_error(ValueError, match="expected 2"):
    compiled(spread)(tensor(np.ones(3)), tensor(np.zeros(7)))

# %% cell: unsolvable


@T.prim_func
def halves(b: T.handle):
    n = T.int64()
    B = T.match_buffer(b, (2 * n,), "float32")
    for i in range(n):
        B[i] = T.float32(0)


with expect_error(tvm.error.InternalError, match="not passed in"):
    compiled(halves)

# %% cell: specialize
n = scale.params[0].shape[0]
eight = tirx.decl_buffer((tirx.IntImm("int64", 8),), "float32")
scale_8 = scale.specialize({scale.params[0]: eight})
show(scale_8)
scale_8_by_2 = scale_8.specialize(
    {scale_8.params[2]: tirx.FloatImm("float32", 2.0)}
)
show(scale_8_by_2)

# %% cell: specialize-refused
with expect_error(ValueError, match="PrimFunc's params"):
    scale.specialize({n: tirx.IntImm("int64", 8)})
with expect_error(TypeError, match="independent Var"):
    spread.specialize({spread.params[1]: eight})

# %% cell: attrs
noted = scale.with_attr("book.note", "first version")
print(noted.attrs)
print(scale.attrs)
print("the body is shared:", noted.body.same_as(scale.body))

# %% cell: private


@T.prim_func(private=True)
def hidden(A: T.Buffer((4,), "float32")):
    for i in range(4):
        A[i] = T.float32(1)


print(hidden.attrs)
with expect_error(tvm.error.InternalError, match="MakePackedAPI"):
    compiled(hidden)
visible = compiled(hidden.with_attr("global_symbol", "hidden"))
visible(out)
print(out.numpy())

# %% cell: private-call


@I.ir_module
class ByPointer:
    @T.prim_func(private=True)
    def fill(data: T.handle("float32"), row: T.int32):
        A = T.decl_buffer((4,), "float32", data=data)
        for i in range(2):
            A[row * 2 + i] = T.float32(row)

    @T.prim_func
    def main(A: T.Buffer((4,), "float32")):
        for row in range(2):
            ByPointer.fill(A.data, row)


@I.ir_module
class ByValue:
    @T.prim_func(private=True)
    def square(x: T.int32) -> T.int32:
        return x * x

    @T.prim_func
    def main(A: T.Buffer((4,), "int32")):
        for i in range(4):
            A[i] = ByValue.square(i)


compiled(ByPointer)["main"](out)
print(out.numpy())
inlined = tirx.transform.InlinePrivateFunctions()(ByPointer)
print("functions left:", [var.name_hint for var in inlined.functions])
with expect_error(tvm.error.InternalError, match="Return should be"):
    compiled(ByValue)

# %% cell: noalias, varies


def shift(promise):
    """B[i + 1] = A[i], with or without the promise that A is not B."""

    @T.prim_func
    def shift(A: T.Buffer((256,), "float32"), B: T.Buffer((257,), "float32")):
        T.func_attr({"tirx.noalias": promise})
        for i in range(256):
            B[i + 1] = A[i]

    return shift


def shifted_in_place(promise):
    memory = tensor(np.arange(257))
    array = np.from_dlpack(memory)
    compiled(shift(promise))(
        tvm_ffi.from_dlpack(array[:256]), tvm_ffi.from_dlpack(array)
    )
    return memory.numpy()


print("no promise:    ", shifted_in_place(False)[:6])
print("false promise: ", shifted_in_place(True)[:6])

# %% cell: ret


@T.prim_func
def successor(x: T.int32) -> T.int32:
    return x + 1


print("returns", successor.ret_type, "through", type(successor.body).__name__)
print("41 ->", compiled(successor)(41))
print("scale returns", scale.ret_type)
print("seen by Relax:", scale.ty)

# %% cell: packed
packing = tvm.transform.Sequential(
    [
        tirx.transform.BindTarget(tvm.target.Target("llvm", host="llvm")),
        tirx.transform.AnnotateEntryFunc(),
        tirx.transform.MakePackedAPI(),
    ]
)
packed = packing(tvm.IRModule({"scale": scale}))["scale"]
print([f"{p.name}: {p.ty}" for p in packed.params], "->", packed.ret_type)
print("global_symbol:", packed.attrs["global_symbol"])
asserts = []
tvm_ffi.structural_walk(packed, (tirx.stmt.AssertStmt, asserts.append))
print(f"{len(asserts)} assertions, the first:")
show(asserts[0])
glue("asserts", len(asserts))

# %% cell: match-region


@T.prim_func(s_tir=True)
def tiles(A: T.Buffer((8, 8), "float32"), B: T.Buffer((8, 8), "float32")):
    for i, j in T.grid(2, 2):
        with T.sblock("tile"):
            vi, vj = T.axis.remap("SS", [i, j])
            T.reads(A[vi * 4 : vi * 4 + 4, vj * 4 : vj * 4 + 4])
            T.writes(B[vi * 4 : vi * 4 + 4, vj * 4 : vj * 4 + 4])
            s0, s1, start = T.int32(), T.int32(), T.int32()
            V = T.match_buffer(
                A[vi * 4 : vi * 4 + 4, vj * 4 : vj * 4 + 4],
                (4, 4),
                "float32",
                strides=(s0, s1),
                elem_offset=start,
                offset_factor=1,
            )
            for x, y in T.grid(4, 4):
                with T.sblock("copy"):
                    vx, vy = T.axis.remap("SS", [x, y])
                    B[vi * 4 + vx, vj * 4 + vy] = V[vx, vy]


without_view = tvm.transform.Sequential(
    [
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.LowerOpaqueBlock(),
    ]
)(tvm.IRModule({"tiles": tiles}))["tiles"]
show(without_view)

# %% cell: solution-every-second-row


@T.prim_func
def row_sums(a: T.handle, b: T.handle):
    n, m, s0 = T.int64(), T.int64(), T.int64()
    A = T.match_buffer(a, (n, m), "float32", strides=(s0, T.int64(1)))
    B = T.match_buffer(b, (n,), "float32")
    for i in range(n):
        B[i] = T.float32(0)
        for j in range(m):
            B[i] = B[i] + A[i, j]


kernel = compiled(row_sums)
matrix = tensor(np.arange(24).reshape(6, 4))
rows = np.from_dlpack(matrix)[::2]
sums = tensor(np.zeros(3))
kernel(tvm_ffi.from_dlpack(rows), sums)
print(sums.numpy(), "expected", rows.sum(1))
columns = np.from_dlpack(matrix).T
with expect_error(ValueError, match="strides"):
    kernel(tvm_ffi.from_dlpack(columns), tensor(np.zeros(4)))

# %% cell: solution-specialize-int


@T.prim_func
def scale_n(a: T.handle, b: T.handle, n: T.int64):
    A = T.match_buffer(a, (n,), "float32")
    B = T.match_buffer(b, (n,), "float32")
    for i in range(n):
        B[i] = A[i] * T.float32(2)


narrow = scale_n.specialize({scale_n.params[2]: 8})
print("variable", narrow.body.loop_var.ty, "extent", narrow.body.extent.ty)
with expect_error(tvm.error.InternalError, match="loop_var"):
    show(narrow)
fixed = scale_n.specialize({scale_n.params[2]: tirx.IntImm("int64", 8)})
show(fixed)

# %% check
assert np.array_equal(result.numpy(), source.numpy().T)
assert not hasattr(scale, "buffer_map")
assert tvm_ffi.structural_equal(scale, renamed)
assert (shifted_in_place(False) == 0).all()
assert "align 64" in compute_line(64) and "align 64" not in compute_line(4)
assert packed.attrs["global_symbol"] == "__tvm_ffi_scale"
x = np.random.default_rng(0).standard_normal((8, 8)).astype("float32")
y = tensor(np.zeros((8, 8)))
compiled(tiles)(tensor(x), y)
assert np.array_equal(y.numpy(), x)
z = tensor(np.zeros(8))
compiled(scale_8_by_2)(tensor(x[0]), z)
assert np.array_equal(z.numpy(), 2 * x[0])
