"""Search strategies for MetaSchedule, each a small class: random, genetic, annealing, learning, Pareto.

A strategy sees a schedule as a `Genome`: the number of a design space and one value for each sampling instruction of
its trace. `TraceSpace` turns genomes into schedules and back. `GenomeSearch` is the plug-in that MetaSchedule calls;
a strategy adds two methods to it, `propose` (the next genome to measure) and `learn` (what a batch was worth).

>>> strategy = Annealing(seed=1)            # in place of "evolutionary"
>>> ms.TuneContext(mod, target=target, search_strategy=strategy, ...)  # doctest: +SKIP
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tvm
from tvm.error import InternalError
from tvm.ir.utils import derived_object
from tvm.s_tir import Schedule, ScheduleError
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.arg_info import ArgInfo
from tvm.s_tir.meta_schedule.search_strategy import MeasureCandidate, PySearchStrategy
from tvm.s_tir.schedule import Trace

__all__ = [
    "Annealing",
    "Bandit",
    "Genetic",
    "Genome",
    "GenomeSearch",
    "ParetoSearch",
    "PolicyGradient",
    "RandomSearch",
    "TraceSpace",
    "dominates",
    "pareto_front",
]

SAMPLING = {"SamplePerfectTile", "SamplePartitionedTile", "SampleCategorical", "SampleComputeLocation"}


class Genome(NamedTuple):
    """The decisions of one schedule.

    Attributes
    ----------
    space : int
        Number of its design space.
    values : tuple
        One for each sampling instruction: a tuple of factors, an index, or the number of a loop.
    """

    space: int
    values: tuple[Any, ...]


class TraceSpace:
    """All genomes of a task, and the way from genomes to schedules and back.

    Parameters
    ----------
    mod : IRModule
        The function of the task.
    postprocs : sequence of Postproc
        What completes a schedule.
    design_spaces : sequence of Schedule
        As MetaSchedule hands them to ``pre_tuning``.
    rng : random.Random
        Source of all chance.
    """

    def __init__(
        self,
        mod: tvm.IRModule,
        postprocs: Sequence[ms.Postproc],
        design_spaces: Sequence[Schedule],
        rng: random.Random,
    ) -> None:
        self._mod, self._postprocs = mod, list(postprocs)
        self._rng = rng
        self.traces = [space.trace.simplified(remove_postproc=True) for space in design_spaces]
        self._sites = [[inst for inst in trace.insts if inst.kind.name in SAMPLING] for trace in self.traces]
        self._options = [
            [_options(inst, trace.decisions[inst]) for inst in sites]
            for trace, sites in zip(self.traces, self._sites, strict=True)
        ]

    def options(self, space: int) -> list[list[Any]]:
        """For each sampling instruction of a design space, the values it may take.

        The list is empty for a compute location: its candidates depend on the decisions before it. The value `None`
        then lets TVM draw.
        """
        return self._options[space]

    def schedule(self, genome: Genome) -> Schedule | None:
        """Replay the trace with these decisions, then postprocess; `None` if either refuses."""
        trace, sites = self.traces[genome.space], self._sites[genome.space]
        chosen = {
            inst: list(value) if isinstance(value, tuple) else value
            for inst, value in zip(sites, genome.values, strict=True)
            if value is not None
        }
        sch = Schedule(self._mod, seed=self._rng.randrange(1, 2**31 - 1))
        try:
            Trace(trace.insts, chosen).apply_to_schedule(sch, remove_postproc=True)
            sch.enter_postproc()
            return sch if all(postproc.apply(sch) for postproc in self._postprocs) else None
        except (InternalError, ScheduleError, ValueError, RuntimeError):
            return None

    def genome(self, space: int, sch: Schedule) -> Genome:
        """Read the decisions of a schedule that came from a design space.

        What was wished is not always what happened: sampling repairs a decision that does not fit.
        """
        decisions = sch.trace.decisions
        sites = [inst for inst in sch.trace.insts if inst.kind.name in SAMPLING]
        return Genome(space, tuple(_value(decisions[inst]) for inst in sites[: len(self._sites[space])]))

    def random(self) -> Genome:
        """A genome whose values are drawn alike from their options."""
        space = self._rng.randrange(len(self.traces))
        return Genome(space, tuple(self._rng.choice(o) if o else None for o in self.options(space)))

    def neighbour(self, genome: Genome) -> Genome:
        """The same genome with one value changed a little.

        A tile moves one prime factor from one loop to another; another choice is drawn anew.
        """
        movable = [site for site, options in enumerate(self.options(genome.space)) if len(options) != 1]
        if not movable:
            return genome
        site = self._rng.choice(movable)
        options, old = self.options(genome.space)[site], genome.values[site]
        if isinstance(old, tuple):
            near = [option for option in options if _is_step(old, option)]
            new = self._rng.choice(near or options)
        else:
            new = self._rng.choice([o for o in options if o != old]) if options else None
        return Genome(genome.space, (*genome.values[:site], new, *genome.values[site + 1 :]))


def _value(decision: Any) -> Any:
    """A decision of a trace as a number or a tuple of numbers."""
    return tuple(int(f) for f in decision) if hasattr(decision, "__len__") else int(decision)


def _options(inst: Any, decision: Any) -> list[Any]:
    if inst.kind.name == "SampleCategorical":
        return list(range(len(inst.attrs[0])))
    if inst.kind.name == "SamplePerfectTile":
        factors = _value(decision)
        limit = int(inst.attrs[1])
        tiles = _factorisations(math.prod(factors), len(factors))
        return [tile for tile in tiles if limit < 0 or tile[-1] <= limit]
    return []


def _factorisations(extent: int, parts: int) -> list[tuple[int, ...]]:
    """All ways to write a number as an ordered product."""
    if parts == 1:
        return [(extent,)]
    divisors = (d for d in range(1, extent + 1) if extent % d == 0)
    return [(d, *rest) for d in divisors for rest in _factorisations(extent // d, parts - 1)]


def _is_step(old: tuple[int, ...], new: tuple[int, ...]) -> bool:
    """Whether one prime factor moved from one place to another."""
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    if len(changed) != 2:
        return False
    (a, b), _ = changed
    ratio, rest = divmod(max(a, b), min(a, b))
    return rest == 0 and all(ratio % d for d in range(2, math.isqrt(ratio) + 1))


Scored = tuple[Genome, float]


class GenomeSearch(PySearchStrategy):
    """What the strategies share: the interface of MetaSchedule, turned into `propose` and `learn`.

    Parameters
    ----------
    seed : int
        Of all chance in this strategy.

    Notes
    -----
    MetaSchedule calls, in this order: ``_initialize_with_tune_context`` when the task is made, ``pre_tuning``, then
    ``generate_measure_candidates`` and ``notify_runner_results`` in turn until the former returns `None`, and
    ``post_tuning``.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.start: list[Genome] = []
        """Genomes to measure before any other, for example the best of a similar task."""

    # What a strategy adds

    def begin(self) -> None:
        """Called once, when `self.space` is known."""

    def propose(self) -> Genome:
        """The next genome to measure."""
        raise NotImplementedError

    def learn(self, scored: list[Scored]) -> None:
        """Genomes of a batch, in the order in which they were proposed, with seconds; infinite if one failed."""

    # What MetaSchedule calls

    def _initialize_with_tune_context(self, context: ms.TuneContext) -> None:
        # Not the context itself: it holds this strategy, and neither would ever be freed.
        self._mod, self._postprocs = context.mod, list(context.space_generator.postprocs or ())

    def pre_tuning(
        self,
        max_trials: int,
        num_trials_per_iter: int,
        design_spaces: list[Schedule],
        database: ms.database.Database | None = None,
        cost_model: ms.CostModel | None = None,
    ) -> None:
        """Remember the budget and begin with nothing known."""
        self._left, self._batch = max_trials, num_trials_per_iter
        self.rng = random.Random(self.seed)
        self.space = TraceSpace(self._mod, self._postprocs, design_spaces, self.rng)
        self._seen: set[Genome] = set()
        self._asked: list[Genome] = []
        self._waiting = list(self.start)
        self.begin()

    def post_tuning(self) -> None:
        """Nothing to clean up."""

    def generate_measure_candidates(self) -> list[MeasureCandidate] | None:
        """A batch of candidates that were not measured before; `None` when the budget is spent."""
        wanted = min(self._batch, self._left)
        if wanted <= 0:
            return None
        self._asked, candidates = [], []
        for _ in range(wanted):
            found = self._fresh()
            if found is None:
                break
            genome, sch = found
            self._asked.append(genome)
            candidates.append(MeasureCandidate(sch, ArgInfo.from_entry_func(sch.mod, True)))
        return candidates or None

    def notify_runner_results(self, measure_candidates: list[MeasureCandidate], results: list[Any]) -> None:
        """Tell `learn` the shortest time of each candidate."""
        seconds = [min((float(s) for s in result.run_secs or ()), default=math.inf) for result in results]
        self._left -= len(seconds)
        self.learn(list(zip(self._asked, seconds, strict=True)))

    def clone(self) -> Any:
        """A strategy that begins anew, for another task."""
        return derived_object(type(self))(self.seed)

    def _fresh(self) -> tuple[Genome, Schedule] | None:
        """A proposal that was not measured yet and can be built; after 30 failures a random one."""
        for attempt in range(130):
            if self._waiting:
                wish = self._waiting.pop(0)
            else:
                wish = self.propose() if attempt < 30 else self.space.random()
            if wish in self._seen:
                continue
            sch = self.space.schedule(wish)
            if sch is None:
                self._seen.add(wish)
                continue
            genome = self.space.genome(wish.space, sch)
            if genome in self._seen:
                continue
            self._seen |= {wish, genome}
            return genome, sch
        return None


