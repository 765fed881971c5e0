"""The commands that write the data of the start pages and of the time line of Part 1."""

import csv
import subprocess

import pytest

from tvm_deepdive_helpers.maintain import ffi_matrix, pull_requests, tree_history
from tvm_deepdive_helpers.recorded import read_csv


def test_innermost_frame_of_tvm():
    backtrace = """!!!!!!! Segfault encountered !!!!!!!
  File "./signal/../sysdeps/unix/sysv/linux/x86_64/libc_sigaction.c", line 0, in 0x00007f42bfc5a04f
  File "<unknown>", line 0, in tvm::ffi::ToJSONGraph(tvm::ffi::Any const&, tvm::ffi::Any const&)
  File "<unknown>", line 0, in tvm::s_tir::Tensorize(tvm::s_tir::ScheduleState, bool)
"""
    assert ffi_matrix.innermost_frame(backtrace) == "tvm::ffi::ToJSONGraph"
    assert ffi_matrix.innermost_frame("ModuleNotFoundError: No module named 'tvm'") == ""


@pytest.mark.parametrize("operation", ["save_json", "tensorize"])
def test_probes_pass_with_the_pinned_release(operation):
    ended = ffi_matrix.run_isolated(ffi_matrix.PROBES[operation])
    assert ended.ok, ended.stderr


def test_release_dates(tmp_path):
    checkout = tmp_path / "tvm"
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "tag.gpgsign=false"]

    def git(*args, date="2020-01-02T12:00:00Z"):
        env = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "PATH": "/usr/bin:/bin:/usr/local/bin"}
        subprocess.run(["git", *identity, *args], cwd=checkout, env=env, check=True, capture_output=True)

    checkout.mkdir()
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "one")
    git("tag", "v0.9.0")
    git("tag", "v0.10.0.rc0")
    git("commit", "--quiet", "--allow-empty", "--message", "two", date="2021-03-04T12:00:00Z")
    git("tag", "v0.10.0")
    tree_history.main(["--checkout", str(checkout), "--into", str(tmp_path)])
    table = tmp_path / "tvm_releases.csv"
    assert table.read_text().startswith("# generated: python -m tvm_deepdive_helpers.maintain.tree_history")
    assert [tuple(row.values()) for row in read_csv(table)] == [
        ("v0.9.0", "2020-01-02"),
        ("v0.10.0", "2021-03-04"),
    ]


def test_pull_requests(tmp_path):
    checkout = tmp_path / "tvm"
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "tag.gpgsign=false"]
    env = {"GIT_AUTHOR_DATE": "2020-01-02T12:00:00Z", "GIT_COMMITTER_DATE": "2020-01-02T12:00:00Z"}
    env["PATH"] = "/usr/bin:/bin:/usr/local/bin"

    def git(*args):
        subprocess.run(["git", *identity, *args], cwd=checkout, env=env, check=True, capture_output=True)

    checkout.mkdir()
    git("init", "--quiet")
    (checkout / "a").write_text("a")
    (checkout / "b").write_text("b")
    git("add", ".")
    git("commit", "--quiet", "--message", "Two files (#7)")
    git("commit", "--quiet", "--allow-empty", "--message", 'Revert "Two files (#7)" (#8)')
    git("tag", "v0.9.0")
    git("tag", "v0.10.0")
    found = pull_requests.pull_request(checkout, 7, "v0.10.0", "why, so")
    assert (found.date, found.release, found.files, found.what) == ("2020-01-02", "v0.9.0", 2, "why, so")
    assert pull_requests.pull_request(checkout, 8, "v0.10.0").files == 0
    with pytest.raises(LookupError, match="#9"):
        pull_requests.pull_request(checkout, 9, "v0.10.0")
    table = tmp_path / "pulls.csv"
    pull_requests.main(["--checkout", str(checkout), "--tag", "v0.10.0", "--into", str(table), "7=why, so"])
    origin, *lines = table.read_text().splitlines()
    assert origin.startswith("# generated: python -m")
    assert [row["what"] for row in csv.DictReader(lines)] == ["why, so"]
