"""
How long a build of the book takes
==================================

Processor time of builds with this book's tools and with others, from a
record.
"""

# %% cell: setup
import json

from tvm_deepdive_helpers import figures, glue
from tvm_deepdive_helpers.recorded import data

speed = json.loads(data("build_speed.json").read_text(encoding="utf-8"))
peers, growth = speed["peers"], speed["growth"]
STEPS = {
    "cold": "from nothing",
    "nothing": "nothing to do",
    "page": "one page changed",
    "script": "one script changed",
}


def cpu(samples):
    return min(sample["cpu"] for sample in samples)


# %% cell: machine
for name, value in peers["machine"].items():
    print(f"{name:8} {value}")
for name, value in peers["versions"].items():
    print(f"{name:14} {value}")
glue("date", peers["date"])
glue("chapters", peers["chapters"])
glue("rounds", peers["rounds"])

# %% cell: peers
print("tool | " + " | ".join(STEPS.values()))
for tool, steps in peers["tools"].items():
    numbers = [f"{cpu(steps[step]):.1f} s" for step in STEPS]
    print(f"{tool} | " + " | ".join(numbers))
print(f"the scripts, one by one | {cpu(peers['plain']):.1f} s | - | - | -")

# %% cell: ratios
own = peers["tools"]["this book"]
print("another tool, over this book | " + " | ".join(STEPS.values()))
for tool, steps in peers["tools"].items():
    if tool != "this book":
        ratios = [f"{cpu(steps[s]) / cpu(own[s]):.2f}" for s in STEPS]
        print(f"{tool} | " + " | ".join(ratios))
glue("plain-over-own", cpu(peers["plain"]) / cpu(own["cold"]))

# %% cell: growth
sizes = sorted(map(int, growth["sizes"]))
base = growth["chapters"]
print("chapters | " + " | ".join(STEPS.values()))
for size in sizes:
    steps = growth["sizes"][str(size)]
    numbers = [f"{cpu(steps[step]):.1f} s" for step in STEPS]
    print(f"{size * base} | " + " | ".join(numbers))
glue("growth", sizes[-1] // sizes[0])

# %% cell: whole-book
whole = speed["book"]
print("build of this book, one edition | processor time")
for step, label in STEPS.items():
    label = "all pages, no script" if step == "cold" else label
    print(f"{label} | {cpu(whole['steps'][step]):.1f} s")
glue("pages", whole["pages"])
glue("scripts", whole["scripts"])
glue("nothing", cpu(whole["steps"]["nothing"]))

# %% cell: growth-figure
fig, ax = figures.new(height=2.8)
MARKS = dict(zip(STEPS, "osD^", strict=True))
TONES = dict(zip(STEPS, ("navy", "green", "blue", "vermilion"), strict=True))
for step, label in STEPS.items():
    values = [cpu(growth["sizes"][str(size)][step]) for size in sizes]
    ax.plot(
        [size * base for size in sizes],
        values,
        marker=MARKS[step],
        color=figures.COLORS[TONES[step]],
        label=label,
    )
ax.set_xlabel("chapters")
ax.set_ylabel("seconds of processor time")
ax.set_ylim(bottom=0)
ax.legend(frameon=False)
_ = figures.alt(
    fig,
    "Processor time of a build over the number of chapters: only the build "
    "from nothing grows, in a line; the others are flat.",
)

# %% cell: solution-per-chapter
small, large = sizes[0], sizes[-1]
more = (large - small) * base
for step in STEPS:
    first, last = (cpu(growth["sizes"][str(s)][step]) for s in (small, large))
    print(f"{STEPS[step]:20} {(last - first) / more:6.3f} s a chapter")

# %% check
assert cpu(whole["steps"]["nothing"]) < 2
for step in ("nothing", "page", "script"):
    first, last = (cpu(growth["sizes"][str(s)][step]) for s in (small, large))
    assert last < 2 * first, (step, first, last)
middle = sizes[len(sizes) // 2]
costs = {size: cpu(growth["sizes"][str(size)]["cold"]) for size in sizes}
slope = (costs[large] - costs[small]) / (large - small)
line = costs[small] + slope * (middle - small)
assert abs(costs[middle] - line) < 0.4 * costs[middle], "grows in a line"
