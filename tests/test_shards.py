"""Runs of the gallery that several machines share: cut, run, merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from books import Book

from tvm_deepdive_helpers.maintain import shards
from tvm_deepdive_helpers.sphinxext import records


def test_a_shard_is_written_as_one_of_many() -> None:
    assert shards.parse_shard("2/5") == (2, 5)
    for wrong in ("0/5", "6/5", "2", "a/b", "2/0"):
        with pytest.raises(ValueError, match="is no shard"):
            shards.parse_shard(wrong)


def test_a_cut_is_complete_balanced_and_does_not_depend_on_order() -> None:
    seconds = {f"part/s{n}": 1.0 + n % 7 + (30.0 if n == 3 else 0.0) for n in range(40)}
    names = [*seconds, "part/new"]
    cut = shards.cut(names, seconds, 4)
    assert sorted(name for shard in cut for name in shard) == sorted(names)
    assert cut == shards.cut(reversed(names), dict(reversed(seconds.items())), 4)
    loads = [sum(seconds.get(name, 4.0) for name in shard) for shard in cut]
    assert max(loads) - min(loads) <= 7, loads
    assert shards.cut(["a"], {}, 3) == [["a"], [], []]


def test_times_come_from_the_record_of_the_last_drift_run(tmp_path: Path) -> None:
    assert shards.recorded_times(tmp_path) == {}
    path = tmp_path / shards.TIMES
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"scripts": {"a/b": {"seconds": 2.5}}}))
    assert shards.recorded_times(tmp_path) == {"a/b": 2.5}


@pytest.fixture
def results(book: Book) -> tuple[Book, list[Path]]:
    """A book of three scripts, run as two shards on two machines."""
    for name in ("one", "two", "three"):
        book.script(name, f'# %% cell: x\nprint("{name}")\n')
    book.page("page", "".join(f"```{{gallery-cell}} 1-part/{name}:x\n```\n\n" for name in ("one", "two", "three")))
    built = book.root / "book/gallery"
    kept = []
    for which in ("1/2", "2/2"):
        assert shards.run(which, book.root) == 0
        assert not (book.root / "_build/shard/objects.inv").exists(), "no book is built"
        kept.append(book.root / f"kept-{which[0]}")
        built.rename(kept[-1])
    return book, kept


def test_shards_run_apart_and_the_build_after_a_merge_runs_nothing(results: tuple[Book, list[Path]]) -> None:
    book, kept = results
    found = [{path.name.removesuffix(records.SUFFIX) for path in folder.rglob(f"*{records.SUFFIX}")} for folder in kept]
    assert found[0] & found[1] == set() and found[0] | found[1] == {"one", "two", "three"}
    with pytest.raises(shards.UsageError, match=r"gallery/1-part/\w+\.py: no folder holds a result"):
        shards.merge(kept[:1], book.root / "book/gallery", book.root)
    assert not (book.root / "book/gallery").exists(), "a merge that fails copies nothing"
    assert shards.merge(kept, book.root / "book/gallery", book.root) == 3
    assert book.executed(book.good_build()) == set()
    assert "three" in book.text("page")


def test_different_results_of_one_script_are_a_conflict(results: tuple[Book, list[Path]]) -> None:
    book, kept = results
    third = book.root / "third"
    shutil.copytree(kept[0], third)
    assert shards.merge([*kept, third], book.root / "merged", book.root) == 3, "the same result twice is none"
    stamp = next(third.rglob("*.stamp.json"))
    record = stamp.with_name(stamp.name.replace(".stamp.json", records.SUFFIX))
    record.write_text(record.read_text().replace('"seconds"', ' "seconds"'))
    content = json.loads(stamp.read_text())
    content["files"][record.name] = shards.gallery_run._hash(record)
    stamp.write_text(json.dumps(content))
    with pytest.raises(shards.UsageError, match="hold different results"):
        shards.merge([*kept, third], book.root / "merged", book.root)


def test_a_script_that_fails_fails_its_shard(book: Book) -> None:
    book.script("bad", "# %% cell: x\nraise RuntimeError('no')\n")
    assert shards.run("1/1", book.root) == 2


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert shards.main(["show", "3"]) == 0
    assert "3/3: " in capsys.readouterr().out
    assert shards.main(["run", "4/3"]) == 2
    assert "is no shard" in capsys.readouterr().err
