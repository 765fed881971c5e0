"""
The terms of the book, English and Chinese
==========================================

Each term with its Chinese word, its meaning in one line, and the name in TVM
that carries it.
"""

# %% cell: setup
import tomllib

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.renames import resolve

# %%
with data("glossary.toml").open("rb") as stream:
    TERMS = tomllib.load(stream)["term"]
glue("terms", len(TERMS))
glue("named", sum("tvm" in term for term in TERMS))


def table(topic):
    """The rows of a topic, in alphabetic order."""
    print("Term | 中文 | Meaning | In TVM")
    rows = [term for term in TERMS if term["topic"] == topic]
    for term in sorted(rows, key=lambda term: term["en"].lower()):
        name = f"`{term['tvm']}`" if "tvm" in term else ""
        print(f"{term['en']} | {term['zh']} | {term['meaning']} | {name}")


# %% cell: compiler
table("Compiler and IR")

# %% cell: tir
table("TIR")

# %% cell: schedules
table("Schedules")

# %% cell: relax
table("Relax")

# %% cell: operators
table("Operators and code")

# %% cell: tuning
table("Tuning")

# %% cell: runtime
table("Runtime")

# %% check
for term in TERMS:
    if "tvm" in term:
        resolve(term["tvm"])
assert len({term["en"] for term in TERMS}) == len(TERMS)


# %% cell: solution-translate
def chinese(text):
    """Terms whose English begins with the text."""
    return {
        term["en"]: term["zh"]
        for term in TERMS
        if term["en"].lower().startswith(text.lower())
    }


for word in ("operator fusion", "auto-scheduling", "tensor inter"):
    print(chinese(word))

# %%
assert chinese("operator fusion") == {"operator fusion": "算子融合"}
