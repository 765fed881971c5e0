"""
What this book was built with
=============================

Versions of everything that ran, and the licence notice of the TVM package
that the quotations are cut from.
"""

# %% cell: versions
from importlib.metadata import metadata, version

for name in (
    "apache-tvm",
    "apache-tvm-ffi",
    "numpy",
    "matplotlib",
    "sphinx",
    "sphinx-gallery",
    "sphinxcontrib-bibtex",
    "myst-parser",
):
    licence = metadata(name).get("License-Expression") or "see package"
    print(f"{name:20} {version(name):14} {licence[:38]}")

# %% cell: notice
from importlib.util import find_spec
from pathlib import Path

tvm_folder = Path(find_spec("tvm").origin).parent
print((tvm_folder / "NOTICE").read_text().strip())

# %% check
first_line = (tvm_folder / "LICENSE").read_text().split("\n", 1)[0]
assert first_line.strip() == "Apache License"
assert "Apache Software Foundation" in (tvm_folder / "NOTICE").read_text()

# %% cell: citation-file
from tvm_deepdive_helpers.recorded import data, read_csv

ROOT = data("references.bib").parents[2]
print((ROOT / "CITATION.cff").read_text(encoding="utf-8").strip())

# %% cell: lighthouse
from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.maintain import lighthouse

scores = read_csv(data("lighthouse.csv"))
print("kind | performance | accessibility | best practices", end=" | ")
print("kB | largest paint, s | Lighthouse")
for row in scores:
    cells = [
        row["kind"],
        row["performance"],
        row["accessibility"],
        row["best_practices"],
        row["kilobytes"],
        row["largest_contentful_paint_s"],
        row["lighthouse"],
    ]
    print(" | ".join(cells))
goals = lighthouse.WANTED
glue("goal-performance", goals["performance"])
glue("goal-accessibility", goals["accessibility"])

# %% check
assert goals["best-practices"] == goals["accessibility"], "as the page says"
assert len(scores) == len(lighthouse.PAGES)
for row in scores:
    for name, least in goals.items():
        assert int(row[name.replace("-", "_")]) >= least, (
            f"{row['kind']}: {name} is below {least}"
        )


# %% cell: solution-licences
def licences(name):
    """What a package says about its licence."""
    about = metadata(name)
    found = [about.get("License-Expression") or ""]
    for line in about.get_all("Classifier") or []:
        if line.startswith("License ::"):
            found.append(line.split(" :: ")[-1])
    return {text for text in found if text}


for name in ("apache-tvm", "apache-tvm-ffi", "numpy", "matplotlib"):
    print(f"{name:15}", *sorted(licences(name)), sep="  ")

# %% check
assert any("Apache" in text for text in licences("apache-tvm"))
