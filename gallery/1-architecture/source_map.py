"""
A map of TVM's source, drawn from data
======================================

Sizes of its directories, imports between its Python packages, directories
that disappeared, and what the wheel holds of all that.
"""

# %% cell: setup
from collections import Counter, defaultdict
from inspect import isfunction
from pathlib import Path
from textwrap import fill

import tvm
import tvm_ffi
from matplotlib.patches import Rectangle
from tvm import s_tir, tirx

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.figures import (
    COLORS,
    INK,
    MUTED,
    alt,
    bar_chart,
    new,
    tint,
)
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.recorded import data, read_csv
from tvm_deepdive_helpers.source_map import (
    cycles,
    import_graph,
    python_sizes,
    squarify,
    tree_sizes,
)

ROOT = Path(tvm.__file__).parent
CPP = (".cc", ".h", ".hpp", ".cu", ".cuh", ".mm", ".c", ".cpp")

# %% cell: python-sizes
parts = python_sizes(ROOT)
packages = {
    name: room.lines
    for name, room in parts.items()
    if (ROOT / name / "__init__.py").exists()
}
by_size = dict(sorted(packages.items(), key=lambda item: -item[1]))
bar_chart(by_size, unit="lines of Python in the wheel", form=",d")

# %% check
glue("packages", len(packages))
glue("python_lines", sum(packages.values()))
three = list(by_size)[:3]
assert three == ["relax", "backend", "s_tir"], three
glue(
    "three_share",
    100 * sum(by_size[n] for n in three) / sum(by_size.values()),
)
relax_op = tree_sizes(ROOT / "relax", [".py"])
assert relax_op.lines == packages["relax"]

# %% cell: cpp-map
rows = read_csv(data("tvm_tree_v0.26.0.csv"))
rooms = defaultdict(Counter)  # room -> sub-directory -> lines of C++
for row in rows:
    top, *rest = row["directory"].split("/")
    if top == "src":
        rooms[rest[0]]["/".join(rest[1:])] += int(row["cpp_lines"])
    elif top == "include":
        rooms[rest[1]]["include"] += int(row["cpp_lines"])

fig, ax = new("text", 4.6)
total = {room: sum(parts.values()) for room, parts in rooms.items()}
for n, (room, (x, y, w, h)) in enumerate(squarify(total, 70, 44).items()):
    color = list(COLORS)[n % len(COLORS)]
    frame = Rectangle((x, y), w, h, fc=tint(color), ec=COLORS[color], lw=1.8)
    ax.add_patch(frame)
    for inner, (dx, dy, pw, ph) in squarify(rooms[room], w, h).items():
        at = (x + dx, y + dy)
        ax.add_patch(
            Rectangle(at, pw, ph, fc="none", ec=frame.get_ec(), lw=0.4)
        )
        inner = inner or "(files)"
        if pw * 7.2 > 4.2 * len(inner) + 5 and ph > 4.6:
            ax.text(
                at[0] + 0.4,
                at[1] + ph - 0.5,
                inner,
                fontsize=7,
                color=MUTED,
            )
    size = 9 if w > 7 else 7
    label = f"{room}\n{total[room]:,d}"
    ax.text(x + 0.4, y + 0.5, label, va="top", fontsize=size, weight="bold")
ax.set(xlim=(0, 70), ylim=(44, 0))
ax.axis("off")
alt(fig, "Tree map of the lines of C++ in src and include")

# %% check
glue("cpp_lines", sum(total.values()))
glue("cpp_rooms", len(total))
largest = sorted(total, key=total.get, reverse=True)
assert largest[:4] == ["relax", "s_tir", "runtime", "tirx"], largest
glue(
    "cpp_top_four",
    100 * sum(total[r] for r in largest[:4]) / sum(total.values()),
)

# %% cell: three-places
lines = {row["directory"]: int(row["cpp_lines"]) for row in rows}
print(f"{'name':10}{'python/tvm/':>12}{'src/':>9}{'include/tvm/':>14}")
for name in sorted(set(packages) | set(rooms)):
    python = packages.get(name, 0)
    source = total.get(name, 0) - rooms.get(name, Counter())["include"]
    header = lines.get(f"include/tvm/{name}", 0)
    cells = (f"{n:,d}" if n else "-" for n in (python, source, header))
    print("{:10}{:>12}{:>9}{:>14}".format(name, *cells))

