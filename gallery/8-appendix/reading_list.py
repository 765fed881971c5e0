"""
The reading list in numbers
===========================

The bibliography of the book as data: entries by topic and level, and how a
program looks for something in it.
"""

# %% cell: setup
from collections import Counter

from pybtex.database import parse_file

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.figures import COLORS, alt, new
from tvm_deepdive_helpers.recorded import data

# %%
LEVELS = ("introductory", "intermediate", "research")
TOPICS = {
    "courses": "Courses, talks, surveys",
    "tvm": "TVM",
    "languages": "Languages, schedules, IRs",
    "graphs": "Graphs and frameworks",
    "search": "Search and cost models",
    "scale": "Dynamic, large, distributed",
    "foundations": "Machines and methods",
}

# %% cell: parse
ENTRIES = parse_file(data("references.bib")).entries.values()
count = Counter((e.fields["topic"], e.fields["level"]) for e in ENTRIES)
print(len(ENTRIES), "entries")

# %% cell: levels
fig, ax = new("text", 2.9)
left = dict.fromkeys(TOPICS, 0)
for level, color in zip(LEVELS, ("green", "navy", "vermilion"), strict=True):
    numbers = [count[topic, level] for topic in TOPICS]
    ax.barh(
        list(TOPICS.values()),
        numbers,
        left=list(left.values()),
        color=COLORS[color],
        label=level,
    )
    for topic, number in zip(TOPICS, numbers, strict=True):
        left[topic] += number
ax.invert_yaxis()
ax.set_xlabel("entries")
ax.legend(frameon=False, loc="lower right")
alt(fig, "Bars: entries of the reading list by topic, divided by level.")

# %% check
for entry in ENTRIES:
    fields = entry.fields
    assert fields["topic"] in TOPICS and fields["level"] in LEVELS, entry.key
    assert fields["annotation"][-1] in ".?", entry.key
assert sum(count.values()) == len(ENTRIES)
glue("entries", len(ENTRIES))
for level in LEVELS:
    glue(level, sum(count[topic, level] for topic in TOPICS))


# %% cell: solution-first
def first(topic):
    """Introductory entries of a topic, the newest first."""
    found = [
        e
        for e in ENTRIES
        if (e.fields["topic"], e.fields["level"]) == (topic, "introductory")
    ]
    return sorted(found, key=lambda e: e.fields["year"], reverse=True)


for entry in first("tvm"):
    title = entry.fields["title"].translate({ord(c): "" for c in "{}"})
    print(entry.fields["year"], title[:66])

# %% check
years = [entry.fields["year"] for entry in first("tvm")]
assert years == sorted(years, reverse=True) and len(years) >= 5
