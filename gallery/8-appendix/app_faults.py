"""
Faults that the build catches
=============================

Reads what was said about each fault that the tests put into a small book.
"""

# %%
from collections import Counter

from tvm_deepdive_helpers import glue
from tvm_deepdive_helpers.recorded import data, read_csv

faults = read_csv(data("faults.csv"))
by_command = Counter(row["command"] for row in faults)
glue("faults", len(faults))
for command in by_command:
    glue(command.replace(" ", "-"), by_command[command])


# %% cell: table-build
def table(command):
    """Print the faults that one command catches, a row a line."""
    print("What an author did | What it says")
    for row in faults:
        if row["command"] == command:
            says = row["message"].replace(" | ", "|")  # no column of ours
            print(f"{row['fault']} | `{row['place']}`: {says}")


table("make html")

# %% cell: table-lint
table("make lint")

# %% cell: table-test
table("make test")

# %% cell: solution-lines
lines = sum(row["place"].rpartition(":")[2].isdigit() for row in faults)
print(f"{lines} of {len(faults)} messages name a line")
glue("lines", lines)

# %% check
assert len(faults) >= 60
assert len({row["fault"] for row in faults}) == len(faults)
assert set(by_command) == {"make html", "make lint", "make test"}
assert 0.5 * len(faults) < lines < len(faults)
