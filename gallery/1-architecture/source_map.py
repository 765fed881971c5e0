"""
A map of TVM's source, drawn from data
======================================

Sizes of its directories, imports between its Python packages, directories
that disappeared, and what the wheel holds of all that.
"""

# %%
import inspect
from collections import Counter, defaultdict
from graphlib import TopologicalSorter
from pathlib import Path
from textwrap import fill

import tvm
import tvm_ffi
from matplotlib.patches import Rectangle
from tvm import s_tir, tirx
from tvm.script import tirx as T

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import INK, MUTED, alt, new, tint
from tvm_deepdive_helpers.isolate import run_isolated
from tvm_deepdive_helpers.recorded import data, read_csv
from tvm_deepdive_helpers.source_map import (
    cycles,
    import_graph,
    python_sizes,
    tree_sizes,
)
from tvm_deepdive_helpers.tree_map import tree_map

ROOT = Path(tvm.__file__).parent
CPP = (".cc", ".h", ".hpp", ".cu", ".cuh", ".mm", ".c", ".cpp")

# %% check
packages = {
    name: room.lines
    for name, room in python_sizes(ROOT).items()
    if (ROOT / name / "__init__.py").exists()
}
glue("packages", len(packages))
glue("python_lines", sum(packages.values()))
largest = sorted(packages, key=packages.get, reverse=True)
assert largest[:3] == ["relax", "backend", "s_tir"], largest
share = sum(packages[n] for n in largest[:3]) / sum(packages.values())
glue("three_share", 100 * share)
assert tree_sizes(ROOT / "relax", [".py"]).lines == packages["relax"]

# %% cell: cpp-map
rows = read_csv(data("tvm_tree_v0.26.0.csv"))
rooms = defaultdict(Counter)  # room -> sub-directory -> lines of C++
for row in rows:
    top, *rest = row["directory"].split("/")
    if top == "src":
        rooms[rest[0]]["/".join(rest[1:])] += int(row["cpp_lines"])
    elif top == "include":
        rooms[rest[1]]["include"] += int(row["cpp_lines"])
fig, ax = tree_map(rooms, height=4.8)
alt(fig, "Tree map of the lines of C++ in src and include")

# %% check
total = {room: sum(parts.values()) for room, parts in rooms.items()}
glue("cpp_lines", sum(total.values()))
glue("cpp_rooms", len(total))
largest = sorted(total, key=total.get, reverse=True)
assert largest[:4] == ["relax", "s_tir", "runtime", "tirx"], largest
share = sum(total[r] for r in largest[:4]) / sum(total.values())
glue("cpp_top_four", 100 * share)

# %% cell: three-places
print(f"{'name':10}{'python/tvm/':>12}{'src/':>9}{'include/tvm/':>14}")
for name in sorted(set(packages) | set(rooms)):
    header = rooms[name]["include"]
    source = sum(rooms[name].values()) - header
    sizes = (packages.get(name, 0), source, header)
    cells = (f"{lines:,d}" if lines else "-" for lines in sizes)
    print("{:10}{:>12}{:>9}{:>14}".format(name, *cells))

# %% cell: top-level
stays = read_csv(data("tvm_rooms.csv"))
files, lines = Counter(), Counter()
for row in stays:
    if row["last"] == "v0.26.0":
        files[row["room"].partition("/")[0]] += int(row["files"])
for row in rows:
    top = row["directory"].partition("/")[0]
    lines[top] += int(row["cpp_lines"]) + int(row["python_lines"])
print(f"{'':10}{'files':>5}{'lines':>10}")
for top, count in files.most_common():
    if top[0] != ".":
        print(f"{top:10}{count:5d}{lines[top]:10,d}")

# %% check
assert files["src"] == 924 and files["python"] == 887, files
python_only = {"driver", "exec", "rpc", "contrib", "testing"}
assert not python_only & {n for n in rooms if sum(rooms[n].values())}

# %% cell: libraries, varies
PROGRAM = """
import sys
from tvm_ffi.registry import list_global_func_names as functions
alone = len(functions())
import tvm
names = (name.split(".") for name in sys.modules)
parts = dict.fromkeys(p[1] for p in names if p[0] == "tvm" and p[1:])
print(alone, len(functions()), "relax" in parts, *parts)
"""
# No device back ends: whether they load depends on the machine.
core = run_isolated(PROGRAM, env={"TVM_DEVICE_BACKEND_AUTOLOAD": "0"})
small = run_isolated(PROGRAM, env={"TVM_USE_RUNTIME_LIB": "1"})
ffi_count, all_count, with_relax, *order = core.stdout.split()
_, runtime_count, without_relax, *_ = small.stdout.split()
print(f"libtvm_ffi         {ffi_count:>5} functions")
print(f"+ libtvm_runtime   {runtime_count:>5}, tvm.relax: {without_relax}")
print(f"+ libtvm_compiler  {all_count:>5}, tvm.relax: {with_relax}")

