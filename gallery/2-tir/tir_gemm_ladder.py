"""
The GEMM ladder
===============

A matrix product from three plain loops to the speed of a tuned library, one
schedule step at a time, each with its change of the IR and its gain.
"""

# gallery: timeout=120

# %% cell: setup
import re
from dataclasses import dataclass

import numpy as np
import tvm
from matplotlib.patches import Rectangle
from tvm import s_tir
from tvm.script import tirx as T
from tvm.target import codegen

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.bench import (
    cpu_timer,
    machine_facts,
    numpy_process,
    race,
)
from tvm_deepdive_helpers.figures import (
    COLORS,
    INK,
    PAPER,
    alt,
    bar_chart,
    new,
    tint,
)
from tvm_deepdive_helpers.ir import cut
from tvm_deepdive_helpers.schedules import changes, root_text

N = 1024
FLOPS = 2 * N**3  # a multiplication and an addition, N * N * N times


def x86(level):
    """A target that is the same on every machine, for listings."""
    return tvm.target.Target(
        {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": level}
    )


HOST = tvm.target.Target(
    {"kind": "llvm", "mcpu": codegen.llvm_get_system_cpu()}
)
PLAIN = tvm.target.Target("llvm")

# %% cell: naive


def product(n):
    """C = A @ B for square matrices: three loops and one block."""

    @T.prim_func(s_tir=True)
    def gemm(
        A: T.Buffer((n, n), "float32"),
        B: T.Buffer((n, n), "float32"),
        C: T.Buffer((n, n), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        for i, j, k in T.grid(n, n, n):
            with T.sblock("C"):
                vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                with T.init():
                    C[vi, vj] = T.float32(0)
                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]

    return gemm


# %% cell: features
NAMES = ("sse2", "avx2", "fma", "avx512f")
SHOWN = {
    'Target("llvm")': tvm.target.Target(
        {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
    ),
    "x86-64-v3": x86("x86-64-v3"),
    "x86-64-v4": x86("x86-64-v4"),
}
for name, target in SHOWN.items():
    known = [f for f in NAMES if codegen.target_has_features(f, target)]
    width = codegen.llvm_get_vector_width(target)
    print(f"{name:15s} claims {width} bits, has {' '.join(known)}")

# %% cell: tile-for
CACHE = 1024 * 1024  # bytes of cache that one core can count on


@dataclass(frozen=True)
class Tile:
    """What one core works on at a time."""

    lanes: int  # float32 values in a vector register
    vectors: int  # vectors beside each other in a tile of C
    rows: int  # rows of the tile
    block: int  # rows of A that stay in the cache

    @property
    def columns(self):
        return self.lanes * self.vectors


def tile_for(target, depth=N):
    """Choose the tile for a CPU and the length of the sums."""
    units = {
        "avx512f": (512, 32),
        "avx2": (256, 16),
        "neon": (128, 32),
        "sse2": (128, 16),
    }
    has = [f for f in units if codegen.target_has_features(f, target)]
    bits, registers = units[has[0]]
    lanes, vectors = bits // 32, 2
    rows = 1
    # A tile of C, one row of B, and one element of A, all in registers.
    while 2 * rows * vectors + vectors + 1 <= registers:
        rows *= 2
    block = rows
    while 2 * block * depth * 4 <= CACHE:
        block *= 2
    return Tile(lanes, vectors, rows, block)


for name, target in SHOWN.items():
    print(f"{name:15s} {tile_for(target)}")

# %%
shape = tile_for(x86("x86-64-v4"))
glue("rows", shape.rows)
glue("vectors", shape.vectors)
glue("tile_fma", shape.rows * shape.vectors)
glue("tile_rows", N // shape.rows)
glue("odd", N + 2 * shape.columns)

# %% cell: chains


def fma_chains(chains, lanes, rounds):
    """Independent multiply-adds, each of which needs the last result."""

    @T.prim_func
    def chain(
        x: T.Buffer((2,), "float32"),
        out: T.Buffer((chains * lanes,), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        acc = T.alloc_buffer((chains * lanes,), "float32")
        for c in T.unroll(chains):
            for v in T.vectorized(lanes):
                acc[c * lanes + v] = x[0]
        for _ in T.serial(rounds):
            for c in T.unroll(chains):
                for v in T.vectorized(lanes):
                    acc[c * lanes + v] = acc[c * lanes + v] * x[0] + x[1]
        for c in T.unroll(chains):
            for v in T.vectorized(lanes):
                out[c * lanes + v] = acc[c * lanes + v]

    return chain


ROUNDS = 100_000
CHAINS = (1, 2, 4, 6, 8, 12)


def fma_timers(target, counts=CHAINS):
    """For each number of chains a timer and the operations of one run."""
    lanes, timers = tile_for(target).lanes, {}
    for n in counts:
        func = tvm.compile(fma_chains(n, lanes, ROUNDS), target=target)
        x = tvm.runtime.tensor(np.array([0.5, 1], "float32"))
        out = tvm.runtime.empty((n * lanes,), "float32")
        timer = cpu_timer(lambda f=func, x=x, out=out: f(x, out))
        timer()
        assert np.allclose(out.numpy(), 2)  # the limit of x -> x / 2 + 1
        timers[f"{n} chains"] = timer, 2 * n * lanes * ROUNDS
    return timers


chains = fma_timers(HOST)

# %% cell: chains-figure, varies
times = race({name: timer for name, (timer, _) in chains.items()}, rounds=9)
speeds = [chains[n][1] / s / 1e9 for n, s in times.minima.items()]
fig, ax = new("text", 2.4)
ax.plot(CHAINS, speeds, marker="o")
ax.set_xticks(CHAINS)
ax.set_xlabel("independent chains of multiply-adds")
ax.set_ylabel("GFLOP/s")
ax.set_ylim(0)
alt(fig, "Line chart. The speed rises with the number of chains, then stays.")

# %% check
glue("latency_hidden", max(speeds) / speeds[0], varies=True)

# %% cell: reorder
ladder = []  # the steps, from the bottom to the top
listed = s_tir.Schedule(product(N))
LISTED = tile_for(x86("x86-64-v4"))


def climb(step, context=0):
    """Apply a step to the listed schedule and show what it changed."""
    before = listed.mod
    step(listed, LISTED)
    ladder.append(step)
    print(changes(before, listed, context))


def reorder(sch, tile):
    i, j, k = sch.get_loops("C")
    sch.reorder(i, k, j)


climb(reorder, context=1)

# %% cell: tile


def tiles(sch, tile):
    i, k, j = sch.get_loops("C")
    i_out, i_in = sch.split(i, [None, tile.rows])
    j_out, j_in = sch.split(j, [None, tile.columns])
    sch.reorder(i_out, j_out, k, i_in, j_in)


climb(tiles)

# %% cell: vectorize


def vectorize(sch, tile):
    lane = sch.split(sch.get_loops("C")[-1], [None, tile.lanes])[1]
    sch.vectorize(lane)


climb(vectorize)

# %% cell: unroll


def unroll(sch, tile):
    rows, vectors = sch.get_loops("C")[-3:-1]
    sch.unroll(rows)
    sch.unroll(vectors)


climb(unroll)

# %% cell: accumulate


def like_a_tile(sch, block, tile):
    """Vectors for the inner loops of a block that works on one tile."""
    rows, columns = sch.get_loops(block)[-2:]
    vectors, lane = sch.split(columns, [None, tile.lanes])
    sch.vectorize(lane)
    sch.unroll(rows)
    sch.unroll(vectors)


def accumulate(sch, tile):
    j_out = sch.get_loops("C")[1]
    copy_out = sch.cache_write("C", 0, "global")
    sch.reverse_compute_at(copy_out, j_out)
    like_a_tile(sch, copy_out, tile)


climb(accumulate)

# %% cell: hoist


def hoist_init(sch, tile):
    k = sch.get_loops("C")[2]
    sch.decompose_reduction("C", k)


climb(hoist_init)

# %% cell: pack


def pack(sch, tile):
    width = tile.columns
    panels = sch.cache_read("C_update", "B", "global")
    sch.transform_layout(
        "C_update",
        "B_global",
        lambda k, j: (j // width, k, j % width),
    )
    row, column = sch.get_loops(panels)
    panel, lane = sch.split(column, [None, width])
    sch.reorder(panel, row, lane)
    sch.vectorize(lane)


climb(pack)

# %% cell: block


def block(sch, tile):
    i_out, j_out = sch.get_loops("C_update")[:2]
    blocks, i_mid = sch.split(i_out, [None, tile.block // tile.rows])
    sch.reorder(blocks, j_out, i_mid)


climb(block, context=1)

# %% cell: blocking-figure
fig, ax = new("text", 2.5)
KB = 4 * N // 1024  # KiB of a full row or column
inside = {
    "A": [
        ("green", (0, 30, 100, 36), 36, f"{LISTED.block} rows"),
        ("vermilion", (0, 46, 100, 6), 49, f"{LISTED.rows} rows"),
    ],
    "B": [("navy", (45, 0, 16, 100), 49, f"{LISTED.columns} columns")],
    "C": [
        ("green", (0, 30, 100, 36), 36, ""),
        ("vermilion", (45, 46, 16, 6), 49, "tile"),
    ],
}
for place, (name, areas) in enumerate(inside.items()):
    left = 170 * place
    ax.add_patch(Rectangle((left, 0), 100, 100, fc="none", ec=INK))
    ax.text(left + 50, -6, name, ha="center", fontsize=11)
    for color, (x, y, w, h), at, label in areas:
        box = Rectangle((left + x, y), w, h, fc=tint(color, 0.35))
        box.set_edgecolor(COLORS[color])
        ax.add_patch(box)
        ax.text(left + 104, at, label, va="center", fontsize=9)
ax.set(xlim=(-2, 480), ylim=(102, -14), aspect="equal")
ax.axis("off")
alt(fig, "Three squares A, B, C with a block, a panel and a tile marked.")

# %%
glue("block_kb", LISTED.block * KB)
glue("panel_kb", LISTED.columns * KB)
glue("b_kb", N * KB)

# %% cell: inner-loop


def rungs(tile, n=N):
    """The module after each step, by the step's name."""
    sch = s_tir.Schedule(product(n))
    mods = {"naive": sch.mod}
    for step in ladder:
        step(sch, tile)
        mods[step.__name__] = sch.mod
    return mods


# From a label to a jump back to it.
LOOP = re.compile(
    r"^(\.LBB\w+):\n((?:(?!^\1:).)*?)^\tj\w+\t\1\n", re.M | re.S
)


def inner_loop(mod, target):
    """Vector instructions of the straight loop with most multiply-adds."""
    asm = tvm.compile(mod, target=target).mod.inspect_source("asm")
    bodies, start = [], 0
    while found := LOOP.search(asm, start):
        start = found.start() + 1
        if not re.search(r"^\tj", found[2], re.M):  # no jump inside
            bodies.append(found[2])
    best = max(bodies, key=lambda body: body.count("fmadd"), default="")
    return re.findall(r"^\t(v.*)$", best, re.M)


def census(code):
    """Numbers of multiply-adds, loads and stores."""
    stores = sum(line.rstrip().endswith(")") for line in code)
    loads = sum("(" in line for line in code) - stores
    return sum("fmadd" in line for line in code), loads, stores


V4 = x86("x86-64-v4")
counted = {}
print(f"{'':12s} register  multiply-adds  loads  stores")
for name, mod in rungs(LISTED).items():
    code = inner_loop(mod, V4)
    if not code:
        print(f"{name:12s} (a branch in the loop)")
        continue
    fma, loads, stores = counted[name] = census(code)
    register = re.search(r"[xyz]mm", code[-1])[0]
    print(f"{name:12s} {register:8s} {fma:14d} {loads:6d} {stores:7d}")


# %% cell: race, varies
class Kernel:
    """A compiled product with its operands."""

    def __init__(self, mod, target, n=N):
        self.flops = 2 * n**3
        self.func = tvm.compile(mod, target=target)
        rng = np.random.default_rng(0)
        a, b = rng.random((2, n, n), dtype="float32")
        self.expected = a @ b
        self.args = [tvm.runtime.tensor(x) for x in (a, b, 0 * a)]
        self.seconds = cpu_timer(lambda: self.func(*self.args))

    def correct(self):
        return np.allclose(self.args[2].numpy(), self.expected, rtol=1e-4)


def numpy_gemm(n=N):
    """The product in a process of its own, whose BLAS has one thread."""
    setup = f"a, b = np.random.default_rng(0).random((2, {n}, {n}), 'f4')"
    return numpy_process(setup + "; c = a @ b", "np.matmul(a, b, out=c)")


tile = tile_for(HOST)
mods = rungs(tile)
kernels = {name: Kernel(mod, HOST) for name, mod in mods.items()}
kernels["target"] = kernels["reorder"]
kernels["reorder"] = Kernel(mods["reorder"], PLAIN)
kernels["naive"] = Kernel(mods["naive"], PLAIN)
odd = N + 2 * LISTED.columns  # rows that do not lie 4096 bytes apart
kernels["odd"] = Kernel(rungs(tile, odd)["unroll"], HOST, odd)

timers = {name: kernel.seconds for name, kernel in kernels.items()}
timers |= {name: timer for name, (timer, _) in chains.items()}
fast = {"accumulate", "hoist_init", "pack", "block", "numpy", *chains}
rounds = {name: 15 if name in fast else 4 for name in [*timers, "numpy"]}
rounds |= {"naive": 1, "tiles": 1}
with numpy_gemm() as timers["numpy"]:
    times = race(timers, rounds=rounds).minima

flops = {name: kernel.flops for name, kernel in kernels.items()}
flops |= {name: count for name, (_, count) in chains.items()}
gflops = {n: flops.get(n, FLOPS) / s / 1e9 for n, s in times.items()}
peak = max(gflops[name] for name in chains)
ORDER = ("naive", "reorder", "target", *list(mods)[2:])
below = 1.0
for name in ORDER:
    gain = gflops[name] / below if name != "naive" else 1
    print(f"{name:11s} {gflops[name]:7.1f} GFLOP/s  x {gain:.2f}")
    below = gflops[name]
for name, value in (("numpy", gflops["numpy"]), ("peak", peak)):
    print(f"{name:11s} {value:7.1f} GFLOP/s")

# %% check
assert all(kernel.correct() for kernel in kernels.values())
for name, value in gflops.items():
    if name not in chains:
        glue(f"gflops_{name}", value, varies=True)
glue("peak", peak, varies=True)
glue("over_naive", gflops["block"] / gflops["naive"], varies=True)
glue("of_numpy", gflops["block"] / gflops["numpy"], varies=True)
glue("of_peak", gflops["block"] / peak, varies=True)
glue("pack_gain", gflops["pack"] / gflops["hoist_init"], varies=True)
glue("mcpu", str(HOST.attrs["mcpu"]), varies=True)
glue("cpu", machine_facts()["cpu"], varies=True)

# %% cell: ladder-figure, varies
LABELS = {
    "naive": "naive: i, j, k",
    "reorder": "reorder: i, k, j",
    "target": "target: this CPU",
}
fig, ax = bar_chart(
    {LABELS.get(name, name): gflops[name] for name in ORDER},
    unit="GFLOP/s on one thread, logarithmic scale",
    form=".1f",
    log=True,
)
for label in ax.texts:
    label.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.5})
for value, name, color, side in (
    (gflops["numpy"], "numpy ", "vermilion", "right"),
    (peak, " peak", "green", "left"),
):
    ax.axvline(value, color=COLORS[color], linestyle="--", zorder=0)
    ax.text(value, -0.6, name, color=COLORS[color], ha=side, fontsize=9)
alt(fig, "Bars: the speed after each step of the ladder.")

# %% cell: large, varies
BIG = 2 * N
tile = tile_for(HOST, depth=BIG)
mods = rungs(tile, BIG)
big = {name: Kernel(mods[name], HOST, BIG) for name in ("pack", "block")}
timers = {name: kernel.seconds for name, kernel in big.items()}
with numpy_gemm(BIG) as timers["numpy"]:
    times = race(timers, rounds=5).minima
big_gflops = {name: 2 * BIG**3 / s / 1e9 for name, s in times.items()}
for name, value in big_gflops.items():
    print(f"{name:11s} {value:7.1f} GFLOP/s")

# %% check
assert all(kernel.correct() for kernel in big.values())
big_of_numpy = big_gflops["block"] / big_gflops["numpy"]
glue("big", BIG)
glue("big_of_numpy", big_of_numpy, varies=True)
glue("big_block_gain", big_gflops["block"] / big_gflops["pack"], varies=True)

# %% cell: intrinsic


def one_fma(lanes):
    """One multiply-add of vectors: what it computes, and how."""
    fma, vector = f"llvm.fma.v{lanes}f32", f"float32x{lanes}"

    @T.prim_func(s_tir=True)
    def what(a: T.handle, b: T.handle, c: T.handle):
        A = T.match_buffer(a, (1,), offset_factor=1)
        B = T.match_buffer(b, (lanes,), offset_factor=1)
        C = T.match_buffer(c, (lanes,), offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0], B[0:lanes])
            T.writes(C[0:lanes])
            for lane in T.vectorized(lanes):
                with T.sblock("fma"):
                    v = T.axis.spatial(lanes, lane)
                    C[v] = C[v] + A[0] * B[v]

    @T.prim_func(s_tir=True)
    def how(a: T.handle, b: T.handle, c: T.handle):
        A = T.match_buffer(a, (1,), offset_factor=1)
        B = T.match_buffer(b, (lanes,), offset_factor=1)
        C = T.match_buffer(c, (lanes,), offset_factor=1)
        with T.sblock("root"):
            T.reads(C[0:lanes], A[0], B[0:lanes])
            T.writes(C[0:lanes])
            C[T.ramp(0, 1, lanes)] = T.call_llvm_pure_intrin(
                T.llvm_lookup_intrinsic_id(fma),
                T.broadcast(A[0], lanes),
                B.vload([0], vector),
                C.vload([0], vector),
                dtype=vector,
            )

    return what, how


def tensorize(sch, tile):
    name = f"gemm.fma{tile.lanes}"
    s_tir.TensorIntrin.register(name, *one_fma(tile.lanes), override=True)
    sch.tensorize(sch.get_loops("C_update")[-1], name)


before = listed.mod
tensorize(listed, LISTED)
print(changes(before, listed, context=0))

# %% cell: threads-refused
finished = s_tir.Schedule(rungs(LISTED)["block"])
with expect_error(s_tir.ScheduleError, keep="violates|has the `init`"):
    finished.parallel(finished.get_loops("C_update")[0])

# %% cell: threads


def threads(sch, tile):
    """Blocks of rows in parallel, while the block still has its init."""
    i_out, j_out = sch.get_loops("C")[:2]
    blocks, i_mid = sch.split(i_out, [None, tile.block // tile.rows])
    sch.reorder(blocks, j_out, i_mid)
    sch.parallel(blocks)
    sch.decompose_reduction("C", sch.get_loops("C")[3])


def in_parallel(tile, n=N):
    """The ladder with threads: another order, the same kernel."""
    sch = s_tir.Schedule(product(n))
    rung = reorder, tiles, vectorize, unroll, accumulate, threads, pack
    for step in rung:
        step(sch, tile)
    return sch


print(cut(root_text(in_parallel(LISTED)), keep="for |sblock", context=0))

# %% check
parallel = Kernel(in_parallel(tile_for(HOST)).mod, HOST)
parallel.func(*parallel.args)
assert parallel.correct()
passes = [
    s_tir.transform.LowerInitBlock(),
    s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
    s_tir.transform.ConvertBlocksToOpaque(),
    s_tir.transform.CompactBufferAllocation(),
    s_tir.transform.LowerOpaqueBlock(),
]
text = tvm.transform.Sequential(passes)(in_parallel(LISTED).mod).script()
places = [
    text.index(f"{name} = T.alloc") for name in ("B_global", "C_global")
]
assert places[0] < text.index("T.parallel(") < places[1]

# %% cell: targets, varies
tile = tile_for(HOST)
with_fma = s_tir.Schedule(rungs(tile)["block"])
tensorize(with_fma, tile)
others = {"this CPU, llvm.fma": (HOST, with_fma.mod)}
others["this CPU"] = HOST, rungs(tile)["block"]
if codegen.llvm_get_system_triple().startswith("x86_64"):
    for name in ("x86-64-v3", "x86-64"):
        others[name] = x86(name), rungs(tile_for(x86(name)))["block"]

built = {name: Kernel(mod, target) for name, (target, mod) in others.items()}
timers = {name: kernel.seconds for name, kernel in built.items()}
peaks = {}
for name, (target, _) in others.items():
    for n, (timer, count) in fma_timers(target, (8, 12)).items():
        timers[name, n], peaks[name, n] = timer, count
times = race(timers, rounds=9).minima
shares = {}
for name, (target, _) in others.items():
    tile = tile_for(target)
    best = max(peaks[key] / times[key] for key in peaks if key[0] == name)
    shares[name] = FLOPS / times[name] / best
    shape = f"{tile.rows} x {tile.columns}, {tile.lanes} lanes"
    print(
        f"{name:18s}  tile {shape:17s}"
        f" {FLOPS / times[name] / 1e9:6.1f} GFLOP/s"
        f" = {shares[name]:.2f} of its peak"
    )

# %% check
assert all(kernel.correct() for kernel in built.values())
assert gflops["block"] > 0.8 * gflops["numpy"], gflops
assert big_of_numpy > 0.8, big_gflops
assert gflops["block"] > 0.75 * peak, gflops
assert gflops["block"] > 30 * gflops["naive"]
assert shares["this CPU, llvm.fma"] > 0.75, shares
assert shares.get("x86-64-v3", 1) > 0.7, shares
for name in ("accumulate", "hoist_init", "pack", "block"):
    fma, loads, stores = counted[name]
    assert stores == 0 and loads < fma
assert counted["unroll"][2] == counted["unroll"][0]

# %% cell: solution-noalias
print("no aliases  rows  buffer   multiply-adds  loads  stores")
results = {}
for noalias in (True, False):
    for rows in (8, 4):
        tile = Tile(lanes=16, vectors=2, rows=rows, block=128)
        func = product(N)
        if not noalias:
            func = func.without_attr("tirx.noalias")
        sch = s_tir.Schedule(func)
        for step in ladder:
            step(sch, tile)
        results[noalias, rows] = census(inner_loop(sch.mod, V4))
        fma, loads, stores = results[noalias, rows]
        print(
            f"{noalias!s:10s} {rows:5d}  {rows * tile.columns * 4:4d} B"
            f" {fma:14d} {loads:6d} {stores:7d}"
        )

# %% check
assert [results[key][2] > 0 for key in results] == [0, 0, 1, 0]

# %% cell: solution-odd-size, varies
SIZE = 1000
cut, padded = (s_tir.Schedule(product(SIZE)) for _ in range(2))
tile = tile_for(HOST)
padded.pad_einsum("C", [tile.rows, tile.columns, 1])
for step in (reorder, tiles, vectorize, unroll, accumulate, hoist_init):
    step(cut, tile)
    step(padded, tile)
pair = {
    "with conditions": Kernel(cut.mod, HOST, SIZE),
    "padded": Kernel(padded.mod, HOST, SIZE),
}
times = race({n: k.seconds for n, k in pair.items()}, rounds=9).minima
for name, seconds in times.items():
    print(f"{name:15s} {2 * SIZE**3 / seconds / 1e9:6.1f} GFLOP/s")

# %% check
assert all(kernel.correct() for kernel in pair.values())
glue("padding_gain", times["with conditions"] / times["padded"], varies=True)
