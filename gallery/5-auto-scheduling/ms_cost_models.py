"""
Cost models
===========

What XGBoost is shown, what it learns and how well it ranks; the models that
TVM ships; and one written here.
"""

# gallery: timeout=600

# %% cell: setup
import importlib.util
import inspect
import random
import tempfile
import warnings

import numpy as np
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.cost_model import XGBModel
from tvm.s_tir.meta_schedule.cost_model.xgb_model import PackSum
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate

from tvm_deepdive_helpers import expect_error, figures, glue
from tvm_deepdive_helpers.figures import COLORS
from tvm_deepdive_helpers.recorded import data
from tvm_deepdive_helpers.tabled import LARGE, Table
from tvm_deepdive_helpers.tuning import host_target, load_intrinsics

load_intrinsics()
table = Table(data("search_table.csv"), LARGE)
context = ms.TuneContext(
    LARGE.module(),
    target=host_target(),
    space_generator=LARGE.generator(),
    num_threads=1,
)
points = random.Random(1).sample(list(table), 192)
candidates = [
    MeasureCandidate(sch, ArgInfo.from_entry_func(sch.mod, True))
    for sch in map(LARGE.schedule, points)
]
seconds = np.array([table[point].seconds for point in points])
results = [RunnerResult([float(s)], None) for s in seconds]
glue("records", len(points))

# %% cell: features
extractor = ms.feature_extractor.PerStoreFeature()
one = next(n for n, point in enumerate(points) if point.space == 1)
rows = extractor.extract_from(context, [candidates[one]])[0].numpy()
print("stores x features:", rows.shape)
print("vector length:", extractor.feature_vector_length)
print(points[one])
print("groups 1 to 5:", 57, 5 * 18, 10, 4, 3, "sum", 57 + 5 * 18 + 10 + 4 + 3)
glue("features", rows.shape[1])

# %% check
assert rows.shape[1] == extractor.feature_vector_length

# %% cell: one-store
arithmetic = ("float_mad", "float_add_sub", "float_mul")
for number, row in enumerate(rows):
    print(
        number, dict(zip(arithmetic, row[:3].round(1).tolist(), strict=True))
    )
print("log2(1 + m n k) =", round(float(np.log2(1 + LARGE.flop / 2)), 1))

# %% cell: parameters
for name, parameter in list(
    inspect.signature(XGBModel.__init__).parameters.items()
)[1:]:
    if name != "config":
        print(f"{name:22s} {parameter.default}")
print(ms.cost_model.xgb_model.XGBConfig())

# %% cell: loss
made_up = [np.ones((2, 1)), np.ones((1, 1)), np.ones((1, 1))]
pack = PackSum(made_up, ys=[1.0, 0.5, 0.0])
gradient, hessian = pack.obj_square_error(np.array([0.3, 0.3, 0.6, 0.6]))
print("row of schedule:", pack.ids.tolist())
print("gradient:", gradient.round(2).tolist())
print("Hessian: ", hessian.tolist())

# %% check
assert np.allclose(gradient, [-0.4, -0.4, 0.05, 0.0])

# %% cell: ignored
model = XGBModel(tree_method="exact", num_tuning_cores=1)
print("asked for exact, has", model.config.tree_method)


# %% cell: ranks
def ranks(values):
    """Ranks, equal values share the mean of theirs."""
    values = np.asarray(values)
    order = np.sort(values)
    low = np.searchsorted(order, values, "left")
    return (low + np.searchsorted(order, values, "right") - 1) / 2


def quality(scores, times):
    """Spearman correlation, and share of pairs in the right order."""
    spearman = np.corrcoef(ranks(scores), ranks(-times))[0, 1]
    a, b = np.triu_indices(len(times), 1)
    differ = np.abs(times[a] / times[b] - 1) > 0.02
    right = (scores[a] > scores[b]) == (times[a] < times[b])
    return spearman, right[differ].mean()


TRAIN, TEST = slice(0, 128), slice(128, 192)


def learn(model, steps=((0, 32), (32, 64), (64, 128))):
    """Quality on the held-out records after each step of training."""
    found = []
    for first, last in steps:
        model.update(context, candidates[first:last], results[first:last])
        scores = np.asarray(model.predict(context, candidates[TEST]))
        found.append((last, *quality(scores, seconds[TEST])))
    return found


# %% cell: xgboost, varies
quick = XGBModel(num_warmup_samples=16, num_tuning_cores=1)
learned = learn(quick)
for number, spearman, pairs in learned:
    print(
        f"after {number:3d} records: Spearman {spearman:5.2f}, "
        f"{pairs:4.0%} of the pairs in order"
    )


def among_fastest(scores, count=16):
    fast = np.argsort(seconds[TEST])[:count]
    spearman, pairs = quality(scores[fast], seconds[TEST][fast])
    print(f"the {count} fastest: {spearman:10.2f}, {pairs:8.0%}")


scores = np.asarray(quick.predict(context, candidates[TEST]))
among_fastest(scores)

