"""
TVM among other systems
=======================

Systems beside TVM from a data file, as table and as time line, and what can
be checked in the installed TVM about its relations to them.
"""

# %% cell: setup
import tomllib
from pathlib import Path

import tvm
import tvm_ffi

from tvm_deepdive_helpers import expect_error, glue
from tvm_deepdive_helpers.figures import (
    COLORS,
    GRID,
    INK,
    MUTED,
    PAPER,
    alt,
    new,
)
from tvm_deepdive_helpers.recorded import data

# %%
with data("landscape.toml").open("rb") as stream:
    SYSTEMS = tomllib.load(stream)["system"]
GROUPS = list(dict.fromkeys(system["group"] for system in SYSTEMS))
glue("systems", len(SYSTEMS))

# %% cell: table
print("System, since | Its IR | TVM and it")
for group in GROUPS:
    members = [system for system in SYSTEMS if system["group"] == group]
    for system in sorted(members, key=lambda s: s.get("since", 0)):
        name = system["name"]
        if "since" in system:
            name += f", {system['since']}"
        print(f"{name} | {system['ir']} | {system['tvm']}")

# %% cell: time-line
PALETTE = ["navy", "vermilion", "green", "purple", "blue", "brown"]
fig, ax = new("text", 9.0)
row = 0
ticks = []
for number, group in enumerate(GROUPS):
    dated = [s for s in SYSTEMS if s["group"] == group and "since" in s]
    color = COLORS[PALETTE[number % len(PALETTE)]]
    ticks.append((row + (len(dated) - 1) / 2, group))
    for system in sorted(dated, key=lambda s: s["since"]):
        year = system["since"]
        ax.plot([2003.5, year], [row, row], color=GRID, lw=0.8, zorder=0)
        ax.plot([year], [row], "o", color=color, ms=4.5)
        label = ax.text(year + 0.25, row, system["name"], fontsize=8.5)
        label.set(va="center", bbox={"fc": PAPER, "lw": 0, "pad": 0.6})
        row += 1
    ax.axhline(row - 0.5, color=MUTED, lw=0.4)
ax.axvline(2016.8, color=INK, lw=0.9, ls=":")
ax.text(2016.8, -1.0, "TVM's first commit", fontsize=8.5, ha="center")
ax.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
ax.tick_params(axis="y", length=0)
ax.set_ylim(row - 0.5, -1.6)
ax.set_xlim(2003.5, 2029)
ax.set_xticks(range(2004, 2027, 2))
ax.set_xlabel("year of the first publication or commit")
alt(fig, "Time line of systems beside TVM, by group, from 2004 to 2024.")

# %% cell: doors
from importlib.util import find_spec

from tvm.relax import frontend

folder = Path(frontend.__file__).parent
doors = sorted(p.parent.name for p in folder.glob("*/__init__.py"))
doors.remove("nn")
print("importers:", ", ".join(doors))
for old in ("relay", "autotvm", "auto_scheduler"):
    print(
        f"tvm.{old:15}", "found" if find_spec(f"tvm.{old}") else "not there"
    )

# %% check
assert doors == ["onnx", "stablehlo", "tflite", "torch"]
assert not any(find_spec(f"tvm.{old}") for old in ("relay", "autotvm"))

# %% cell: without-mlir
from tvm import tirx

i = tirx.Var("i", "int32")
with expect_error(RuntimeError, match="MLIR is not enabled"):
    tvm.get_global_func("sym.PresburgerSet")(i < 4)

# %% cell: machines
names = tvm_ffi.registry.list_global_func_names()
prefix = "target.build."
print(*sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix)))

# %% check
from pybtex.database import parse_file

KEYS = parse_file(data("references.bib")).entries
for system in SYSTEMS:
    assert system["key"] in KEYS, system["name"]
    assert ("since" in system) == ("from" in system), system["name"]
assert len({system["name"] for system in SYSTEMS}) == len(SYSTEMS)

# %% cell: solution-older
for system in SYSTEMS:
    if system.get("since", 2026) < 2017:
        print(system["since"], system["name"], "-", system["tvm"])