# %% cell: load-order
LOAD = """
import sys, tvm
loaded = (name.split(".") for name in sys.modules)
print(*dict.fromkeys(p[1] for p in loaded if p[0] == "tvm" and p[1:]))
"""
order = run_isolated(LOAD).stdout.split()
print(" ".join(order))

# %% cell: imports
graph = import_graph(ROOT, others=["tvm_ffi"])
loaded = [name for name in order if name in packages]
names = loaded + sorted(set(packages) - set(loaded))
columns = ["tvm_ffi", *names]
fig, ax = new("text", 6.2)
against = {}
for (importer, imported), count in graph.eager.items():
    if importer not in names or imported not in columns:
        continue
    row, column = names.index(importer), columns.index(imported)
    late = column - 1 > row
    if late:
        against[importer, imported] = count
    ax.add_patch(
        Rectangle(
            (column - 0.5, row - 0.5),
            1,
            1,
            fc=tint("vermilion" if late else "navy", 0.3),
        )
    )
    ax.text(column, row, count, ha="center", va="center", fontsize=8)
for at in range(len(names)):
    ax.add_patch(Rectangle((at + 0.5, at - 0.5), 1, 1, fc=MUTED, alpha=0.35))
ax.set(xlim=(-0.5, len(names) + 0.5), ylim=(len(names) - 0.5, -0.5))
ax.set_xticks(
    range(len(columns)),
    columns,
    rotation=60,
    ha="left",
    rotation_mode="anchor",
)
ax.set_yticks(range(len(names)), names)
ax.xaxis.tick_top()
ax.tick_params(length=0)
ax.set_xlabel("imported package")
ax.xaxis.set_label_position("top")
ax.set_ylabel("importing package")
for spine in ax.spines.values():
    spine.set_color(INK)
    spine.set_visible(True)
alt(fig, "Matrix of module-level imports between the packages of tvm")

# %% cell: cycle
inner = {
    edge: n for edge, n in graph.eager.items() if set(edge) <= set(packages)
}
(knot,) = cycles(inner)
print(len(knot), "packages:")
print(
    fill(
        " ".join(sorted(knot)),
        64,
        subsequent_indent="  ",
        initial_indent="  ",
    )
)
print("outside:", " ".join(sorted(set(packages) - knot)))
print("imports against the load order:")
for (importer, imported), count in sorted(against.items()):
    print(f"  {importer:8} -> {imported:8} {count:3d}")
downhill = {edge: n for edge, n in inner.items() if edge not in against}
print("cycles without those:", cycles(downhill))

# %% check
# An independent reference: the closure of "imports", by Warshall.
reach = {a: {b for (i, b) in inner if i == a} for a in packages}
for middle in packages:
    for a in packages:
        if middle in reach[a]:
            reach[a] |= reach[middle]
assert knot == {a for a in packages if a in reach[a]}
assert all(b in reach[a] for a in knot for b in knot)
glue("knot", len(knot))
glue("edges", len(inner))
glue("statements", sum(inner.values()))
glue("against_edges", len(against))
glue("against_statements", sum(against.values()))
glue(
    "lazy_statements",
    sum(n for e, n in graph.lazy.items() if set(e) <= set(packages)),
)
ffi_users = sorted(
    a for (a, b) in graph.eager if b == "tvm_ffi" and a in packages
)
glue("ffi_users", len(ffi_users))
glue(
    "ffi_statements",
    sum(n for (a, b), n in graph.eager.items() if b == "tvm_ffi"),
)
assert {"exec", "testing"} == set(names) - set(loaded)
assert set(packages) - knot == {"driver", "exec"}
assert against["relax", "topi"] > 10 and not cycles(downhill)
glue("relax_topi", against["relax", "topi"])

# %% cell: history
stays = read_csv(data("tvm_rooms.csv"))
moves = read_csv(data("tvm_moves.csv"))
releases = read_csv(data("tvm_releases.csv"))  # oldest first
RELEASES = [row["release"] for row in releases]


