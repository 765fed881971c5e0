"""
How much source stands behind each part
=======================================

Lines of TVM's C++ and Python by the part of the book that reads them, from
the recorded sizes of the tree.
"""

# %% cell: setup
from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.figures import COLORS, alt, new
from tvm_deepdive_helpers.recorded import data, read_csv

# %% cell: rooms
ROOMS = {
    "2 TIR": ("tirx", "s_tir", "arith", "script"),
    "3 Relax": ("relax",),
    "4 Operators": ("topi", "te", "target", "backend"),
    "5 Auto-scheduling": ("s_tir/meta_schedule",),
    "6 Runtime": ("runtime", "rpc"),
}
TREE = read_csv(data("tvm_tree_v0.26.0.csv"))


def room(directory):
    """The directory without src, include/tvm or python/tvm before it."""
    for root in ("src/", "include/tvm/", "python/tvm/"):
        if directory.startswith(root):
            return directory.removeprefix(root)
    return ""


def lines(language, part):
    """Lines in the rooms of a part; the tuner is counted once only."""
    total = 0
    for row in TREE:
        where = room(row["directory"]) + "/"
        tuner = where.startswith("s_tir/meta_schedule/")
        if tuner != (part == "5 Auto-scheduling"):
            continue
        if any(where.startswith(f"{name}/") for name in ROOMS[part]):
            total += int(row[f"{language}_lines"])
    return total


SIZES = {p: (lines("cpp", p), lines("python", p)) for p in ROOMS}
for part, (cpp, python) in SIZES.items():
    print(f"{part:18s} C++ {cpp:7,d}   Python {python:7,d}")

# %% cell: rooms-figure
fig, ax = new("text", 2.4)
names = list(SIZES)
left = [SIZES[n][0] for n in names]
right = [SIZES[n][1] for n in names]
ax.barh(names, left, color=COLORS["navy"], label="C++")
ax.barh(names, right, left=left, color=COLORS["vermilion"], label="Python")
ax.invert_yaxis()
ax.set_xlabel("lines of source at v0.26.0")
ax.legend(frameon=False, loc="lower right")
alt(fig, "Bars: lines of C++ and Python behind parts 2 to 6 of the book.")

# %% check
assert all(cpp > 0 and python > 0 for cpp, python in SIZES.values())
glue("total", sum(cpp + python for cpp, python in SIZES.values()))

# %% cell: solution-largest
package = [r for r in TREE if r["directory"].startswith("python/tvm")]
for row in sorted(package, key=lambda r: -int(r["python_lines"]))[:4]:
    print(f"{row['python_lines']:>6s} {row['directory']}")
