"""
What of other systems is found in TVM
=====================================

The passes for divided tensors, and the spaces of schedules that the tuner
knows.
"""

# %% cell: distributed
from tvm.relax.distributed import transform

for name in ("PropagateSharding", "LowerGlobalViewToLocalView"):
    doc = getattr(transform, name).__doc__
    print(f"{name}: {' '.join(doc.split('Returns')[0].split())}")
for name in ("LegalizeRedistribute", "LowerDistIR"):
    doc = getattr(transform, name).__doc__
    print(f"{name}: {' '.join(doc.split('Returns')[0].split())}")

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