def gone(room):
    """Last stay of a directory, next release, and where its files went."""
    stay = [row for row in stays if row["room"] == room][-1]
    after = RELEASES[RELEASES.index(stay["last"]) + 1]
    went = {
        row["to"] or "deleted": int(row["files"])
        for row in moves
        if row["room"] == room and row["release"] == after
    }
    return stay, after, dict(sorted(went.items(), key=lambda item: -item[1]))


OLD = [
    "nnvm",
    "vta",
    "src/pass",
    "src/codegen",
    "src/relay",
    "python/tvm/relay",
    "src/auto_scheduler",
    "python/tvm/auto_scheduler",
    "python/tvm/autotvm",
    "src/te/schedule",
    "src/driver",
    "src/runtime/graph_executor",
    "python/tvm/micro",
    "src/runtime/relax_vm",
    "src/node",
    "src/tir",
    "python/tvm/tir",
    "src/meta_schedule",
    "python/tvm/meta_schedule",
    "python/tvm/dlight",
    "src/contrib",
    "src/runtime/cuda",
    "src/target/cuda",
]
fates = {room: gone(room) for room in OLD}
for room, (_, after, went) in fates.items():
    # git also pairs a few unrelated short files: single moves are noise.
    real = {to: n for to, n in went.items() if n > 1 or len(went) == 1}
    first = [f"{n} {to}" for to, n in real.items()][:3]
    more = f", {len(real) - 3} more" if len(real) > 3 else ""
    print(f"{room:25} gone in {after:8}{', '.join(first)}{more}")

# %% check
newest = "v0.26.0"
today = {row["room"] for row in stays if row["last"] == newest}
assert not today & set(OLD)
for room, (_, _, went) in fates.items():
    for to in went:
        assert to == "deleted" or to in {row["room"] for row in stays}, (
            room,
            to,
        )
for room in ("src/relay", "python/tvm/auto_scheduler", "src/te/schedule"):
    assert (
        fates[room][1] == "v0.20.0"
        and next(iter(fates[room][2])) == "deleted"
    )
for room in ("src/tir", "src/node", "python/tvm/dlight", "src/meta_schedule"):
    assert fates[room][1] == "v0.24.0"
glue("relay_files", int(fates["src/relay"][0]["files"]))
glue("relay_gone", fates["src/relay"][1])
glue("tir_gone", fates["src/tir"][1])
glue("tir_s_tir", fates["src/tir"][2]["src/s_tir"])
glue("tir_tirx", fates["src/tir"][2]["src/tirx"])
glue("node_gone", fates["src/node"][1])
glue("micro_gone", fates["python/tvm/micro"][1])
backend = [row for row in stays if row["room"] == "src/backend"][-1]
glue("backend_since", backend["first"])
relax_vm = fates["src/runtime/relax_vm"]
assert relax_vm[2].get("src/runtime/vm", 0) > 10
glue("relax_vm_gone", relax_vm[1])
first_stay = next(row for row in stays if row["room"] == "src/runtime/vm")
glue("old_vm_gone", RELEASES[RELEASES.index(first_stay["last"]) + 1])
_, ffi_split, _ = gone("python/tvm/_ffi")
glue("ffi_renamed", ffi_split)
_, ffi_left, _ = gone("python/tvm/ffi")
glue("ffi_left", ffi_left)
assert gone("ffi")[1] == ffi_left

# %% cell: wheel, varies
lib = {path.name: path.stat().st_size for path in (ROOT / "lib").iterdir()}
for name, size in sorted(lib.items(), key=lambda item: -item[1]):
    print(f"{name:26}{size / 1e6:8.1f} MB")
for folder in ("src", "include", "3rdparty"):
    room = tree_sizes(ROOT / folder, CPP)
    print(
        f"{folder + '/':26}{room.files:5d} files",
        f"{room.lines:9,d} lines of C++",
    )

