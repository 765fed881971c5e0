"""
Compatibility: which cell runs on which release
===============================================

What the cells of the book did on three releases of TVM, from a record.
"""

# %% cell: setup
import matplotlib.pyplot as plt
import tvm
from tvm.script import tirx as T

from tvm_deepdive_helpers import figures, glue
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.releases import STATUSES, explain, load, read_causes

drift = load(data("drift.json"))
causes = read_causes(data("drift_causes.toml"))
newer, older = drift.outcomes

# %% cell: releases
print("apache-tvm | apache-tvm-ffi | what it is")
for release, ffi in drift.releases.items():
    role = "reference" if release == drift.reference else "compared"
    print(f"`{release}` | `{ffi}` | {role}")
glue("date", drift.date)
glue("newer", newer)
glue("older", older)
glue("older-ffi", drift.releases[older])
glue("cells", len(drift.outcomes[newer]))
glue("scripts", len({one.script for one in drift.outcomes[newer]}))

# %% cell: summary
GROUPS = {
    "same, or runs": ("same", "ran"),
    "renamed": ("renamed",),
    "changed": ("changed",),
    "does not run": ("failed", "blocked", "lost"),
}


def grouped(release, part):
    counts = drift.counts(release, part)
    return {
        group: sum(counts[status] for status in members)
        for group, members in GROUPS.items()
    }


print("part of the book | release | " + " | ".join(GROUPS))
for part in drift.parts:
    for release in drift.outcomes:
        numbers = map(str, grouped(release, part).values())
        print(f"{part} | `{release}` | " + " | ".join(numbers))

# %% cell: statuses
print("status | what it says of a cell")
for status, text in STATUSES.items():
    print(f"{status} | {text}")

# %% check
for release, name in ((newer, "newer"), (older, "older")):
    counts = drift.counts(release)
    total = sum(counts.values())
    good = counts["same"] + counts["ran"]
    glue(f"{name}-same-percent", round(100 * good / total))
    runs = good + counts["renamed"] + counts["changed"]
    glue(f"{name}-runs-percent", round(100 * runs / total))
    glue(f"{name}-changed", counts["changed"])
    glue(f"{name}-failed", counts["failed"])
    glue(f"{name}-blocked", counts["blocked"] + counts["lost"])
    glue(f"{name}-renamed", counts["renamed"])
    assert total == len(drift.outcomes[newer])

# %% cell: figure
TONES = dict(zip(GROUPS, ("navy", "green", "blue", "vermilion"), strict=True))
fig, axes = plt.subplots(
    1, 2, figsize=(7.2, 3.2), sharey=True, layout="constrained"
)
for ax, release in zip(axes, drift.outcomes, strict=True):
    left = dict.fromkeys(drift.parts, 0.0)
    for group in GROUPS:
        shares = []
        for part in drift.parts:
            numbers = grouped(release, part)
            shares.append(100 * numbers[group] / sum(numbers.values()))
        ax.barh(
            drift.parts,
            shares,
            left=list(left.values()),
            color=figures.COLORS[TONES[group]],
            label=group,
        )
        left = {
            part: left[part] + share
            for part, share in zip(drift.parts, shares, strict=True)
        }
    ax.set_title(f"apache-tvm {release}")
    ax.set_xlabel("% of the cells")
axes[0].invert_yaxis()
fig.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
)
_ = figures.alt(
    fig,
    "Shares of the cells of each part that come out the same, are renamed, "
    "change, or do not run, on the two older releases.",
)

# %% cell: causes
why = {
    release: explain(drift.outcomes[release], causes)
    for release in drift.outcomes
}
counted = {release: list(found.values()) for release, found in why.items()}
short = [".".join(release.split(".")[:2]) for release in drift.outcomes]
print(f"cause | {' | '.join(short)} | what differs")
for cause in causes:
    numbers = [str(counted[r].count(cause)) for r in drift.outcomes]
    if any(number != "0" for number in numbers):
        seen = f" Seen: {cause.proof}." if cause.proof else ""
        print(f"{cause.name} | {' | '.join(numbers)} | {cause.why}{seen}")