# %% check
assert 0 < int(ffi_count) < int(runtime_count)
assert int(all_count) > 3 * int(runtime_count)
assert (without_relax, with_relax) == ("False", "True")
by_extra = tvm_ffi.get_global_func("runtime.disco.SessionThreaded")
assert isinstance(by_extra, tvm_ffi.Function)

# %% cell: load-order
print(fill(" ".join(order), 70))

# %% check
assert order[:4] == ["_version", "libinfo", "base", "runtime"], order
assert order.index("script") < order.index("tirx") < order.index("relax")
assert small.stdout.split()[-1] == "driver"

# %% cell: imports
graph = import_graph(ROOT, others=["tvm_ffi"])
names = [name for name in order if name in packages]
names += sorted(set(packages) - set(names))
columns = ["tvm_ffi", *names]
against = {}  # imports of what is loaded only later
fig, ax = new("text", 6.4)
for (importer, imported), count in graph.eager.items():
    if importer not in names or imported not in columns:
        continue
    y, x = names.index(importer), columns.index(imported)
    if late := x - 1 > y:
        against[importer, imported] = count
    color = tint("vermilion" if late else "navy", 0.3)
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=color))
    ax.text(x, y, count, ha="center", va="center", fontsize=9)
for y in range(len(names)):
    ax.add_patch(Rectangle((y + 0.5, y - 0.5), 1, 1, fc=MUTED, alpha=0.35))
ax.set(xlim=(-0.5, len(names) + 0.5), ylim=(len(names) - 0.5, -0.5))
ax.set_xticks(range(len(columns)), columns, rotation=60, ha="left")
ax.set_yticks(range(len(names)), names)
ax.tick_params(length=0, top=True, labeltop=True, labelbottom=False)
for label in ax.get_xticklabels():
    label.set_rotation_mode("anchor")
ax.set_xlabel("imported package")
ax.xaxis.set_label_position("top")
ax.set_ylabel("importing package")
ax.spines[:].set(color=INK, visible=True)
alt(fig, "Matrix of module-level imports between the packages of tvm")

# %% cell: cycle
inner = {
    edge: n for edge, n in graph.eager.items() if set(edge) <= set(packages)
}
(knot,) = cycles(inner)
print("one cycle:")
print(fill(" ".join(sorted(knot)), 62))
print("outside:", " ".join(sorted(set(packages) - knot)))
print("imports of what is loaded later:")
edges = [f"{a} -> {b} {n}" for (a, b), n in sorted(against.items())]
for row in zip(*[iter(edges)] * 3, strict=True):
    print("  {:24}{:24}{}".format(*row))

# %% check
# An independent reference: Warshall's closure, and the sorter of the library.
reach = {a: {b for (i, b) in inner if i == a} for a in packages}
for middle in packages:
    for a in packages:
        if middle in reach[a]:
            reach[a] |= reach[middle]
assert knot == {a for a in packages if a in reach[a]}
assert all(b in reach[a] for a in knot for b in knot)
sorter = TopologicalSorter()
for a, b in inner.keys() - against.keys():
    sorter.add(a, b)
assert set(sorter.static_order()) <= set(packages)  # or it raises CycleError
glue("knot", len(knot))
glue("statements", sum(inner.values()))
glue("against_edges", len(against))
glue("against_statements", sum(against.values()))
lazy = (n for e, n in graph.lazy.items() if set(e) <= set(packages))
glue("lazy_statements", sum(lazy))
assert {a for (a, b) in graph.eager if b == "tvm_ffi"} >= set(packages)
assert set(packages) - set(order) == {"exec", "testing"}
assert set(packages) - knot == {"driver", "exec"}
assert against["relax", "topi"] > 10
glue("relax_topi", against["relax", "topi"])
glue("tirx_backend", against["tirx", "backend"])

