"""Run every cell of the book on every supported release of TVM, and record what differs.

``make drift`` does it all::

    python -m tvm_deepdive_helpers.maintain.drift run                 # every script on every release
    python -m tvm_deepdive_helpers.maintain.drift write               # compare, and write gallery/data/drift.json

The releases stand in ``gallery/data/releases.toml``. Each gets an environment below ``_build/drift`` that holds its own
``apache-tvm`` and ``apache-tvm-ffi`` and takes everything else from the environment of the book, so that nothing
but the release differs. A run may be killed at any time: what was done is kept, under a key that covers the
script, the helpers and data that it uses, and the versions, and the next run goes on. For the reference release the
results of the last build are taken. ``run --shard 2/5`` does a part of the work, and ``merge`` puts parts together.

A script that shows this very record (it reads ``drift.json``) is left out.
"""

from __future__ import annotations

import argparse
import datetime
import difflib
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import queue
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import venv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm_deepdive_helpers.maintain import citation_drift, shards
from tvm_deepdive_helpers.maintain.shards import UsageError
from tvm_deepdive_helpers.sphinxext import gallery_run, records, scripts

ROOT = Path(__file__).resolve().parents[3]
DATA = "drift.json"
RELEASES = "releases.toml"
#: Part of every key: raise it when drift_worker.py comes to do something else with a cell.
WORKER = "1"
#: Lines of a difference that are kept, and their length.
DIFF_LINES, DIFF_WIDTH = 10, 140


@dataclass(frozen=True)
class Release:
    """One release of TVM, with the FFI that it runs on."""

    tvm: str
    ffi: str

    @property
    def installed(self) -> bool:
        """Whether the environment of the book holds this release."""
        return (self.tvm, self.ffi) == tuple(importlib.metadata.version(name) for name in _PACKAGES)


_PACKAGES = ("apache-tvm", "apache-tvm-ffi")