@derived_object
class RandomSearch(GenomeSearch):
    """Draw every genome by chance."""

    def propose(self) -> Genome:
        """Any genome."""
        return self.space.random()


@derived_object
class Genetic(GenomeSearch):
    """A textbook genetic algorithm: tournaments, uniform crossover, mutation, survival of the best."""

    POPULATION = 16
    TOURNAMENT = 3
    MUTATION = 0.7

    def begin(self) -> None:
        """No one lives yet."""
        self.population: list[Scored] = []

    def propose(self) -> Genome:
        """A child of two parents; without a population, anyone."""
        if len(self.population) < 2:
            return self.space.random()
        child = self._cross(self._parent(), self._parent())
        return self.space.neighbour(child) if self.rng.random() < self.MUTATION else child

    def _parent(self) -> Genome:
        """The best of a few that were drawn by chance."""
        drawn = self.rng.sample(self.population, min(self.TOURNAMENT, len(self.population)))
        return min(drawn, key=lambda scored: scored[1])[0]

    def _cross(self, a: Genome, b: Genome) -> Genome:
        """Each value from one of the parents. Only genomes of one design space have the same sites."""
        if a.space != b.space:
            return a
        return Genome(a.space, tuple(self.rng.choice(pair) for pair in zip(a.values, b.values, strict=True)))

    def learn(self, scored: list[Scored]) -> None:
        """The best of old and new survive."""
        alive = [one for one in self.population + scored if math.isfinite(one[1])]
        self.population = sorted(alive, key=lambda one: one[1])[: self.POPULATION]