# %% cell: without-init
DIRECT = """
import importlib.util, sys, types

package = types.ModuleType("tvm")  # stands for tvm, without __init__.py
found = importlib.util.find_spec("tvm")
package.__path__ = found.submodule_search_locations
sys.modules["tvm"] = package
import tvm.base
import tvm.ir
print("tvm.ir is loaded")
import tvm.tirx
"""
ended = run_isolated(DIRECT)
print(ended.stdout, end="")
print(ended.stderr.splitlines()[-4], ended.stderr.splitlines()[-1], sep="\n")

# %% check
assert ended.stdout == "tvm.ir is loaded\n"
assert "module 'tvm' has no attribute 'transform'" in ended.stderr

# %% cell: history
moves = read_csv(data("tvm_moves.csv"))
releases = read_csv(data("tvm_releases.csv"))  # oldest first
RELEASES = [row["release"] for row in releases]


def gone(room):
    """Last stay of a directory, the next release, where its files went."""
    stay = [row for row in stays if row["room"] == room][-1]
    after = RELEASES[RELEASES.index(stay["last"]) + 1]
    went = {
        row["to"] or "deleted": int(row["files"])
        for row in moves
        if row["room"] == room and row["release"] == after
    }
    return stay, after, dict(sorted(went.items(), key=lambda item: -item[1]))


OLD = [
    *("src/pass", "src/codegen", "nnvm", "vta", "python/tvm/micro"),
    *("src/relay", "python/tvm/relay", "src/auto_scheduler"),
    *("python/tvm/auto_scheduler", "python/tvm/autotvm", "src/te/schedule"),
    *("src/driver", "src/runtime/graph_executor", "src/runtime/relax_vm"),
    *("python/tvm/_ffi", "ffi", "python/tvm/ffi", "src/node", "src/tir"),
    *("python/tvm/tir", "src/meta_schedule", "python/tvm/meta_schedule"),
    *("python/tvm/dlight", "src/contrib", "src/target/cuda"),
    "src/runtime/cuda",
]
fates = {room: gone(room) for room in OLD}
print(f"{'directory':27}{'gone in':9}where its files went")
for room, (_, after, went) in fates.items():
    parent = "python/tvm/" if room.startswith("python") else "src/"
    # git also pairs unrelated short files: single moves are noise.
    real = {to: n for to, n in went.items() if n > 1 or len(went) == 1}
    first = [f"{n} {to.removeprefix(parent)}" for to, n in real.items()][:2]
    others = sum(went.values()) - sum([*real.values()][:2])
    more = f", {others} other" if others else ""
    print(f"{room:27}{after:9}{', '.join(first)}{more}")

# %% check
today = {row["room"] for row in stays if row["last"] == "v0.26.0"}
known = {row["room"] for row in stays} | {"deleted"}
assert not today & set(OLD)
assert all(set(went) <= known for *_, went in fates.values())
by_release = [RELEASES.index(after) for _, after, _ in fates.values()]
assert by_release == sorted(by_release)
for room in ("src/relay", "python/tvm/auto_scheduler", "src/te/schedule"):
    _, after, went = fates[room]
    assert after == "v0.20.0" and next(iter(went)) == "deleted"
glue("oldest", RELEASES[0])
glue("pass_gone", fates["src/pass"][1])
assert fates["src/codegen"][1] == fates["src/pass"][1]
glue("relay_files", int(fates["src/relay"][0]["files"]))
glue("relay_moved", fates["src/relay"][2]["src/relax"])
glue("relay_gone", fates["src/relay"][1])
glue("micro_gone", fates["python/tvm/micro"][1])
glue("ffi_renamed", fates["python/tvm/_ffi"][1])
glue("ffi_left", fates["python/tvm/ffi"][1])
assert fates["ffi"][1] == fates["python/tvm/ffi"][1]
tir = fates["src/tir"]
glue("tir_gone", tir[1])
glue("tir_s_tir", tir[2]["src/s_tir"])
glue("tir_tirx", tir[2]["src/tirx"])
for room in ("src/node", "python/tvm/dlight", "src/meta_schedule"):
    assert fates[room][1] == tir[1]
glue("node_moved", fates["src/node"][2]["src/ir"])
(backend,) = (row for row in stays if row["room"] == "src/backend")
glue("backend_since", backend["first"])
assert fates["src/target/cuda"][1] == backend["first"]
(script,) = (row for row in stays if row["room"] == "src/tirx")
glue("tirx_since", script["first"])
relax_vm = fates["src/runtime/relax_vm"]
assert relax_vm[2]["src/runtime/vm"] > 10
glue("relax_vm_gone", relax_vm[1])
old_vm = next(row for row in stays if row["room"] == "src/runtime/vm")
glue("old_vm_gone", RELEASES[RELEASES.index(old_vm["last"]) + 1])