# %% cell: saved
warnings.filterwarnings("ignore", message=".*WARNING")  # XGBoost: format
with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/model.tar"
    quick.save(path)
    other = XGBModel(num_warmup_samples=16, num_tuning_cores=1)
    other.load(path)
    same = np.allclose(other.predict(context, candidates[TEST]), scores)
    print("loaded model predicts the same:", same)
    XGBModel(num_tuning_cores=1).save(path)
    with expect_error(RuntimeError, match="booster"):
        other.load(path)

# %% check
assert same

# %% cell: warmup, varies
np.random.seed(0)
default = learn(XGBModel(num_tuning_cores=1))
blind = learn(ms.cost_model.RandomModel(seed=0))
for (number, a, _), (_, b, _) in zip(default, blind, strict=True):
    print(f"{number:3d} records: default {a:5.2f}, RandomModel {b:5.2f}")

# %% check
assert learned[-1][1] > 0.3
assert default[2][1] > 0.3

# %% cell: skipped
counting = XGBModel(num_warmup_samples=16, num_tuning_cores=1)
trained = []
counting._inst._train = lambda xs, ys: trained.append(
    (len(xs), float(max(ys)))
)
for first, last in ((0, 40), (40, 47), (47, 48), (48, 56)):
    counting.update(context, candidates[first:last], results[first:last])
    print(f"{last} records, trainings so far: {len(trained)}")
print("largest label:", trained[-1][1])

# %% check
assert [n for n, _ in trained] == [40, 48]


# %% cell: own, varies
@derived_object
class Ridge(ms.cost_model.PyCostModel):
    """A linear model of the logarithm of the time."""

    def __init__(self, penalty=1.0):
        super().__init__()
        self.penalty = penalty
        self.xs, self.ys, self.weights = [], [], None

    def _rows(self, context, candidates):
        found = extractor.extract_from(context, candidates)
        return [np.append(f.numpy().sum(axis=0), 1.0) for f in found]

    def update(self, context, candidates, results):
        self.xs += self._rows(context, candidates)
        self.ys += [
            np.log(min(float(s) for s in r.run_secs)) if r.run_secs else 0.0
            for r in results
        ]
        xs, ys = np.array(self.xs), np.array(self.ys)
        self.mean, self.scale = xs.mean(0), xs.std(0) + 1e-6
        self.level = ys.mean()
        xs = (xs - self.mean) / self.scale
        gram = xs.T @ xs + self.penalty * np.eye(xs.shape[1])
        self.weights = np.linalg.solve(gram, xs.T @ (ys - self.level))

    def predict(self, context, candidates):
        if self.weights is None:
            return np.ones(len(candidates))
        xs = (
            np.array(self._rows(context, candidates)) - self.mean
        ) / self.scale
        return np.exp(-(xs @ self.weights))

    def load(self, path):
        self.weights, self.mean, self.scale = np.load(path)

    def save(self, path):
        np.save(path, [self.weights, self.mean, self.scale])


linear = Ridge(penalty=10.0)
ridge = learn(linear)
for number, spearman, pairs in ridge:
    print(
        f"after {number:3d} records: Spearman {spearman:5.2f}, "
        f"{pairs:4.0%} of the pairs in order"
    )
among_fastest(np.asarray(linear.predict(context, candidates[TEST])))

# %% check
assert ridge[-1][1] > 0.2

# %% cell: scatter
fig, ax = figures.new(height=3.4)
ax.plot(seconds[TEST] * 1e6, scores, "o", color=COLORS["navy"], alpha=0.7)
ax.set(
    xscale="log",
    xlabel="recorded time, us",
    ylabel="score predicted by XGBoost",
    title="64 schedules that the model has not seen",
)
figures.alt(
    fig,
    "Predicted score against recorded time for 64 held-out schedules: high "
    "scores at short times, scattered, low scores at long times.",
)

# %% cell: others
print(sorted(n for n in vars(ms.cost_model) if n.endswith("Model")))
with expect_error(ValueError, match="Unknown|unknown"):
    ms.cost_model.CostModel.create("transformer")
print("create('none') gives", ms.cost_model.CostModel.create("none"))
if importlib.util.find_spec("torch") is None:
    with expect_error(ModuleNotFoundError, match="torch"):
        ms.cost_model.CostModel.create("mlp")

# %% cell: solution-top, varies
best = np.argsort(-scores)[:8]
drawn = np.array(
    [
        seconds[TEST][random.Random(n).sample(range(64), 8)].min()
        for n in range(200)
    ]
)
print(f"best of the model's top 8: {seconds[TEST][best].min() * 1e6:.0f} us")
print(f"best of 8 by chance (median): {np.median(drawn) * 1e6:.0f} us")
print(f"best of all 64: {seconds[TEST].min() * 1e6:.0f} us")


# %% cell: solution-features, varies
def vector(point):
    return np.array([np.log2(v) if v else 0.0 for v in point])


xs = np.array([vector(point) for point in points])
squares = np.concatenate([xs, xs**2, np.ones((len(xs), 1))], axis=1)
weights = np.linalg.lstsq(squares[TRAIN], np.log(seconds[TRAIN]), rcond=None)[
    0
]
spearman, pairs = quality(-(squares[TEST] @ weights), seconds[TEST])
print(f"five decisions and their squares: Spearman {spearman:.2f}")
