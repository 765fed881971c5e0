"""Cells on other releases of TVM: how they are run, compared and recorded."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from tvm_deepdive_helpers.maintain import citation_drift, drift, drift_worker
from tvm_deepdive_helpers.maintain.shards import UsageError

ROOT = Path(__file__).resolve().parents[1]


def cell(name: str, output: str = "", **more: object) -> dict:
    return {"name": name, "line": 1, "varies": False, "output": output, "figures": 0, "values": {}, **more}


def result(*cells: dict, ended: str | None = None) -> dict:
    return {"cells": list(cells), "ended": ended, "cpu_seconds": 1.0}


def test_the_reference_is_what_the_book_is_built_with() -> None:
    releases = drift.read_releases(ROOT / "gallery/data/releases.toml")
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"apache-tvm=={releases[0].tvm}\n" in pins and f"apache-tvm-ffi=={releases[0].ffi}\n" in pins
    assert releases[0].installed and not any(release.installed for release in releases[1:])
    names = tomllib.loads((ROOT / "gallery/data/releases.toml").read_text(encoding="utf-8"))["names"]
    for new in names:
        drift_worker.lookup(new)


@pytest.mark.parametrize("text", ["", "release = [{tvm = '1'}]", "release = [{tvm='1', ffi='2'}, {tvm='1', ffi='3'}]"])
def test_a_wrong_list_of_releases_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "releases.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"releases\.toml"):
        drift.read_releases(path)


def test_what_happened_to_each_cell() -> None:
    reference = result(
        cell("setup"),
        cell("same", "a\nb"),
        cell("other", "one\ntwo\nthree"),
        cell("time", "3 ms", varies=True),
        cell("figure", figures=2),
        cell("value", values={"kernels": 5}),
        cell("fails"),
        cell("follows"),
    )
    other = result(
        cell("setup"),
        cell("same", "a\nb"),
        cell("other", "one\n2\nthree"),
        cell("time", "9 ms", varies=True),
        cell("figure", figures=1),
        cell("value", values={"kernels": 6}),
        cell("fails", error="ValueError: no"),
        cell("follows", error="NameError: name 'x' is not defined", needs="fails"),
    )
    assert drift.compare(reference, other) == {
        "other": {"status": "changed", "diff": ["-two", "+2"]},
        "figure": {"status": "changed", "diff": ["2 figures -> 1"]},
        "value": {"status": "changed", "diff": ["kernels = 5 -> 6"]},
        "fails": {"status": "failed", "why": "ValueError: no"},
        "follows": {"status": "blocked", "needs": "fails"},
    }
    assert drift.compare(reference, reference) == {}


def test_a_script_whose_process_ended_fails_in_one_cell_and_loses_the_rest() -> None:
    reference = result(cell("a"), cell("b"), cell("c"))
    other = result(cell("a"), ended="killed by SIGSEGV")
    assert drift.compare(reference, other) == {
        "b": {"status": "failed", "why": "killed by SIGSEGV"},
        "c": {"status": "lost"},
    }


def test_a_renamed_thing_is_marked() -> None:
    reference = result(cell("a"), cell("b", "x"))
    names = {"tvm.sym": "tvm.arith"}
    other = result(cell("a", renamed=names), cell("b", "y", renamed=names))
    assert drift.compare(reference, other) == {
        "a": {"status": "renamed", "names": names},
        "b": {"status": "changed", "diff": ["-x", "+y"]},
    }


def test_differences_are_kept_short() -> None:
    old = "\n".join(f"old {n}" for n in range(50))
    lines = drift.short_diff(old, "x" * 500)
    assert len(lines) == drift.DIFF_LINES + 1 and lines[-1] == "… 41 more lines"
    assert all(len(line) <= drift.DIFF_WIDTH for line in lines)
    assert drift.short_diff("a\n---\nb", "a\n---\nc") == ["-b", "+c"]


def test_an_exception_in_one_line() -> None:
    def last(error: BaseException) -> str:
        return drift_worker.last_line(error, (("/home/me/", "~/"),))

    assert last(ValueError("")) == "ValueError"
    assert last(ValueError("\n  \nfirst\nsecond")) == "ValueError: first"
    assert last(RuntimeError("a module\n...\nError message: no loop")) == "RuntimeError: Error message: no loop"
    assert last(OSError("no /home/me/x/y.py")) == "OSError: no ~/x/y.py"
    assert len(last(ValueError("x" * 1000))) == 300


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> drift.Workplace:
    """A gallery of three scripts and two "releases", both of which are the installed one."""
    monkeypatch.setattr(drift.Release, "installed", True)
    (tmp_path / "gallery/data").mkdir(parents=True)
    (tmp_path / "gallery/data/releases.toml").write_text(
        "release = [{tvm = 'new', ffi = 'f'}, {tvm = 'old', ffi = 'f'}]\n[names]\n"
        '"tvm_deepdive_helpers.todays" = "tvm_deepdive_helpers.glue"\n'
    )
    scripts = {
        "going_on": """
            # %% cell: setup
            from tvm_deepdive_helpers import glue
            x = 1
            print("hello", 0x1)

            # %% cell: wrong
            y = 2
            z = undefined_thing.no

            # %% cell: follows
            print(z)

            # %% cell: goes-on
            print(x + y)
            glue("sum", x + y)

            # %% check
            import matplotlib.pyplot as plt
            plt.figure()
            plt.figure()

            # %% cell: renamed
            from tvm_deepdive_helpers import todays
            """,
        "aborts": "# %% cell: fine\nprint(1)\n\n# %% cell: dies\nimport os\nos.abort()\n\n# %% cell: never\nprint(2)\n",
        "shows": "# %% cell: x\nfrom tvm_deepdive_helpers.recorded import data\nprint(data('drift.json'))\n",
    }
    for name, text in scripts.items():
        path = tmp_path / f"gallery/1-part/{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'"""\n{name}\n=====\n\nText.\n"""\n' + re.sub(r"^ {12}", "", text, flags=re.M))
    return drift.Workplace(tmp_path)


def test_cells_run_as_far_as_they_go_and_a_second_run_does_nothing(
    place: drift.Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [script.name for script in place.scripts] == ["1-part/aborts", "1-part/going_on"], (
        "not the one that shows it"
    )
    new, old = place.releases
    assert len(drift.run(place, [new], None, None, 2)) == 2
    assert "2 of 6 cells failed" in capsys.readouterr().out
    going_on = json.loads((place.build / "results/new/1-part/going_on.json").read_text())
    cells = {one["name"]: one for one in going_on["cells"]}
    assert list(cells) == ["setup", "wrong", "follows", "goes-on", "block 5", "renamed"]
    assert cells["setup"]["output"] == "hello 1"
    assert (
        cells["wrong"]["error"] == "NameError: name 'undefined_thing' is not defined" and "needs" not in cells["wrong"]
    )
    assert cells["follows"]["needs"] == "wrong"
    assert cells["goes-on"]["output"] == "3" and cells["goes-on"]["values"] == {"sum": 3}
    assert cells["block 5"]["figures"] == 2
    assert cells["renamed"]["renamed"] == {"tvm_deepdive_helpers.todays": "tvm_deepdive_helpers.glue"}
    aborts = json.loads((place.build / "results/new/1-part/aborts.json").read_text())
    assert [one["name"] for one in aborts["cells"]] == ["fine"] and aborts["ended"] == "killed by SIGABRT"

    assert drift.run(place, [new], None, None, 2) == [], "what is done is not done again"
    path = place.gallery / "1-part/aborts.py"
    path.write_text(path.read_text() + "\n# a remark\n")
    place = drift.Workplace(place.root)
    assert [task.script.name for task in drift.run(place, [new], None, None, 2)] == ["1-part/aborts"]

    with pytest.raises(UsageError, match=r"no result of: old 1-part/aborts, old 1-part/going_on"):
        drift.gather(place)
    # What the other "release" did, without running it: the same, but for one cell.
    for script in place.scripts:
        done = place.task(new, script).result
        assert done
        if script.name.endswith("going_on"):
            done["cells"][0]["output"] = "good day"
        drift._write(place.task(old, script), {**done, "key": place.task(old, script).key})
    content = drift.gather(place)
    assert content["scripts"]["1-part/going_on"]["old"]["setup"] == {
        "status": "changed",
        "diff": ["-hello 1", "+good day"],
    }
    assert content["scripts"]["1-part/aborts"]["cells"] == ["fine"]
    assert drift.summary(content).startswith("old: 7 cells, 1 blocked, 1 changed, 1 failed")


def test_parts_are_merged_and_gaps_and_conflicts_are_errors(place: drift.Workplace, tmp_path: Path) -> None:
    new, old = place.releases

    def put(folder: Path, release: drift.Release, name: str, output: str) -> None:
        (script,) = (one for one in place.scripts if one.name == name)
        task = drift.Workplace(place.root).task(release, script)
        target = folder / "results" / task.out.relative_to(place.build / "results")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps({"key": task.key, **result(cell("a", output))}))

    for release in (new, old):
        put(tmp_path / "one", release, "1-part/aborts", "x")
    put(tmp_path / "two", new, "1-part/going_on", "x")
    with pytest.raises(UsageError, match="old 1-part/going_on: no folder holds a result"):
        drift.merge(place, [tmp_path / "one", tmp_path / "two"])
    assert not place.build.exists()
    put(tmp_path / "two", old, "1-part/going_on", "x")
    put(tmp_path / "two", old, "1-part/aborts", "something else")
    with pytest.raises(UsageError, match="old 1-part/aborts: two folders hold different results"):
        drift.merge(place, [tmp_path / "one", tmp_path / "two"])
    put(tmp_path / "two", old, "1-part/aborts", "x")
    assert drift.merge(place, [tmp_path / "one", tmp_path / "two"]) == 4
    assert drift.run(place, place.releases, None, None, 1) == []


def test_shards_of_a_drift_run_share_the_work(place: drift.Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, str]] = []
    monkeypatch.setattr(drift, "environment", lambda *_: Path("python"))
    monkeypatch.setattr(
        drift, "run_task",
        lambda worker, task: done.append((task.release.tvm, task.script.name)) or {**result(), "seconds": 1.0},
    )  # fmt: skip
    for which in ("1/3", "2/3", "3/3"):
        drift.run(place, place.releases, None, which, 1)
    assert len(done) == len(set(done)) == 4


def test_citations_are_compared(tmp_path: Path) -> None:
    for version, text in {
        "new": {
            "a.py": "def f():\n    return 1\n\ndef g():\n    return 2\n",
            "b.py": "def k():\n    return 3\n\nX = 1\n",
        },
        "old": {"a.py": "X = 0\n\ndef f():\n    return 1\n\ndef g():\n    return 0\n", "b.py": "Y = 2\n"},
    }.items():
        for package in ("tvm", "tvm_ffi"):
            folder = tmp_path / version / package
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text("")
        for name, content in text.items():
            (tmp_path / version / "tvm" / name).write_text(content)
    index = tmp_path / "index.json"
    sources = {v: citation_drift.release_places(tmp_path / v, v, v, index) for v in ("new", "old")}
    cited = ["a.f", "a.g", "b.k", "src/x.cc:Y", "no.such"]
    assert citation_drift.compare(cited, sources["new"], {"old": sources["old"]}) == {
        "count": 3,
        "differ": {"a.g": {"old": "changed"}, "b.k": {"old": "gone"}},
    }


def test_citations_are_collected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "{tvm-py}`relax.A` and {tvm-cpp}`the fuser <src/f.cc:B>`, {tvm-py}`relax.A` again\n\n"
        "```{quote} tvm.C\n:lines: 1\n```\n\n```text\n{tvm-py}`an.example`\n```\n"
    )
    assert citation_drift.targets([page]) == ["relax.A", "src/f.cc:B", "tvm.C"]


def test_the_record_names_every_release_and_no_machine() -> None:
    path = ROOT / "gallery/data/drift.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    releases = drift.read_releases(ROOT / "gallery/data/releases.toml")
    assert [(one["tvm"], one["ffi"]) for one in content["releases"]] == [(one.tvm, one.ffi) for one in releases]
    for entry in content["scripts"].values():
        for release in releases[1:]:
            assert set(entry[release.tvm]) <= {name.removesuffix(", varies") for name in entry["cells"]}
    assert not re.search(r"/(home|root|Users|work)/", path.read_text(encoding="utf-8"))


def test_a_check_looks_at_cells_and_not_at_dates_and_times() -> None:
    def record(seconds: float, **cells: str) -> dict:
        found = {name: {"status": status} for name, status in cells.items()}
        return {
            "date": str(seconds),
            "releases": [{"tvm": "2"}, {"tvm": "1"}],
            "scripts": {"part/a": {"digest": str(seconds), "seconds": seconds, "cells": ["x", "y"], "1": found}},
            "citations": {},
        }

    said = record(1.0, x="failed")
    assert drift.differences(said, record(2.0, x="failed")) == []
    assert drift.differences(said, record(2.0, y="changed")) == [
        "part/a, x, on 1: failed in the book, same now",
        "part/a, y, on 1: same in the book, changed now",
    ]
    assert drift.differences({**said, "scripts": {}}, said) == ["part/a: not recorded yet"]
    assert drift.differences(said, {**said, "scripts": {}}) == ["part/a: gone"]