# %% cell: wheel, varies
lib = {path.name: path.stat().st_size for path in (ROOT / "lib").iterdir()}
for name, size in sorted(lib.items(), key=lambda item: -item[1]):
    print(f"lib/{name:24}{size / 1e6:8.1f} MB")
for folder in ("src", "include", "3rdparty"):
    room = tree_sizes(ROOT / folder, CPP)
    print(f"{folder + '/':28}{room.files:5d} files {room.lines:9,d} lines")

# %% check
sizes = {name.split(".")[0]: size for name, size in lib.items()}
ratio = sizes["libtvm_compiler"] / sizes["libtvm_runtime"]
glue("compiler_ratio", round(ratio), varies=True)
assert ratio > 20
assert [p.name for p in (ROOT / "src").iterdir()] == ["runtime"]
assert [p.name for p in (ROOT / "include/tvm").iterdir()] == ["runtime"]
assert not (ROOT / "tests").exists()
assert [p.name for p in (ROOT / "3rdparty").iterdir()] == ["cutlass"]
glue("third_lines", tree_sizes(ROOT / "3rdparty", CPP).lines)
tests = next(r for r in rows if r["directory"] == "tests/python")
glue("tests_lines", int(tests["python_lines"]))
glue("tests_files", int(tests["python_files"]))
ffi_root = Path(tvm_ffi.__file__).parent
folders = [ffi_root / "src", ffi_root / "include/tvm"]
glue("ffi_cpp_lines", sum(tree_sizes(room, CPP).lines for room in folders))
python_026 = sum(
    int(row["python_lines"])
    for row in rows
    if row["directory"].startswith("python/tvm")
)
glue("python_026", python_026)
assert int(tests["python_lines"]) > python_026

# %% cell: tirx-and-s-tir
for name in ("PrimFunc", "For", "SBlock", "Schedule", "TensorIntrin"):
    owners = [module for module in (tirx, s_tir) if hasattr(module, name)]
    print(f"{name:13}", *(module.__name__ for module in owners))


@T.prim_func(s_tir=True)
def copy(A: T.Buffer((8,), "float32"), B: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("copy"):
            vi = T.axis.spatial(8, i)
            B[vi] = A[vi]


unmarked = copy.without_attr("s_tir")
with expect_error(tvm.error.InternalError):
    tirx.analysis.verify_tirx_well_formed(unmarked)
print("compiled:", type(tvm.compile(unmarked, "llvm")).__name__)

# %% check
assert tirx.PrimFunc.__module__.startswith("tvm.tirx")
assert s_tir.SBlock.__module__.startswith("tvm.s_tir")
# Where blocks end: after LowerOpaqueBlock no block is left.
pipeline = inspect.getsource(s_tir.pipeline.default_s_tir_pipeline)
lowered, before = tvm.IRModule({"copy": copy}), pipeline.splitlines()
while "LowerOpaqueBlock" not in (line := before.pop(0)):
    if line.strip().startswith("s_tir.transform."):
        step = getattr(s_tir.transform, line.strip()[16:].split("(")[0])
        lowered = step()(lowered)
assert "sblock" in lowered.script()
lowered = s_tir.transform.LowerOpaqueBlock()(lowered)
assert "sblock" not in lowered.script()
after = pipeline.partition("LowerOpaqueBlock")[2]
glue("s_tir_after", after.count(" s_tir.transform."))
glue("tirx_after", after.count(" tirx.transform."))

# %% cell: solution-topi
for importer in sorted(packages):
    if count := inner.get((importer, "topi")):
        print(f"{importer} imports topi in {count} statements")
for imported in ("te", "tirx"):
    print(f"topi imports {imported}: {('topi', imported) in inner}")
without = {edge: n for edge, n in inner.items() if edge[1] != "topi"}
for left in cycles(without):
    print("still tied:", *sorted(left))

# %% check
parts = cycles(without)
assert "topi" not in set().union(*parts) < knot
assert len(parts) == 2 and len(parts[0]) > len(parts[1])
glue("topi_importers", sum(imported == "topi" for _, imported in inner))
glue("knot_without_topi", len(parts[0]))
glue("second_knot", len(parts[1]))

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
glue("then", releases[RELEASES.index("v0.8.0")]["date"][:4])
glue("held_then", len(held))
glue("held_now", len(held & today))