@derived_object
class Annealing(GenomeSearch):
    """Simulated annealing: one walker for each place in the batch, all at the same temperature.

    A step to a neighbour that is slower by a factor f is accepted with probability ``f ** (-1 / temperature)``.
    """

    HOT = 0.5
    COOLING = 0.7

    def begin(self) -> None:
        """No walker stands anywhere yet."""
        self.temperature = self.HOT
        self.walkers: list[Scored] = []

    def propose(self) -> Genome:
        """A neighbour of the walker whose turn it is; in the first batch, any place."""
        if not self.walkers:
            return self.space.random()
        # `len(self._asked)` proposals of this batch were taken: the next is for the next walker.
        return self.space.neighbour(self.walkers[len(self._asked) % len(self.walkers)][0])

    def learn(self, scored: list[Scored]) -> None:
        """Each walker goes to its new place, or stays; then it is a little colder."""
        if not self.walkers:
            self.walkers = list(scored)
            return
        for turn, (genome, seconds) in enumerate(scored):
            walker = turn % len(self.walkers)
            if self._accepts(self.walkers[walker][1], seconds):
                self.walkers[walker] = (genome, seconds)
        self.temperature *= self.COOLING

    def _accepts(self, old: float, new: float) -> bool:
        if new <= old:
            return True
        return math.isfinite(new) and self.rng.random() < (old / new) ** (1 / self.temperature)


@derived_object
class PolicyGradient(GenomeSearch):
    """REINFORCE: learn for each decision how probable each of its values shall be.

    The policy draws the values of a genome one by one, from a softmax over scores. The score of a tile is a sum of
    one weight for each factor, so that tiles with a common factor learn together. After a batch each weight moves
    along ``advantage * gradient of log probability``; the reward is minus the logarithm of the time, the advantage is
    the reward's distance from the mean of all so far, in units of their standard deviation.
    """

    RATE = 0.5

    def begin(self) -> None:
        """All weights are zero: the policy draws alike."""
        self.weights: dict[tuple[Any, ...], float] = {}
        self.rewards: list[float] = []

    def propose(self) -> Genome:
        """Draw a design space, then each value, from the policy."""
        space = self._draw("space", list(range(len(self.space.traces))))
        values = (
            self._draw((space, site), options) if options else None
            for site, options in enumerate(self.space.options(space))
        )
        return Genome(space, tuple(values))

    def probabilities(self, site: Any, options: list[Any]) -> list[float]:
        """The policy at one decision."""
        scores = [sum(self.weights.get(f, 0.0) for f in self._features(site, option)) for option in options]
        top = max(scores)
        powers = [math.exp(score - top) for score in scores]
        return [power / sum(powers) for power in powers]

    def learn(self, scored: list[Scored]) -> None:
        """One step of gradient ascent."""
        batch = [(genome, -math.log(seconds)) for genome, seconds in scored if math.isfinite(seconds)]
        self.rewards += [reward for _, reward in batch]
        if len(self.rewards) < 2:
            return
        mean = sum(self.rewards) / len(self.rewards)
        spread = math.sqrt(sum((r - mean) ** 2 for r in self.rewards) / len(self.rewards)) or 1.0
        step: dict[tuple[Any, ...], float] = {}
        for genome, reward in batch:
            scale = self.RATE * (reward - mean) / spread / len(batch) ** 0.5
            taken = [("space", list(range(len(self.space.traces))), genome.space)]
            options = self.space.options(genome.space)
            for site, (choices, value) in enumerate(zip(options, genome.values, strict=True)):
                if choices:
                    taken.append(((genome.space, site), choices, value))
            for site, choices, value in taken:
                for feature in self._features(site, value):
                    step[feature] = step.get(feature, 0.0) + scale
                for option, probability in zip(choices, self.probabilities(site, choices), strict=True):
                    for feature in self._features(site, option):
                        step[feature] = step.get(feature, 0.0) - scale * probability
        for feature, change in step.items():
            self.weights[feature] = self.weights.get(feature, 0.0) + change

    def _draw(self, site: Any, options: list[Any]) -> Any:
        return self.rng.choices(options, self.probabilities(site, options))[0]

    @staticmethod
    def _features(site: Any, option: Any) -> list[tuple[Any, ...]]:
        if isinstance(option, tuple):
            return [(site, level, factor) for level, factor in enumerate(option) if level]
        return [(site, option)]