def read_releases(path: Path) -> list[Release]:
    """The supported releases; the first is the reference.

    Raises
    ------
    UsageError
        The file is not well formed, or names a release twice.
    """
    try:
        found = [Release(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["release"]]
    except (OSError, TypeError, KeyError, tomllib.TOMLDecodeError) as err:
        raise UsageError(f"{path}: {err}") from None
    if not found or len({release.tvm for release in found}) < len(found):
        raise UsageError(f"{path}: name each release once")
    return found


@dataclass(frozen=True)
class Task:
    """One script on one release."""

    release: Release
    script: scripts.Script
    key: str
    out: Path
    seconds: float = 0.0

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, if there is one of this script and these versions."""
        try:
            found = json.loads(self.out.read_text(encoding="utf-8"))
            return found if found["key"] == self.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass
class Workplace:
    """The folders of one book."""

    root: Path = ROOT

    @property
    def gallery(self) -> Path:
        return self.root / "gallery"

    @property
    def built(self) -> Path:
        return self.root / "book/gallery"

    @property
    def build(self) -> Path:
        return self.root / "_build/drift"

    @property
    def data(self) -> Path:
        return self.gallery / "data" / DATA

    @functools.cached_property
    def releases(self) -> list[Release]:
        return read_releases(self.gallery / "data" / RELEASES)

    @functools.cached_property
    def names(self) -> dict[str, str]:
        """Today's name -> the name in an older release."""
        text = (self.gallery / "data" / RELEASES).read_text(encoding="utf-8")
        return tomllib.loads(text).get("names", {})

    @functools.cached_property
    def scripts(self) -> list[scripts.Script]:
        """All scripts, but for those that show the record itself."""
        found = [scripts.parse(self.gallery / f"{name}.py", name) for name in shards.script_names(self.gallery)]
        return [script for script in found if DATA not in script.data]

    def files(self, script: scripts.Script) -> list[Path]:
        return gallery_run.inputs(script, self.gallery / "data")

    def facts(self, release: Release) -> dict[str, str]:
        names = {} if release.installed else {f"name {new}": old for new, old in self.names.items()}
        own = {"apache-tvm": release.tvm, "apache-tvm-ffi": release.ffi, "worker": WORKER}
        return {**gallery_run.versions(), **own, **names}

    def digest(self, script: scripts.Script) -> str:
        """Changes when the script, or a helper or data that it uses, changes."""
        digest = hashlib.sha256()
        for path in self.files(script):
            digest.update(f"\0{path.name}\0".encode() + (path.read_bytes() if path.is_file() else b"absent"))
        return digest.hexdigest()[:16]

    def task(self, release: Release, script: scripts.Script, seconds: float = 0.0) -> Task:
        key = gallery_run.script_key(script, self.files(script), self.facts(release))
        return Task(release, script, key, self.build / "results" / release.tvm / f"{script.name}.json", seconds)


# ---------------------------------------------------------------------------------------------------------------------
# Environments


def environment(place: Workplace, release: Release) -> Path:
    """The Python of a release's environment, which is made if it is not there.

    Raises
    ------
    UsageError
        pip cannot install it.
    """
    if release.installed:
        return Path(sys.executable)
    folder = place.build / "env" / f"{release.tvm}+{release.ffi}"
    python, complete = folder / "bin/python", folder / "complete"
    if complete.is_file():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    print(f"drift: an environment for apache-tvm {release.tvm} with apache-tvm-ffi {release.ffi} …", flush=True)
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target"]
    wanted = [f"apache-tvm=={release.tvm}", f"apache-tvm-ffi=={release.ffi}"]
    done = subprocess.run([*install, str(packages), *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"pip could not install {' '.join(wanted)}:\n{done.stderr.strip()}")
    # Everything else comes from the environment of the book; what this one has itself comes first on the path.
    others = [entry for entry in sys.path if Path(entry).name == "site-packages"]
    (packages / "zz_book.pth").write_text("".join(f"{entry}\n" for entry in others), encoding="utf-8")
    complete.touch()
    return python


def packages(place: Workplace, release: Release) -> Path:
    """The folder that holds the packages of a release; it need not exist."""
    if release.installed:
        return Path(importlib.util.find_spec("tvm").origin).parents[1]
    found = list((place.build / "env" / f"{release.tvm}+{release.ffi}").glob("lib/python*/site-packages"))
    return found[0] if found else place.build / "env" / "none"


# ---------------------------------------------------------------------------------------------------------------------
# Runs


class Worker:
    """A process in the environment of a release that runs scripts one after the other."""

    def __init__(self, place: Workplace, release: Release, python: Path) -> None:
        self.place, self.release, self.python = place, release, python
        self.process: subprocess.Popen[str] | None = None
        self.broken = ""

    def _start(self) -> None:
        # The package of this checkout, whatever the environment has; a folder of byte code per release.
        source = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
        tools = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
        arguments = [str(self.place.root), json.dumps(self.place.names)]
        self.process = subprocess.Popen(
            [str(self.python), "-m", "tvm_deepdive_helpers.maintain.drift_worker", *arguments],
            env={**os.environ, "PYTHONPATH": path, "PATH": tools, "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=self.place.root,
        )  # fmt: skip
        hello = self._read()
        if not hello or not hello["ready"]:
            self.broken = hello["error"] if hello else "its worker ended at once"

    def _read(self) -> dict[str, Any] | None:
        assert self.process and self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def run(self, task: Task) -> str | None:
        """Run one script; returns why it did not come to its end, if it did not."""
        if self.process is None and not self.broken:
            self._start()
        if self.broken:
            return f"apache-tvm {self.release.tvm} cannot be loaded: {self.broken}"
        assert self.process and self.process.stdin
        request = {"path": str(task.script.path), "name": task.script.name, "out": str(_partial(task))}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self._read()
        if answer is None:
            self.close()
            return "the process that ran it ended"
        return answer["ended"]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _partial(task: Task) -> Path:
    return task.out.with_suffix(".part")


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def run_task(worker: Worker, task: Task) -> dict[str, Any]:
    """Run a script on a release, and write its result."""
    started = time.monotonic()
    ended = worker.run(task)
    content = {"cells": [], "cpu_seconds": 0.0}
    if _partial(task).is_file():
        content = json.loads(_partial(task).read_text(encoding="utf-8"))
    result = {
        "key": task.key,
        "script": task.script.name,
        "tvm": task.release.tvm,
        "ffi": task.release.ffi,
        "date": _today(),
        "ended": ended,
        "seconds": round(time.monotonic() - started, 2),
        **content,
    }
    _write(task, result)
    _partial(task).unlink(missing_ok=True)
    return result


def _write(task: Task, result: dict[str, Any]) -> None:
    records.write_atomically(task.out, json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def take_from_build(place: Workplace, task: Task) -> bool:
    """Take the result of the last build for the reference release, if it is current."""
    if not task.release.installed:
        return False
    stamp = place.built / f"{task.script.name}{gallery_run.STAMP}"
    key = gallery_run.script_key(
        task.script, gallery_run.inputs(task.script, place.gallery / "data"), gallery_run.versions()
    )
    if not gallery_run.is_current(stamp, key):
        return False
    record = records.load(records.record_path(place.built, task.script.name))
    cells = [
        {
            "name": cell.name or f"block {number}",
            "line": cell.line,
            "varies": cell.varies,
            "output": "\n".join(line.rstrip() for line in cell.output.strip("\n").split("\n")),
            "figures": len(cell.images),
            "values": {},
        }
        for number, cell in enumerate(record.cells, 1)
    ]
    values = {name: item["value"] for name, item in record.glued.items() if not item["varies"]}
    if cells:
        cells[-1]["values"] = values
    result = {
        "key": task.key,
        "script": task.script.name,
        "tvm": task.release.tvm,
        "ffi": task.release.ffi,
        "date": record.date,
        "ended": None,
        "seconds": record.seconds,
        "cells": cells,
        "cpu_seconds": record.cpu_seconds,
    }
    _write(task, result)
    return True


@dataclass
class Progress:
    """Says what is done, and about how long the rest takes."""

    total: float
    count: int
    done: float = 0.0
    number: int = 0
    started: float = field(default_factory=time.monotonic)

    def say(self, task: Task, result: dict[str, Any]) -> str:
        self.done += task.seconds
        self.number += 1
        elapsed = time.monotonic() - self.started
        left = elapsed * (self.total - self.done) / self.done if self.done else 0.0
        failed = sum("error" in cell for cell in result["cells"])
        end = f"; it ended early: {result['ended']}" if result["ended"] else ""
        said = f"{failed} of {len(result['cells'])} cells failed" if failed else f"{len(result['cells'])} cells"
        width = len(str(self.count))
        return (
            f"[{self.number:{width}}/{self.count}] {task.release.tvm:13} {task.script.name:45} "
            f"{result['seconds']:6.1f} s  {said}{end}" + (f"  (about {left / 60:.0f} min left)" if left >= 60 else "")
        )


def run(
    place: Workplace, releases: Sequence[Release], names: Iterable[str] | None, shard: str | None, jobs: int
) -> list[Task]:
    """Bring results up to date; returns the tasks that had to run."""
    chosen = [script for script in place.scripts if names is None or script.name in set(names)]
    times = shards.recorded_times(place.root)
    usual = sorted(times.values())[len(times) // 2] if times else shards.UNKNOWN
    tasks = {
        f"{release.tvm} {script.name}": place.task(release, script, times.get(script.name, usual))
        for release in releases
        for script in chosen
    }
    if shard:
        number, count = shards.parse_shard(shard)
        kept = shards.cut(tasks, {name: task.seconds for name, task in tasks.items()}, count)[number - 1]
        tasks = {name: tasks[name] for name in kept}
    todo = [task for task in tasks.values() if task.result is None and not take_from_build(place, task)]
    print(f"drift: {len(tasks)} runs of scripts, {len(todo)} have to be done", flush=True)
    pythons = {release: environment(place, release) for release in dict.fromkeys(task.release for task in todo)}
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    # Release by release, the longest script first: the end of the run has little to wait for.
    for task in sorted(todo, key=lambda task: (list(releases).index(task.release), -task.seconds, task.script.name)):
        waiting.put(task)
    progress = Progress(sum(task.seconds for task in todo) or 1.0, len(todo))
    saying, problems = threading.Lock(), []

    def work() -> None:
        worker: Worker | None = None
        try:
            while True:
                task = waiting.get_nowait()
                if worker is None or worker.release != task.release:
                    if worker is not None:
                        worker.close()
                    worker = Worker(place, task.release, pythons[task.release])
                result = run_task(worker, task)
                with saying:
                    print(progress.say(task, result), flush=True)
        except queue.Empty:
            pass
        except BaseException as err:  # noqa: BLE001 - said by the main thread
            problems.append(err)
        finally:
            if worker is not None:
                worker.close()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, min(jobs, len(todo))))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return todo


# ---------------------------------------------------------------------------------------------------------------------
# Parts of a run, done on several machines


def merge(place: Workplace, folders: Sequence[Path]) -> int:
    """Take the results below other ``_build/drift`` folders.

    Returns
    -------
    int
        How many results were taken.

    Raises
    ------
    UsageError
        Two folders hold different results of one script and release, or one has none at all; nothing was copied.
    """
    taken: dict[tuple[str, str], dict[str, Any]] = {}
    problems = []
    tasks = {(release.tvm, s.name): place.task(release, s) for release in place.releases for s in place.scripts}
    for folder in [place.build, *folders]:
        if folder != place.build and not folder.is_dir():
            raise UsageError(f"there is no folder {folder}")
        for at, task in tasks.items():
            path = folder / "results" / task.out.relative_to(place.build / "results")
            result = Task(task.release, task.script, task.key, path).result
            if result is None:
                continue
            first = taken.setdefault(at, result)
            if _essence(first) != _essence(result):
                problems.append(f"{at[0]} {at[1]}: two folders hold different results")
    problems += [f"{at[0]} {at[1]}: no folder holds a result" for at in tasks if at not in taken]
    if problems:
        raise UsageError("\n".join(problems))
    for at, result in taken.items():
        _write(tasks[at], result)
    return len(taken)


def _essence(result: dict[str, Any]) -> Any:
    """What two runs of the same script must have in common."""
    cells = [
        (cell["name"], "error" in cell, None if cell["varies"] else (cell["output"], cell["figures"]))
        for cell in result["cells"]
    ]
    return (bool(result["ended"]), cells)


# ---------------------------------------------------------------------------------------------------------------------
# Comparison


def short_diff(old: str, new: str) -> list[str]:
    """The lines that differ: ``-`` those of the reference, ``+`` the others; at most ``DIFF_LINES``."""
    lines = [
        line if len(line) <= DIFF_WIDTH else line[: DIFF_WIDTH - 1] + "…"
        for line in difflib.unified_diff(old.split("\n"), new.split("\n"), lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"… {len(lines) - DIFF_LINES} more lines"]
    return lines


def compare(reference: dict[str, Any], result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What happened to each cell that did not come out as on the reference release.

    Returns
    -------
    dict
        Name of the cell -> ``status`` (``changed``, ``failed``, ``blocked`` by a failed cell, ``lost`` because the
        script's process ended, ``renamed``: the same once a thing has today's name) with ``diff``, ``why``,
        ``needs`` or ``names``. Cells that are not named came out the same, or, if their output varies from run to
        run, ran.
    """
    values = {name: value for cell in reference["cells"] for name, value in cell["values"].items()}
    got = {cell["name"]: cell for cell in result["cells"]}
    found: dict[str, dict[str, Any]] = {}
    for number, cell in enumerate(reference["cells"]):
        name = cell["name"]
        other = got.get(name)
        if other is None:
            # The first cell without a result is the one in which the process ended.
            first = number == len(result["cells"])
            found[name] = {"status": "failed", "why": result["ended"]} if first else {"status": "lost"}
        elif "needs" in other:
            found[name] = {"status": "blocked", "needs": other["needs"]}
        elif "error" in other:
            found[name] = {"status": "failed", "why": other["error"]}
        else:
            diff = [] if cell["varies"] else short_diff(cell["output"], other["output"])
            if not cell["varies"] and cell["figures"] != other["figures"]:
                diff.append(f"{cell['figures']} figures -> {other['figures']}")
            diff += [
                f"{key} = {values[key]!r} -> {value!r}"
                for key, value in other["values"].items()
                if key in values and values[key] != value
            ]
            if diff:
                found[name] = {"status": "changed", "diff": diff}
            elif "renamed" in other:
                found[name] = {"status": "renamed", "names": other["renamed"]}
    return found


def gather(place: Workplace, stale: bool = False) -> dict[str, Any]:
    """Compare all results with those of the reference release.

    Raises
    ------
    UsageError
        A result is missing.
    """
    reference, *others = place.releases
    content: dict[str, Any] = {}
    missing = []
    dates = []
    for script in place.scripts:
        results = {}
        for release in place.releases:
            task = place.task(release, script)
            result = task.result
            if result is None and stale and task.out.is_file():
                result = json.loads(task.out.read_text(encoding="utf-8"))
            if result is None:
                missing.append(f"{release.tvm} {script.name}")
            else:
                results[release.tvm] = result
        if len(results) < len(place.releases):
            continue
        base = results[reference.tvm]
        dates += [result["date"] for result in results.values()]
        content[script.name] = {
            "digest": place.digest(script),
            "seconds": round(base["cpu_seconds"], 1),
            "cells": [cell["name"] + (", varies" if cell["varies"] else "") for cell in base["cells"]],
            **{release.tvm: compare(base, results[release.tvm]) for release in others},
        }
    if missing and not stale:
        raise UsageError(f"no result of: {', '.join(missing)}; run `make drift`, or merge the shards, first")
    index = place.root / "book/_data/cpp_symbols.json"
    sources = {
        release.tvm: citation_drift.release_places(packages(place, release), release.tvm, release.ffi, index)
        for release in place.releases
        if packages(place, release).is_dir()
    }
    citations = {}
    if index.is_file() and len(sources) == len(place.releases):
        pages = [page for page in place.root.glob("book/*/*.md") if page.parent.name[0].isdigit()]
        cited = citation_drift.targets(pages)
        citations = {
            "wheels": citation_drift.compare(cited, sources.pop(reference.tvm), sources),
            "index": citation_drift.count_index(index),
        }
    return {
        "about": "generated by `make drift` (python -m tvm_deepdive_helpers.maintain.drift); do not edit",
        "date": max(dates, default=""),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "machine": platform.machine(),
        "releases": [{"tvm": release.tvm, "ffi": release.ffi} for release in place.releases],
        "scripts": content,
        "citations": citations,
    }


def summary(content: dict[str, Any]) -> str:
    """One line a release."""
    lines = []
    cells = sum(len(entry["cells"]) for entry in content["scripts"].values())
    for release in content["releases"][1:]:
        counts: dict[str, int] = {}
        for entry in content["scripts"].values():
            for cell in entry[release["tvm"]].values():
                counts[cell["status"]] = counts.get(cell["status"], 0) + 1
        said = ", ".join(f"{number} {status}" for status, number in sorted(counts.items())) or "no difference"
        lines.append(f"{release['tvm']}: {cells} cells, {said}")
    return "\n".join(lines)


def differences(said: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Cells that fare otherwise than the book says, a line each; dates, times and citations do not count."""
    lines = []
    names = [release["tvm"] for release in now["releases"][1:]]
    for script in sorted(said["scripts"].keys() | now["scripts"].keys()):
        if script not in said["scripts"] or script not in now["scripts"]:
            lines.append(f"{script}: {'gone' if script not in now['scripts'] else 'not recorded yet'}")
            continue
        old, new = said["scripts"][script], now["scripts"][script]
        for name in names:
            before, after = old.get(name, {}), new[name]
            for cell in sorted(before.keys() | after.keys()):
                was, is_ = (found.get(cell, {}).get("status", "same") for found in (before, after))
                if was != is_:
                    lines.append(f"{script}, {cell}, on {name}: {was} in the book, {is_} now")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="drift", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run the scripts that have no current result")
    running.add_argument("--release", action="append", help="only this release of apache-tvm (may be repeated)")
    running.add_argument("--script", action="append", help="only this script, as part/name (may be repeated)")
    running.add_argument("--shard", help="only a part of the work, such as 2/5")
    running.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="scripts at a time")
    running.add_argument("--again", action="store_true", help="forget the chosen results first")
    writing = commands.add_parser("write", help=f"compare the results, and write gallery/data/{DATA}")
    writing.add_argument(
        "--stale", action="store_true", help="leave out, or take from an older run, what has no result"
    )
    commands.add_parser("check", help=f"compare the results with gallery/data/{DATA}; writes nothing")
    merging = commands.add_parser("merge", help="take the results of other folders, and check that none is missing")
    merging.add_argument("folders", nargs="+", type=Path, help="what other machines left in _build/drift")
    arguments = parser.parse_args(argv)
    place = Workplace()
    try:
        if arguments.command == "merge":
            print(f"drift: {merge(place, arguments.folders)} results")
            return 0
        if arguments.command == "write":
            content = gather(place, arguments.stale)
            records.write_atomically(place.data, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            print(summary(content))
            return 0
        if arguments.command == "check":
            found = differences(json.loads(place.data.read_text(encoding="utf-8")), gather(place))
            print("\n".join(found) or "drift: as the book says")
            return 1 if found else 0
        known = {release.tvm: release for release in place.releases}
        unknown = set(arguments.release or ()) - known.keys()
        unknown |= set(arguments.script or ()) - {script.name for script in place.scripts}
        if unknown:
            raise UsageError(f"there is no {', '.join(sorted(unknown))}; releases: {', '.join(known)}")
        chosen = [release for name, release in known.items() if not arguments.release or name in arguments.release]
        if arguments.again:
            for release in chosen:
                for script in place.scripts:
                    if not arguments.script or script.name in arguments.script:
                        place.task(release, script).out.unlink(missing_ok=True)
        run(place, chosen, arguments.script, arguments.shard, arguments.jobs)
    except (UsageError, ValueError, scripts.ScriptError) as error:
        print(f"drift: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("drift: interrupted; the next run goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