# %% check
compiler = next(size for name, size in lib.items() if "tvm_compiler" in name)
runtime = next(
    size for name, size in lib.items() if name.startswith("libtvm_runtime.")
)
glue("compiler_mb", round(compiler / 1e6), varies=True)
glue("runtime_mb", runtime / 1e6, varies=True)
glue("compiler_ratio", round(compiler / runtime), varies=True)
assert [p.name for p in (ROOT / "src").iterdir()] == ["runtime"]
assert [p.name for p in (ROOT / "include/tvm").iterdir()] == ["runtime"]
glue("wheel_src_lines", tree_sizes(ROOT / "src", CPP).lines)
glue("wheel_src_files", tree_sizes(ROOT / "src", CPP).files)
assert not (ROOT / "tests").exists()
assert [p.name for p in (ROOT / "3rdparty").iterdir()] == ["cutlass"]
glue("third_lines", tree_sizes(ROOT / "3rdparty", CPP).lines)
tests = next(r for r in rows if r["directory"] == "tests/python")
glue("tests_lines", int(tests["python_lines"]))
glue("tests_files", int(tests["python_files"]))
ffi_root = Path(tvm_ffi.__file__).parent
ffi_cpp = [
    tree_sizes(ffi_root / folder, CPP) for folder in ("src", "include/tvm")
]
glue("ffi_cpp_lines", sum(room.lines for room in ffi_cpp))
python_026 = sum(
    int(r["python_lines"])
    for r in rows
    if r["directory"].startswith("python/tvm")
)
glue("python_026", python_026)
assert int(tests["python_lines"]) > python_026

# %% cell: libraries
COUNT = """
import tvm
from tvm_ffi.registry import list_global_func_names
print(len(list_global_func_names()), hasattr(tvm, "relax"))
"""
FFI_ONLY = COUNT.replace("import tvm\n", "import tvm_ffi as tvm\n")
counts = {}
for libraries, source, runtime_only in (
    ("tvm_ffi", FFI_ONLY, "0"),
    ("tvm_ffi + runtime", COUNT, "1"),
    ("tvm_ffi + runtime + compiler", COUNT, "0"),
):
    out = run_isolated(source, env={"TVM_USE_RUNTIME_LIB": runtime_only})
    functions, has_relax = out.stdout.split()
    counts[libraries] = int(functions)
    print(f"{libraries:30}{functions:>6} functions, tvm.relax: {has_relax}")

# %% check
ffi_count, runtime_count, all_count = counts.values()
assert ffi_count < runtime_count < all_count
glue("functions_ffi", ffi_count)
glue("functions_runtime", runtime_count)
glue("functions_all", all_count)

# %% cell: tirx-and-s-tir
for module in (tirx, s_tir):
    classes = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, tvm.runtime.Object)
    ]
    passes = [
        name
        for name, value in vars(module.transform).items()
        if isfunction(value) and name[0].isupper()
    ]
    print(f"{module.__name__}: {len(classes)} classes, {len(passes)} passes")
    for name in ("PrimFunc", "For", "SBlock", "Schedule", "TensorIntrin"):
        print(f"   {name:14}{'yes' if name in classes else '-'}")

# %% check
assert tirx.PrimFunc.__module__.startswith("tvm.tirx")
assert s_tir.SBlock.__module__.startswith("tvm.s_tir")
assert not hasattr(tirx, "Schedule") and not hasattr(s_tir, "PrimFunc")

# %% cell: solution-topi
for importer in sorted(packages):
    if count := inner.get((importer, "topi")):
        print(f"{importer} imports topi in {count} statements")
for imported in ("te", "tirx"):
    print(f"topi imports {imported}: {('topi', imported) in inner}")
without = {edge: n for edge, n in inner.items() if edge[1] != "topi"}
print("left in the knot:", len(cycles(without)[0]))

# %% check
left = cycles(without)[0]
assert "topi" not in left and left < knot
glue("knot_without_topi", len(left))

# %% cell: solution-survivors
held = {
    row["room"]
    for row in stays
    if row["room"].startswith("src/")
    and row["room"].count("/") == 1
    and RELEASES.index(row["first"]) <= RELEASES.index("v0.8.0")
    and RELEASES.index(row["last"]) >= RELEASES.index("v0.8.0")
}
print("in v0.8.0:", len(held), "directories below src/")
print("still there:", *sorted(name[4:] for name in held & today))
print("gone:", *sorted(name[4:] for name in held - today))

# %% check
assert {"src/relay", "src/tir", "src/node"} <= held - today
assert {"src/ir", "src/te", "src/runtime"} <= held & today
glue("held_then", len(held))
glue("held_now", len(held & today))
