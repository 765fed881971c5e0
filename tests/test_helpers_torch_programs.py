"""Programs that need PyTorch, and their records."""

from pathlib import Path

import pytest

from tvm_deepdive_helpers import torch_programs
from tvm_deepdive_helpers.torch_programs import PROGRAMS, Recorded, output, read_runs, run

RECORDED = Path(__file__).parent.parent / "gallery" / "data" / "torch_runs.txt"


def test_every_program_is_recorded():
    facts, runs = read_runs(RECORDED)
    assert facts.startswith("torch ")
    assert {name: one.program for name, one in runs.items()} == PROGRAMS
    assert all(one.output for one in runs.values())


def test_without_torch_the_record_is_shown(monkeypatch):
    monkeypatch.setattr(torch_programs, "where", lambda: "not installed")
    assert run("loops", Recorded(PROGRAMS["loops"], "")) == "recorded"


def test_with_torch_the_program_runs(monkeypatch):
    monkeypatch.setattr(torch_programs, "where", lambda: "installed")
    monkeypatch.setitem(PROGRAMS, "tiny", "print(1 + 1)\n")
    assert run("tiny", Recorded("print(1 + 1)\n", "2\n")) == "the same"
    assert run("tiny", Recorded("print(1 + 1)\n", "3\n")) == "another output"


def test_an_old_record_is_refused():
    with pytest.raises(ValueError, match="older"):
        run("loops", Recorded("print()\n", "\n"))


def test_a_program_that_fails():
    with pytest.raises(RuntimeError, match="status 1"):
        output("raise SystemExit('no')\n")
