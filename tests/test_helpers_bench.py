"""Measuring times, with a clock that the test turns."""

import json
import os
import platform
import time

import pytest

from tvm_deepdive_helpers import bench
from tvm_deepdive_helpers.bench import (
    Comparison,
    Timing,
    assert_faster,
    compare,
    cpu_time,
    cpu_timer,
    machine_facts,
    measure,
    numpy_process,
    race,
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a candidate says so."""

    class Clock:
        now = 0.0

        def takes(self, *seconds):
            """A function whose calls take these times in turn; the last one repeats."""
            left = list(seconds)

            def call():
                self.now += left.pop(0) if len(left) > 1 else left[0]

            return call

    clock = Clock()
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock.now)
    return clock


def test_measure(clock):
    timing = measure(clock.takes(100, 5, 3, 4), repeat=3, warmup=1)
    assert timing.samples == pytest.approx((5, 3, 4))
    assert timing.min_s == pytest.approx(3) and timing.median_s == pytest.approx(4)


def test_number_is_divided_out(clock):
    timing = measure(clock.takes(2), repeat=2, number=10, warmup=0)
    assert timing.samples == pytest.approx((2, 2))


def test_candidates_take_turns():
    calls = []
    compare({name: lambda name=name: calls.append(name) for name in "ABC"}, rounds=3, warmup=1)
    assert "".join(calls) == "ABC" + "ABCABCABC"


def test_comparison(clock, capsys):
    result = compare({"a": clock.takes(0, 2, 4, 8), "b": clock.takes(0, 9, 1, 9)}, rounds=3)
    assert result.minima == pytest.approx({"a": 2, "b": 1})
    assert result.fastest == "b"
    assert result.ratio("a", "b") == pytest.approx(2) and result.ratio("b", "a") == pytest.approx(0.5)
    assert result.ratios() == pytest.approx({"a": 2, "b": 1})
    assert result.ratios("a") == pytest.approx({"a": 1, "b": 0.5})
    result.table()
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["a", "2000000.0", "4000000.0", "2.00"]


def test_different_numbers(clock):
    calls = {"a": 0, "b": 0}

    def count(name):
        calls[name] += 1

    compare({n: lambda n=n: count(n) for n in calls}, rounds=2, number={"a": 5, "b": 1}, warmup=0)
    assert calls == {"a": 10, "b": 2}


def test_assert_faster():
    result = Comparison({"old": Timing((6.0, 5.0)), "new": Timing((2.0, 3.0))})
    assert_faster(result, "new", "old", 2.5)
    with pytest.raises(AssertionError, match=r"'new' .* 3 times as fast as 'old', but it is 2\.50 times"):
        assert_faster(result, "new", "old", 3)


@pytest.mark.parametrize("bad", [{"rounds": 0}, {"number": 0}, {"warmup": -1}])
def test_refuses_numbers_that_are_too_small(bad):
    with pytest.raises(ValueError):
        compare({"a": print}, **bad)
    with pytest.raises(ValueError):
        compare({})


def test_real_clock_and_processor_time():
    with cpu_time() as idle:
        time.sleep(0.05)
    with cpu_time() as busy:
        sum(i * i for i in range(400_000))
    assert idle.wall_s >= 0.05 and idle.cpu_s < 0.04 and idle.cores < 0.8
    assert busy.cpu_s > 0.001


def test_machine_facts(monkeypatch, capsys):
    monkeypatch.setenv("TVM_NUM_THREADS", "3")
    facts = machine_facts()
    assert facts["tvm"].startswith("0.2") and facts["arch"] == platform.machine() and facts["cores"] >= 1
    assert "TVM_NUM_THREADS=3" in facts["threads"]
    monkeypatch.setattr(platform, "node", lambda: "a-name-of-a-machine")
    text = json.dumps(machine_facts())
    assert "a-name-of-a-machine" not in text and os.getcwd() not in text and os.path.expanduser("~/") not in text
    bench.print_machine()
    assert len(capsys.readouterr().out.splitlines()) == len(facts)


def test_race_takes_turns_and_lets_one_sit_out():
    calls = []
    result = race(
        {name: lambda name=name: calls.append(name) or len(calls) for name in "ABC"}, rounds={"A": 2, "B": 1, "C": 2}
    )
    assert "".join(calls) == "ABCAC"
    assert result["A"].samples == (1, 4) and result["B"].samples == (2,)
    with pytest.raises(ValueError, match="nothing"):
        race({})
    with pytest.raises(ValueError, match="rounds=0"):
        race({"A": lambda: 1.0}, rounds=0)


def test_cpu_timer_does_not_count_waiting():
    assert cpu_timer(lambda: time.sleep(0.05))() < 0.04
    assert cpu_timer(lambda: sum(range(200_000)))() > 0


def test_numpy_process():
    with numpy_process("import os; a = np.ones(1000); n = 0", "n += a.sum()") as timer:
        assert 0 <= timer() < 1 and 0 <= timer() < 1
    check = "assert (os.environ['OPENBLAS_NUM_THREADS'], os.environ['EXTRA']) == ('2', 'x')"
    with numpy_process("import os", check, threads=2, env={"EXTRA": "x"}) as timer:
        timer()


def test_numpy_process_that_dies():
    with numpy_process("", "raise SystemExit(3)") as timer, pytest.raises(RuntimeError, match="status 3"):
        timer()
