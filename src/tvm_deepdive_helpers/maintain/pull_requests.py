r"""Write when merged pull requests of TVM were made, and which release has them first, as CSV.

A pull request is one commit whose subject ends with its number in brackets::

    python -m tvm_deepdive_helpers.maintain.pull_requests --checkout path/to/tvm \
        --into gallery/data/relax_type_history.csv 18078="checked_type goes" 19889="ObjectType is called AnyType"
"""

from __future__ import annotations

import argparse
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ..recorded import write_csv
from .git_tree import git, releases, tag_ref


@dataclass(frozen=True)
class PullRequest:
    """One merged pull request.

    Attributes
    ----------
    number : int
    commit : str
        Short id of the commit that merged it.
    date : str
        Day on which its author made it (a branch that was merged later has a later commit date), year-month-day.
    release : str
        Oldest final release that contains it; empty if none does.
    files : int
        Files that the commit changed.
    what : str
        A remark in the author's own words.
    """

    number: int
    commit: str
    date: str
    release: str
    files: int
    what: str = ""


def pull_request(checkout: Path, number: int, tag: str, what: str = "") -> PullRequest:
    """Find a pull request among the ancestors of a release.

    Parameters
    ----------
    checkout
        A clone of TVM, bare or not.
    number
        Number of the pull request.
    tag
        Release whose history is searched.
    what
        Remark to carry along.

    Raises
    ------
    LookupError
        If no commit before the release has the number in its subject.
    """
    log = git(checkout, "log", "--format=%h%x09%as%x09%s", f"--grep=(#{number})", "--fixed-strings", tag_ref(tag))
    # The text may also mention the number elsewhere.
    rows = [line.split("\t", 2) for line in log.decode().splitlines()]
    found = [row for row in rows if row[2].endswith(f"(#{number})")]
    if not found:
        raise LookupError(f"no commit before {tag} has (#{number}) at the end of its subject")
    commit, date, _ = found[-1]  # The oldest: a later one may revert it or apply it again.
    changed = git(checkout, "show", "--format=", "--name-only", commit).decode().split("\n")
    holding = set(git(checkout, "tag", "--contains", commit).decode().split())
    release = next((name for name in releases(checkout) if name in holding), "")
    return PullRequest(number, commit, date, release, len(list(filter(None, changed))), what)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkout", type=Path, required=True, help="a clone of TVM, with tags")
    parser.add_argument("--tag", default="v0.26.0", help="release whose history is searched")
    parser.add_argument("--into", type=Path, required=True, help="the CSV file to write")
    parser.add_argument("pulls", nargs="+", metavar="NUMBER=REMARK")
    args = parser.parse_args(argv)
    found = []
    for pull in args.pulls:
        number, _, what = pull.partition("=")
        found.append(pull_request(args.checkout, int(number), args.tag, what))
    command = f"pull_requests --checkout TVM --tag {args.tag} --into FILE NUMBER=REMARK ..."
    write_csv(args.into, command, [field.name for field in fields(PullRequest)], map(astuple, found))


if __name__ == "__main__":
    main()
