"""Cut the scripts of the gallery into shards of about equal work, so that several machines share a run.

The cut depends only on the names of the scripts and on the times that are recorded in ``gallery/data/drift.json``, so
every machine that has the same commit makes the same cut::

    python -m tvm_deepdive_helpers.maintain.shards run 2/5                # runs the scripts of the second shard
    python -m tvm_deepdive_helpers.maintain.shards merge results/*        # puts the results of all shards together
    python -m tvm_deepdive_helpers.maintain.shards show 5                 # says what is in each shard

``run`` leaves the results in ``book/gallery``; keep that folder, hidden files included, and give the kept folders to
``merge``. A build that follows runs no script.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tvm_deepdive_helpers.sphinxext import gallery_run, scripts

ROOT = Path(__file__).resolve().parents[3]
TIMES = Path("gallery/data/drift.json")
#: Seconds that a script is taken to need when nothing is recorded of any.
UNKNOWN = 4.0


class UsageError(Exception):
    """Something that the caller asked for cannot be done; the message says why."""


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``2/5``: the second of five.

    Raises
    ------
    ValueError
        It is not of that form, or there is no such shard.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"{text!r} is no shard; write 2/5 for the second of five")
    return int(match[1]), int(match[2])


def cut(names: Iterable[str], seconds: Mapping[str, float], count: int) -> list[list[str]]:
    """Cut names into ``count`` shards whose sums of seconds are about equal.

    The longest one comes first, and each goes to the shard that has the least to do so far. A name without a
    recorded time counts as the median of the others.

    Examples
    --------
    >>> cut(["a", "b", "c", "d"], {"a": 5, "b": 3, "c": 3, "d": 1}, 2)
    [['a', 'd'], ['b', 'c']]
    """
    names = sorted(set(names))
    known = [seconds[name] for name in names if name in seconds]
    usual = statistics.median(known) if known else UNKNOWN
    weight = {name: float(seconds.get(name, usual)) for name in names}
    shards: list[list[str]] = [[] for _ in range(count)]
    load = [0.0] * count
    for name in sorted(names, key=lambda name: (-weight[name], name)):
        least = min(range(count), key=lambda number: (load[number], number))
        shards[least].append(name)
        load[least] += weight[name]
    return [sorted(shard) for shard in shards]


def recorded_times(root: Path = ROOT) -> dict[str, float]:
    """CPU seconds of each script in the last drift run of the reference release; empty if there is none."""
    try:
        content = json.loads((root / TIMES).read_text(encoding="utf-8"))
        return {name: float(entry["seconds"]) for name, entry in content["scripts"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def script_names(gallery: Path) -> list[str]:
    """Names of all scripts of the gallery, as ``part/name``."""
    return sorted(path.relative_to(gallery).with_suffix("").as_posix() for path in gallery.glob("*/*.py"))


def shard(names: Iterable[str], which: str, root: Path = ROOT) -> list[str]:
    """The names in one shard, such as ``"2/5"``."""
    number, count = parse_shard(which)
    return cut(names, recorded_times(root), count)[number - 1]


def run(which: str, root: Path = ROOT) -> int:
    """Run the scripts of one shard into ``book/gallery``; returns the exit status."""
    names = shard(script_names(root / "gallery"), which, root)
    print(f"shard {which}: {len(names)} scripts")
    if not names:
        return 0
    command = [sys.executable, "-m", "sphinx", "-q", "-c", str(root), "-b", "dummy"]
    command += ["-d", str(root / "_build/doctrees/shard"), "-D", f"gallery_only={','.join(names)}"]
    return subprocess.run([*command, str(root / "book"), str(root / "_build/shard")], check=False).returncode


def _current(folder: Path, root: Path, facts: dict[str, str]) -> dict[str, Path]:
    """Scripts with a complete result in a folder that has today's key -> its stamp."""
    found = {}
    for name in script_names(root / "gallery"):
        stamp = folder / f"{name}{gallery_run.STAMP}"
        if stamp.is_file():
            script = scripts.parse(root / "gallery" / f"{name}.py", name)
            key = gallery_run.script_key(script, gallery_run.inputs(script, root / "gallery/data"), facts)
            if gallery_run.is_current(stamp, key):
                found[name] = stamp
    return found


def merge(folders: Sequence[Path], into: Path, root: Path = ROOT) -> int:
    """Put the results of shards together.

    Returns
    -------
    int
        How many scripts have a result.

    Raises
    ------
    UsageError
        A script has no result, or two folders have different ones; nothing was copied.
    """
    facts = gallery_run.versions()
    sources: dict[str, Path] = {}
    problems = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}")
        for name, stamp in _current(folder, root, facts).items():
            first = sources.setdefault(name, stamp)
            if first is not stamp and _files(first) != _files(stamp):
                problems.append(f"gallery/{name}.py: {first.parent} and {stamp.parent} hold different results")
    missing = [name for name in script_names(root / "gallery") if name not in sources]
    problems += [f"gallery/{name}.py: no folder holds a result of its present text" for name in missing]
    if problems:
        raise UsageError("\n".join(problems))
    for name, stamp in sources.items():
        target = into / f"{name}{gallery_run.STAMP}"
        if target.resolve() == stamp.resolve():
            continue
        gallery_run.forget(target.parent, Path(name).name)
        for file in [*_files(stamp), stamp.name]:  # the stamp last, as the runner does
            copied = target.parent / file
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(stamp.parent / file, copied)
    return len(sources)


def _files(stamp: Path) -> dict[str, str]:
    return json.loads(stamp.read_text(encoding="utf-8"))["files"]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; see the module."""
    parser = argparse.ArgumentParser(prog="shards", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the scripts of one shard").add_argument("shard", metavar="2/5")
    merging = commands.add_parser("merge", help="put the results of all shards together")
    merging.add_argument("folders", nargs="+", type=Path, help="what each machine left in book/gallery")
    merging.add_argument("--into", type=Path, default=ROOT / "book/gallery")
    commands.add_parser("show", help="say what is in each shard").add_argument("count", type=int)
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "run":
            return run(arguments.shard)
        if arguments.command == "merge":
            print(f"shards: {merge(arguments.folders, arguments.into)} scripts have a result")
            return 0
        times = recorded_times()
        for number, names in enumerate(cut(script_names(ROOT / "gallery"), times, arguments.count), 1):
            total = sum(times.get(name, 0.0) for name in names)
            print(f"{number}/{arguments.count}: {len(names)} scripts, {total:.0f} recorded CPU seconds")
            print("\n".join(f"    {name}" for name in names))
    except (UsageError, ValueError) as error:
        print(f"shards: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
