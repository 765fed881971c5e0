"""
What of other systems is found in TVM
=====================================

The passes for divided tensors, and the spaces of schedules that the tuner
knows.
"""

# %% cell: distributed
from tvm.relax.distributed import transform

PASSES = (
    "PropagateSharding",
    "LowerGlobalViewToLocalView",
    "LegalizeRedistribute",
    "LowerDistIR",
)
for name in PASSES:
    first = getattr(transform, name).__doc__.strip().splitlines()[0]
    print(f"{name}: {first}")

# %% cell: solution-spaces
from tvm.s_tir import meta_schedule as ms

spaces = [
    name
    for name, value in vars(ms.space_generator).items()
    if isinstance(value, type)
    and issubclass(value, ms.space_generator.SpaceGenerator)
]
print(*sorted(spaces), sep="\n")

# %% check
assert {"PostOrderApply", "ScheduleFn"} <= set(spaces)