rest = [str(counted[release].count(None)) for release in drift.outcomes]
print(f"not explained | {' | '.join(rest)} | See the list below.")
glue("newer-unexplained", counted[newer].count(None))
glue("older-unexplained", counted[older].count(None))

# %% cell: examples
shown = set()
for one, cause in why[newer].items():
    if cause is None or cause in shown or one.status == "renamed":
        continue
    shown.add(cause)
    print(f"{cause.name}\n  {one.script}, cell {one.cell}: {one.status}")
    for line in one.detail.splitlines()[:4]:
        print(f"    {line[:70]}")

# %% cell: failed
print("script | cell | last line of the exception")
for one in drift.outcomes[newer]:
    if one.status == "failed":
        reason = one.detail.replace("|", "/").replace("`", "'")
        print(f"{one.script} | {one.cell} | `{reason[:110]}`")

# %% cell: scripts
print(
    f"script | cells | {newer}: changed | does not run "
    f"| {older}: changed | does not run"
)
for script in sorted({one.script for one in drift.outcomes[newer]}):
    row = []
    for release in drift.outcomes:
        own = [
            one.status
            for one in drift.outcomes[release]
            if one.script == script
        ]
        stopped = sum(
            status in ("failed", "blocked", "lost") for status in own
        )
        row += [str(own.count("changed")), str(stopped)]
    print(f"{script} | {len(own)} | {' | '.join(row)}")

# %% cell: unexplained
for release, found in why.items():
    print(f"{release}: {counted[release].count(None)} not explained")
    for one, cause in found.items():
        if cause is None:
            print(f"  {one.script}, cell {one.cell}: {one.status}")
            for line in one.detail.splitlines()[:2]:
                print(f"    {line[:72]}")

# %% cell: citations
wheels, index = drift.citations["wheels"], drift.citations["index"]
print("what is cited | compared with | same | moved | changed | gone")
for release in drift.outcomes:
    found = [answers.get(release) for answers in wheels["differ"].values()]
    moved, changed, gone = (
        found.count(w) for w in ("moved", "changed", "gone")
    )
    same = wheels["count"] - moved - changed - gone
    print(
        f"files of the wheels, {drift.reference} | `{release}` | {same} "
        f"| {moved} | {changed} | {gone}"
    )
for ref, counts in index["refs"].items():
    print(
        f"C++ of the compiler, {index['tag']} "
        f"| `{ref}` ({index['dates'][ref]}) "
        f"| {counts['same']} | 0 | {counts['changed']} | {counts['gone']}"
    )
glue("wheel-citations", wheels["count"])
glue("index-citations", index["count"])
glue("index-tag", index["tag"])

# %% cell: gone
for target, answers in wheels["differ"].items():
    if answers.get(newer) == "gone":
        print(target)


# %% cell: solution-either
def buffer_of(load):
    """The buffer that a load reads, on 0.26 and on 0.27."""
    return load.source if hasattr(load, "source") else load.buffer


@T.prim_func(s_tir=True)
def copy(a: T.Buffer((8,), "float32"), b: T.Buffer((8,), "float32")):
    for i in range(8):
        b[i] = a[i] * T.float32(2)


load = copy.body.body.value.a
print(type(load).__name__, "reads", buffer_of(load).name)

# %% check
assert buffer_of(load).name == "a"
assert drift.reference == tvm.__version__
for release in drift.outcomes:
    assert len(drift.outcomes[release]) == len(drift.outcomes[newer])


def stopped(release, part):
    counts = drift.counts(release, part)
    bad = counts["failed"] + counts["blocked"] + counts["lost"]
    return bad / sum(counts.values())


chapters = [part for part in drift.parts if "1" <= part[0] <= "6"]
ranked = sorted(chapters, key=lambda part: stopped(older, part))
assert {part[0] for part in ranked[:2]} == {"5", "6"}, ranked
assert {part[0] for part in ranked[-2:]} == {"2", "3"}, ranked
for part in chapters:
    assert stopped(newer, part) <= stopped(older, part)