@derived_object
class Bandit(GenomeSearch):
    """UCB1 over two arms: a genome drawn by chance, or a neighbour of one of the best so far.

    The reward of a pull is 1 if it is among the best eight so far, and 0 if not. The arm with the largest
    ``mean reward + sqrt(2 ln pulls / pulls of the arm)`` is pulled next.
    """

    ELITE = 8

    def begin(self) -> None:
        """No arm was pulled."""
        self.pulls = {"random": 0, "neighbour": 0}
        self.wins = {"random": 0.0, "neighbour": 0.0}
        self.best: list[Scored] = []
        self._arms: dict[Genome, str] = {}

    def propose(self) -> Genome:
        """Pull the most promising arm."""
        arm = self._arm() if self.best else "random"
        genome = self.space.random()
        if arm == "neighbour":
            genome = self.space.neighbour(self.rng.choice(self.best)[0])
        self._arms[genome] = arm
        return genome

    def _arm(self) -> str:
        waiting = [self._arms.get(genome, "random") for genome in self._asked]

        def bound(arm: str) -> float:
            pulls = self.pulls[arm] + waiting.count(arm)
            total = sum(self.pulls.values()) + len(waiting)
            mean = self.wins[arm] / max(1, self.pulls[arm])
            return math.inf if pulls == 0 else mean + math.sqrt(2 * math.log(max(2, total)) / pulls)

        return max(self.pulls, key=bound)

    def learn(self, scored: list[Scored]) -> None:
        """Pay the arms."""
        alive = [one for one in self.best + scored if math.isfinite(one[1])]
        self.best = sorted(alive, key=lambda one: one[1])[: self.ELITE]
        elite = {genome for genome, _ in self.best}
        for genome, _ in scored:
            arm = self._arms.get(genome, "random")
            self.pulls[arm] += 1
            self.wins[arm] += genome in elite


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is nowhere worse (larger) than `b`, and better somewhere."""
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other point dominates, in the order given."""
    return [n for n, p in enumerate(points) if not any(dominates(q, p) for q in points)]


@derived_object
class ParetoSearch(GenomeSearch):
    """Search for all good compromises between the time and a second objective.

    Parameters
    ----------
    seed : int
        Of all chance.
    second : callable
        What else a genome costs; called for every genome that was measured.

    Notes
    -----
    The archive holds the genomes that no other dominates. Parents are drawn from it alike, so the ends of the front
    get as many children as its middle.
    """

    EXPLORE = 0.3

    def __init__(self, seed: int = 0, second: Callable[[Genome], float] = lambda genome: 0.0) -> None:
        super().__init__(seed)
        self._second = second

    def clone(self) -> Any:
        """A strategy that begins anew, with the same second objective."""
        return derived_object(type(self))(self.seed, self._second)

    def begin(self) -> None:
        """The archive is empty."""
        self.front: list[tuple[Genome, float, float]] = []

    def propose(self) -> Genome:
        """A neighbour of an archived genome, or any."""
        if not self.front or self.rng.random() < self.EXPLORE:
            return self.space.random()
        return self.space.neighbour(self.rng.choice(self.front)[0])

    def learn(self, scored: list[Scored]) -> None:
        """Keep what is not dominated."""
        new = [(genome, seconds, self._second(genome)) for genome, seconds in scored if math.isfinite(seconds)]
        everyone = self.front + new
        self.front = [everyone[n] for n in pareto_front([one[1:] for one in everyone])]
